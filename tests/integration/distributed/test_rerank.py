"""Scores of datasets on a real Ray: those of one process to the bit, whatever happens."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import ray

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from qdrant_rerank.distributed import rerank_dataset
from qdrant_rerank.errors import InvalidInputError
from tests.integration.distributed.data import json_lines, pairs, parquet, scored
from tests.integration.distributed.processes import until, workers

pytestmark = pytest.mark.usefixtures("local_ray")

COUNT = 400
SMALL = 4000  # bytes of a partition


@pytest.fixture(scope="module")
def rows():
    """Pairs."""
    return pairs(COUNT)


@pytest.fixture(scope="module")
def expected(rows):
    """Their scores by this process, each pair alone."""
    encoder = TextCrossEncoder(DEFAULT_RERANKER)
    return [encoder.rerank(row["query"], [row["text"]])[0] for row in rows]


def test_parquet_to_the_bit_while_a_worker_is_killed(rows, expected, tmp_path):
    """The job is complete, without duplicates, and in order; started again, it does nothing."""
    source = parquet(tmp_path / "in.parquet", rows)
    out = tmp_path / "out"
    killed = []

    def kill():
        until(lambda: len(list(out.glob("part-*"))) >= 2)
        killed.append(workers()[0][0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    found = rerank_dataset(source, output=out, partition_bytes=SMALL, concurrency=2)
    killer.join()
    assert killed
    assert found.rows >= COUNT
    assert found.partitions == len(list(out.glob("part-*"))) > 10
    assert scored(out) == [{**row, "score": one} for row, one in zip(rows, expected, strict=True)]
    assert not list(out.glob(".*"))
    again = rerank_dataset(source, output=out, partition_bytes=SMALL)
    assert (again.rows, again.resumed) == (0, again.partitions)
    with pytest.raises(InvalidInputError, match="another job: its batch_size is 1, and this one"):
        rerank_dataset(source, output=out, partition_bytes=SMALL, batch_size=None)


def test_a_file_without_any_document(rows, expected, tmp_path):
    """Its column has the kind null; its rows get None, and those of other files their scores."""
    (tmp_path / "data").mkdir()
    parquet(tmp_path / "data" / "a.parquet", [{**row, "text": None} for row in rows[:2]])
    parquet(tmp_path / "data" / "b.parquet", rows[:2])
    rerank_dataset(tmp_path / "data", output=tmp_path / "out")
    assert [row["score"] for row in scored(tmp_path / "out")] == [None, None, *expected[:2]]


def test_json_lines_and_resume(rows, expected, tmp_path):
    """Lines stay as they are; a partition that is lost is done again, alone; None has no score."""
    given = [*rows[:100], {"query": None, "text": "a", "big": 2**70, "é": "😀"}]
    source = json_lines(tmp_path / "in.jsonl", given)
    out = tmp_path / "out"
    options = {"output": out, "partition_bytes": SMALL, "concurrency": 1}
    first = rerank_dataset(source, **options)
    assert (first.rows, first.resumed) == (101, 0)
    found = scored(out)
    assert found == [
        {**row, "score": one} for row, one in zip(given, [*expected[:100], None], strict=True)
    ]
    lost = sorted(out.glob("part-*"))[1]
    kept = lost.read_bytes()
    lost.unlink()
    second = rerank_dataset(source, **options)
    assert 0 < second.rows < 101
    assert second.resumed == first.partitions - 1
    assert lost.read_bytes() == kept


def test_a_hugging_face_dataset(rows, expected, tmp_path):
    """Into files, and as a Ray dataset."""
    datasets = pytest.importorskip("datasets")
    few = rows[:40]
    given = datasets.Dataset.from_list(few)
    wanted = [{**row, "score": one} for row, one in zip(few, expected, strict=False)]
    rerank_dataset(given, output=tmp_path / "out", partition_bytes=SMALL, concurrency=1)
    assert scored(tmp_path / "out") == wanted
    assert sorted(rerank_dataset(given).take_all(), key=lambda row: row["n"]) == wanted


def test_a_wrong_row_ends_the_job(rows, tmp_path):
    """The error names it; what is done stays."""
    source = json_lines(tmp_path / "in.jsonl", [*rows[:40], {"query": "a", "text": 7}])
    out = tmp_path / "out"
    with pytest.raises(InvalidInputError, match=r"in\.jsonl, bytes .* has an int as 'text': 7"):
        rerank_dataset(source, output=out, partition_bytes=SMALL, concurrency=1)
    assert scored(out)
    assert not list(out.glob(".*"))


def test_a_ray_dataset_with_a_full_object_store(rows, expected):
    """Blocks that do not fit in memory are spilled; each row has its score."""
    blob = os.urandom(1 << 20)
    few = rows[:160]  # with 1 MiB each, twice the object store
    given = ray.data.from_items(
        [{**row, "n": row["n"]} for row in few], override_num_blocks=16
    ).map(lambda row: {**row, "blob": blob})
    found = rerank_dataset(given.materialize(), concurrency=1).select_columns(["n", "score"])
    scores = {row["n"]: row["score"] for row in found.iter_rows()}
    assert scores == {row["n"]: one for row, one in zip(few, expected, strict=False)}


def test_refusals_of_a_ray_dataset(tmp_path):
    """A missing column, and a directory for results."""
    given = ray.data.from_items([{"query": "a", "body": "b"}])
    with pytest.raises(InvalidInputError, match="has no column 'text'; it has 'query', 'body'"):
        rerank_dataset(given)
    with pytest.raises(InvalidInputError, match="no fixed partitions to go on with"):
        rerank_dataset(given, output=tmp_path / "out")
    with pytest.raises(InvalidInputError, match="A worker needs 64 cores and 0 GPUs"):
        rerank_dataset(given, document="body", cpus_per_worker=64)


INTERRUPTED = """
import sys
from qdrant_rerank.distributed import rerank_dataset
from tests.integration.distributed.conftest import running
with running(cores=1):
    rerank_dataset(sys.argv[1], output=sys.argv[2], partition_bytes=2000)
"""


def test_ctrl_c_leaves_nothing_half_written(rows, expected, tmp_path):
    """What is there is whole, and the job goes on from there."""
    source = parquet(tmp_path / "in.parquet", rows * 20)
    out = tmp_path / "out"
    job = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(source), str(out)],
        cwd=Path(__file__).parents[3],
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: len(list(out.glob("part-*"))) >= 3 or job.poll() is not None)
    assert job.poll() is None, job.stderr.read()
    job.send_signal(signal.SIGINT)
    _, told = job.communicate(timeout=600)
    assert "KeyboardInterrupt" in told
    assert not list(out.glob(".*"))
    found = scored(out)
    assert 0 < len(found) < len(rows) * 20
    by_number = dict(zip((row["n"] for row in rows), expected, strict=True))
    assert all(row["score"] == by_number[row["n"]] for row in found)
