"""Partitions of files: every row once, whatever the size; what is wrong shows before any work."""

import gzip
import json

import pytest

from qdrant_rerank.distributed import index_dataset, rerank_dataset
from qdrant_rerank.distributed.output import Output
from qdrant_rerank.distributed.sources import Source
from qdrant_rerank.errors import InvalidInputError, UnknownModelError
from tests.integration.distributed.data import json_lines, pairs, parquet


def everything(source):
    """The rows of all partitions."""
    return [row for partition in source.partitions for row in partition.rows()]


@pytest.mark.parametrize("partition_bytes", [1, 100, 999, 10_000, 10**9])
def test_every_row_is_in_one_partition(tmp_path, partition_bytes):
    """In the order of the files, for Parquet, JSON lines, and gzipped ones."""
    rows = pairs(150)
    rows[3]["text"] = "é" * 500  # a line that is longer than a partition
    (tmp_path / "parquet").mkdir()
    (tmp_path / "lines").mkdir()
    for number, part in enumerate((rows[:60], rows[60:])):
        parquet(tmp_path / "parquet" / f"{number}.parquet", part, 7)
        json_lines(tmp_path / "lines" / f"{number}.jsonl", part)
    packed = tmp_path / "all.jsonl.gz"
    with gzip.open(packed, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    for given in (tmp_path / "parquet", str(tmp_path / "lines"), [packed]):
        source = Source(given, partition_bytes)
        assert everything(source) == rows
        assert source.first_rows(70) == rows[:70]
        assert [one.number for one in source.partitions] == list(range(len(source.partitions)))
    assert len(Source(packed, 1).partitions) == 1


def test_lines_without_a_last_newline_and_with_blank_ones(tmp_path):
    """They are read as they are; blank lines are no rows."""
    file = tmp_path / "in.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"a": 2}')
    assert everything(Source(file, 5)) == [{"a": 1}, {"a": 2}]


def test_a_hugging_face_dataset(tmp_path):
    """Its rows, by number; also those of a selection."""
    datasets = pytest.importorskip("datasets")
    rows = pairs(50)
    made = datasets.Dataset.from_list(rows)
    assert everything(Source(made, 500)) == rows
    assert everything(Source(made.select(range(10, 20)), 500)) == rows[10:20]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.parquet", None, "There is no file"),
        ("text.txt", "a", "unknown kind; expected a file or a directory of .parquet"),
        ("broken.parquet", "a", "broken.parquet is not a readable Parquet file"),
        ("empty.jsonl", "\n", "has no rows; expected one or more"),
        ("list.jsonl", "[1]\n", "the line at byte 0 holds a list; expected a JSON object"),
        ("half.jsonl", '{"query": "a", "te', "the line at byte 0 is not JSON"),
        ("other.jsonl", '{"query": "a", "body": "b"}', "has no column 'text'; it has 'query', 'bo"),
        ("number.jsonl", '{"query": "a", "text": 5}', "has an int as 'text': 5; expected a text"),
        ("taken.jsonl", '{"query": "a", "text": "b", "score": 1}', "a column 'score' already"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    """The error says what was seen, and nothing is written."""
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        rerank_dataset(file, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_arguments(tmp_path):
    """Before any work, and before Ray is started."""
    good = parquet(tmp_path / "in.parquet", pairs(3))
    number = parquet(tmp_path / "numbers.parquet", [{"query": "a", "text": 1}])
    bodies = parquet(tmp_path / "bodies.parquet", [{"query": "a", "body": "b"}])
    scored = parquet(tmp_path / "scored.parquet", [{"query": "a", "text": "b", "score": 1.0}])
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    out = tmp_path / "out"
    for given, message in [
        ({"dataset": number}, "the column 'text' holds int64; expected texts"),
        ({"dataset": good, "document": "body"}, "has no column 'body'; it has 'query', 'text'"),
        ({"dataset": good, "score": "n"}, "has a column 'n' already"),
        ({"dataset": [good, bodies]}, r"bodies.parquet.* has no column 'text'; it has 'query', 'b"),
        ({"dataset": [good, number]}, r"numbers.parquet.*: the column 'text' holds int64"),
        ({"dataset": [good, scored]}, r"scored.parquet.* has a column 'score' already"),
        ({"dataset": good, "query": ""}, "query is ''; expected the name of a column"),
        ({"dataset": nothing}, "without files; expected a file or a directory"),
        ({"dataset": 5}, "dataset is an int; expected a file"),
        ({"dataset": "s3://bucket/key"}, "is a URL"),
        ({"dataset": [good, json_lines(tmp_path / "in.jsonl", pairs(3))]}, "files of one kind"),
        ({"dataset": good, "concurrency": 0}, "concurrency is 0; expected 1 or more"),
        ({"dataset": good, "cpus_per_worker": 0}, "cpus_per_worker is 0"),
        ({"dataset": good, "batch_size": 0}, "batch_size is 0"),
        ({"dataset": good, "partition_bytes": 0}, "partition_bytes is 0"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            rerank_dataset(**{"output": out, **given})
        assert not out.exists()
    with pytest.raises(UnknownModelError, match="no-such-model"):
        rerank_dataset(good, output=out, model="no-such-model")
    with pytest.raises(InvalidInputError, match="There is no Qdrant to store documents in"):
        index_dataset(good, "docs")
    with pytest.raises(InvalidInputError, match="has files, and none is the record of a job"):
        Output(tmp_path / "full", ".parquet", {})
    assert (tmp_path / "full" / "mine").read_text() == "mine"


@pytest.mark.parametrize("inside", [".", "scored", "deeper/scored"])
def test_results_inside_the_dataset(tmp_path, inside):
    """They would be read as the dataset when the job is started again."""
    (tmp_path / "data").mkdir()
    parquet(tmp_path / "data" / "in.parquet", pairs(3))
    with pytest.raises(InvalidInputError, match=r"inside the dataset .*data: .* outside of it"):
        rerank_dataset(tmp_path / "data", output=tmp_path / "data" / inside)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["in.parquet"]


def test_another_jobs_directory(tmp_path):
    """It is refused, and the error says what differs."""
    Output(tmp_path / "out", ".parquet", {"model": "a", "batch_size": 1})
    again = Output(tmp_path / "out", ".parquet", {"model": "a", "batch_size": 1})
    (tmp_path / "out" / ".mine.partial").write_text("mine")
    again.clean()
    assert (tmp_path / "out" / ".mine.partial").read_text() == "mine"
    with pytest.raises(InvalidInputError, match="its model is 'a', and this one's 'b'"):
        Output(tmp_path / "out", ".parquet", {"model": "b", "batch_size": 1})
