"""The embedded engine: what it keeps, who may open it, what goes wrong, and what it can do."""

import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge
from qdrant_client import QdrantClient, models

from qdrant_rerank import HybridSearcher, TextIndex
from qdrant_rerank.errors import (
    CollectionNotFoundError,
    InvalidInputError,
    QdrantConnectionError,
    QdrantRequestError,
)
from qdrant_rerank.qdrant.embedded.choice import embedded_client
from qdrant_rerank.qdrant.embedded.client import EmbeddedClient
from tests.releases import needs_client

VECTORS = {"vectors_config": models.VectorParams(size=2, distance=models.Distance.DOT)}


def rows(*ids, **payload):
    """Points on a line, further out by their number."""
    return [models.PointStruct(id=n, vector=[float(n), 1.0], payload=payload) for n in ids]


@pytest.fixture
def edge():
    """The engine, in memory, with a collection of three points."""
    with closing(EmbeddedClient()) as client:
        client.create_collection("points", **VECTORS)
        client.upsert("points", rows(1, 2, 3))
        yield client


def run(code, arguments=(), **environment):
    """A process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=False,
        timeout=300,  # a bound, not a target
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


# --- what is kept


@needs_client(1, 20)
def test_collections_indexes_and_aliases_are_there_the_next_time(tmp_path):
    """As they were, with their settings and metadata."""
    path = tmp_path / "db"
    with closing(EmbeddedClient(path)) as client:
        client.create_collection(
            "points",
            **VECTORS,
            sparse_vectors_config={"bm25": models.SparseVectorParams(modifier="idf")},
            hnsw_config=models.HnswConfigDiff(m=8),
            metadata={"filled_by": "a test"},
        )
        client.upsert("points", rows(1, 2, colour="red"))
        client.create_payload_index("points", "colour", models.PayloadSchemaType.KEYWORD)
        client.create_payload_index(
            "points", "text", models.TextIndexParams(type="text", scoring=True)
        )
        client.update_collection("points", metadata={"since": 2026})
        client.update_collection_aliases([_alias("current", "points")])
        before = client.get_collection("points")
    with closing(EmbeddedClient(path)) as client:
        after = client.get_collection("current")
        assert after.config == before.config
        assert after.payload_schema == before.payload_schema
        assert after.config.params.vectors.size == 2
        assert after.config.hnsw_config.m == 8
        assert after.config.metadata == {"filled_by": "a test", "since": 2026}
        assert after.payload_schema["colour"].points == 2
        assert after.payload_schema["text"].params.scoring is True
        assert client.count("current").count == 2
        client.delete_payload_index("points", "text")
        assert set(client.get_collection("points").payload_schema) == {"colour"}


def test_a_process_killed_while_it_adds_loses_nothing_that_add_returned_for(tmp_path):
    """SIGKILL in the middle of the writes; each line on stdout is a batch that was stored."""
    code = (
        "import itertools\n"
        "from qdrant_rerank import HybridSearcher\n"
        "s = HybridSearcher('docs', reranker=None)\n"
        "for batch in itertools.count():\n"
        "    s.add([f'document {batch} {n}' for n in range(20)], progress=False)\n"
        "    print(batch, flush=True)\n"
    )
    environment = {**os.environ, "QDRANT_PATH": str(tmp_path / "db")}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if int(line) == 7:
                process.send_signal(signal.SIGKILL)
                break
        returned = 8 + len(process.stdout.readlines())
    assert process.returncode == -signal.SIGKILL
    with closing(EmbeddedClient(tmp_path / "db")) as client:
        texts = {record.payload["text"] for record in client.scroll("docs", limit=10_000)[0]}
        assert texts >= {f"document {b} {n}" for b in range(returned) for n in range(20)}
        found = HybridSearcher("docs", client=client, reranker=None).search("document", limit=1)
        assert found


@needs_client(1, 20)
def test_in_memory_leaves_no_files(tmp_path, monkeypatch):
    """After close, and after a process that forgot it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    client = EmbeddedClient()
    client.create_collection("points", **VECTORS)
    assert len(list(tmp_path.glob("qdrant-rerank-*"))) == 1
    client.close()
    client.close()
    assert list(tmp_path.glob("qdrant-rerank-*")) == []
    done = run(
        "import qdrant_rerank as q; s = q.HybridSearcher('docs', reranker=None); s.add(['a'])",
        TMPDIR=str(tmp_path),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.glob("qdrant-rerank-*")) == []


# --- who may open it


def test_a_directory_is_open_in_one_process(tmp_path):
    """A second process gets one clear error until the last client of the first one is closed."""

    def opened_elsewhere():
        done = run(
            "from qdrant_rerank.qdrant.embedded.client import EmbeddedClient\n"
            f"EmbeddedClient({str(tmp_path)!r}).close()"
        )
        return done.stderr

    with closing(EmbeddedClient(tmp_path)), closing(EmbeddedClient(tmp_path)) as second:
        refused = opened_elsewhere()
        assert "QdrantConnectionError: The Qdrant directory" in refused
        assert "already accessed by another" in refused
        assert refused.count("cannot be opened") == 1
        assert "use a server (QDRANT_URL)" in refused
        second.close()
        assert "already accessed by another" in opened_elsewhere()
    assert opened_elsewhere() == ""
    with closing(EmbeddedClient(tmp_path)) as client:
        assert client.get_collections().collections == []


def test_clients_of_one_process_share_an_open_directory(tmp_path, monkeypatch):
    """Both see what the other writes; a closed one is closed, and the other goes on."""
    monkeypatch.chdir(tmp_path)
    one, other = EmbeddedClient(tmp_path / "db"), EmbeddedClient("db/../db")
    one.create_collection("points", **VECTORS)
    other.upsert("points", rows(1, 2))
    assert one.count("points").count == 2
    one.close()
    with pytest.raises(QdrantConnectionError, match="is closed"):
        one.count("points")
    one.close()
    other.upsert("points", rows(3))
    other.close()
    with closing(EmbeddedClient(tmp_path / "db")) as client:
        assert client.count("points").count == 3


def test_a_forgotten_client_lets_the_directory_go(tmp_path):
    """One that nobody closes and nothing refers to any more."""
    client = EmbeddedClient(tmp_path)
    client.create_collection("points", **VECTORS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del client
        gc.collect()
    done = run(
        "from qdrant_rerank.qdrant.embedded.client import EmbeddedClient\n"
        f"print(EmbeddedClient({str(tmp_path)!r}).count('points'))"
    )
    assert done.stdout == "count=0\n"


def test_a_directory_stays_with_the_engine_that_made_it(tmp_path):
    """Local mode's is opened by local mode; the engine's needs its wheel."""
    with closing(QdrantClient(path=str(tmp_path / "local"))) as local:
        local.create_collection("points", **VECTORS)
    with closing(embedded_client(tmp_path / "local")) as client:
        assert type(client) is QdrantClient
        assert client.collection_exists("points")
    with closing(embedded_client(tmp_path / "edge")) as client:
        assert isinstance(client, EmbeddedClient)
        client.create_collection("points", **VECTORS)
    without = (
        "import sys; sys.modules['qdrant_edge'] = None\n"
        "from qdrant_rerank.qdrant.transport.client import connect\n"
        "print(type(connect()).__name__, type(connect(path=sys.argv[-1] + '/new')).__name__)\n"
        f"connect(path={str(tmp_path / 'edge')!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", without, str(tmp_path)],
        check=False,
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "QdrantClient QdrantClient\n"
    assert "MissingDependencyError" in done.stderr
    assert "pip install 'qdrant-rerank[embedded]'" in done.stderr


# --- what goes wrong


#: On a disk of 250 MB that is filled with something else.
ON_A_SMALL_DISK = """
import os, shutil, sys
from contextlib import closing
from pathlib import Path
from qdrant_rerank import HybridSearcher
from qdrant_rerank.qdrant.embedded.client import EmbeddedClient

disk = Path(sys.argv[1])

def left(megabytes):
    with (disk / "junk").open("wb") as junk:
        os.posix_fallocate(junk.fileno(), 0, shutil.disk_usage(disk).free - megabytes * 2**20)

def tried(call):
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__} {'left on its disk; expected more' in str(error)}"

for megabytes in (90, 50, 10, 90):
    with closing(EmbeddedClient(disk / "db")) as client:
        searcher = HybridSearcher("docs", client=client, reranker=None)
        if megabytes != 90:
            left(megabytes)
        else:
            (disk / "junk").unlink(missing_ok=True)
        print(
            tried(lambda: searcher.add([f"iron {megabytes}", "ore"], progress=False)),
            tried(lambda: client.create_collection("new", {})),
            tried(lambda: client.optimize("docs")),
            client.delete_collection("new"),
            tried(lambda: len(searcher.search("iron", limit=100))),
            sep=", ",
        )
"""


def test_a_disk_without_room_is_an_error_before_the_system_ends_the_process(tmp_path):
    """The engine's mapped files would be its death (SIGBUS). What is there can be searched."""
    mounted = 'mount -t tmpfs -o size=250m tmpfs "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounted, "-", tmp_path]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], check=False).returncode
    ):
        pytest.skip("no file system can be mounted here")
    done = subprocess.run(
        [*command, sys.executable, ON_A_SMALL_DISK], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    no = "QdrantConnectionError True"
    assert done.stdout.splitlines() == [
        "2, True, False, True, 2",
        f"{no}, {no}, {no}, False, 2",  # it can still be read
        f"{no}, {no}, {no}, False, {no}",  # not even opened
        "2, True, False, True, 2",
    ]


def test_a_full_disk_is_one_clear_error_and_keeps_what_was_added(tmp_path):
    """New files may not be larger than 300 kB in that process, so a later page cannot be made."""
    code = (
        "import os, resource, signal; from qdrant_rerank import HybridSearcher\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "s = HybridSearcher('docs', reranker=None, embedder=None)\n"
        "s.add(['first'])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "noise = (os.urandom(1_000_000).hex() for n in range(50))\n"
        "s.add(({'text': f'document {n}', 'noise': x} for n, x in enumerate(noise)), batch_size=5)"
    )
    done = run(code, QDRANT_PATH=str(tmp_path / "db"))
    assert "QdrantConnectionError: The embedded Qdrant at" in done.stderr
    assert "Is the disk full" in done.stderr
    added = int(re.search(r"(\d+) documents before it were added", done.stderr)[1])
    with closing(EmbeddedClient(tmp_path / "db")) as client:
        assert 0 < added < client.count("docs").count < 50


@pytest.mark.parametrize(
    ("call", "error", "seen"),
    [
        (lambda c: c.get_collection("no"), CollectionNotFoundError, "It has 'points'"),
        (lambda c: c.upsert("no", rows(1)), CollectionNotFoundError, "no collection 'no'"),
        (
            lambda c: c.create_collection("points", **VECTORS),
            QdrantRequestError,
            "'points' already exists",
        ),
        (
            lambda c: c.create_collection("a/b", **VECTORS),
            QdrantRequestError,
            "cannot be the name of a collection",
        ),
        (
            lambda c: c.query_points("points", query=[1.0] * 3),
            QdrantRequestError,
            "expected dim: 2, got 3",
        ),
        (
            lambda c: c.query_points("points", query=[1.0, 2.0], using="no"),
            QdrantRequestError,
            "vector name error: no",
        ),
        (lambda c: c.query_points("points", query=99), QdrantRequestError, "no point 99"),
        (lambda c: c.query_points("points", query="x"), QdrantRequestError, "UUID"),
        (lambda c: c.query_points("points", limit=0), QdrantRequestError, "limit is 0"),
        (
            lambda c: c.query_points("points", query=models.FusionQuery(fusion="rrf")),
            QdrantRequestError,
            "without prefetches",
        ),
        (
            lambda c: c.upsert("points", [models.PointStruct(id=1, vector=[1.0])]),
            QdrantRequestError,
            "expected dim: 2, got 1",
        ),
        (
            lambda c: c.upsert("points", rows(1, number=float("nan"))),
            QdrantRequestError,
            "NaN",
        ),
        (
            lambda c: c.update_collection("points", hnsw_config=models.HnswConfigDiff(m=4)),
            QdrantRequestError,
            "cannot change hnsw_config",
        ),
        (
            lambda c: c.update_collection_aliases([_alias("new", "no")]),
            CollectionNotFoundError,
            "no collection 'no'",
        ),
        (
            lambda c: c.update_collection_aliases([_alias("points", "points")]),
            QdrantRequestError,
            "cannot be an alias",
        ),
        (lambda c: c.create_payload_index("points", "a"), QdrantRequestError, "no type"),
        (
            lambda c: c.query_points(
                "points",
                query=models.FormulaQuery(formula=models.SumExpression(sum=["$score", "no"])),
                prefetch=models.Prefetch(query=[1.0, 0.0]),
            ),
            QdrantRequestError,
            "a payload value that is missing or no number",
        ),
    ],
)
def test_what_cannot_be_done_is_our_error(edge, call, error, seen):
    """With what was asked, and nothing changed by it."""
    with pytest.raises(error, match=seen):
        call(edge)
    assert edge.count("points").count == 3
    assert edge.get_aliases().aliases == []


def test_a_closed_client_says_so(edge):
    """Reading and writing."""
    edge.close()
    for call in (lambda: edge.count("points"), lambda: edge.upsert("points", rows(1))):
        with pytest.raises(QdrantConnectionError, match="is closed"):
            call()


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2}', '{"format": 1, "collections": 3}'])
def test_a_broken_list_of_collections_is_named_and_left_alone(tmp_path, content):
    """Nothing is removed on its account."""
    with closing(EmbeddedClient(tmp_path)) as client:
        client.create_collection("points", **VECTORS)
    (tmp_path / "collections.json").write_text(content)
    with pytest.raises(QdrantConnectionError, match=r"collections\.json cannot be read"):
        EmbeddedClient(tmp_path)
    assert len(list((tmp_path / "shards").iterdir())) == 1
    assert (tmp_path / "collections.json").read_text() == content


def nested(levels):
    """A payload of so many levels, objects and arrays in turn."""
    value = "v"
    for level in range(levels - 1):
        value = [value] if level % 2 else {"a": value}
    return {"x": value}


def filters(count):
    """Filters in filters."""
    made = models.Filter(must=models.HasIdCondition(has_id=[9]))
    for _ in range(count):
        made = models.Filter(must=made)
    return made


@pytest.mark.parametrize(
    ("call", "seen"),
    [
        (
            lambda edge: edge.upsert("points", [*rows(8), *rows(9, **nested(101))]),
            r"payload of point 9 is nested 101 levels deep; .* takes 100 levels.*json\.dumps",
        ),
        (
            lambda edge: edge.upsert(
                "points", models.Batch(ids=[9], vectors=[[1.0, 2.0]], payloads=[nested(127)])
            ),
            "payload of point 9 is nested 127",
        ),
        (lambda edge: edge.upload_points("points", rows(9, **nested(130))), "point 9 is nested"),
        (
            lambda edge: edge.upload_collection("points", [[1.0, 2.0]], [nested(130)], [9]),
            "point 9 is nested 130",
        ),
        (lambda edge: edge.set_payload("points", nested(101), [1]), "payload is nested 101"),
        (
            lambda edge: edge.set_payload("points", nested(60), [1], key="a[]." + "b." * 39 + "c"),
            "payload is nested 102",
        ),
        (lambda edge: edge.overwrite_payload("points", nested(101), [1]), "payload is nested 101"),
        (lambda edge: edge.upsert("points", rows(9, **nested(400))), "of point 9 cannot be stored"),
        (lambda edge: edge.delete("points", filters(60)), "filter of the change is nested 63"),
        (lambda edge: edge.set_payload("points", {"x": 1}, filters(60)), "filter of the change"),
        (lambda edge: edge.upsert("points", rows(9), update_filter=filters(60)), "filter of"),
        (
            lambda edge: edge.update_vectors(
                "points",
                [models.PointVectors(id=1, vector=[1.0, 2.0])],
                update_filter=filters(60),
            ),
            "filter of the change",
        ),
    ],
)
def test_what_is_nested_too_deeply_is_refused_before_it_is_logged(tmp_path, call, seen):
    """The engine would log it, and not open the collection any more."""
    with closing(EmbeddedClient(tmp_path)) as client:
        client.create_collection("points", **VECTORS)
        client.upsert("points", rows(1, 2, 3))
        with pytest.raises(QdrantRequestError, match=seen):
            call(client)
    with closing(EmbeddedClient(tmp_path)) as client:
        assert client.count("points").count == 3
        assert [hit.id for hit in client.query_points("points", query=[1.0, 0.0]).points] == [
            3,
            2,
            1,
        ]


def test_a_document_that_is_nested_too_deeply_is_refused_before_it_is_sent(tmp_path):
    """By a searcher, which names the document and its field."""
    with closing(EmbeddedClient(tmp_path)) as client:
        searcher = HybridSearcher("docs", client=client)
        with pytest.raises(InvalidInputError, match=r"Document 0 nests deeper than 100 levels in"):
            searcher.add([{"text": "iron", **nested(124)}])
    with closing(EmbeddedClient(tmp_path)) as client:
        assert not client.collection_exists("docs")


def test_what_is_nested_as_deeply_as_it_may_be_is_there_the_next_time(tmp_path):
    """However it came in, by filters in filters, too."""
    with closing(EmbeddedClient(tmp_path)) as client:
        client.create_collection("points", **VECTORS)
        client.upsert("points", rows(1, **nested(100)))
        client.upsert("points", rows(2, 3), update_filter=filters(47))
        client.set_payload("points", nested(50), [2], key=".".join("b" * 50))
        client.set_payload("points", nested(100), [3])
        client.clear_payload("points", filters(47))
    with closing(EmbeddedClient(tmp_path)) as client:
        points, _ = client.scroll("points")
    assert [point.payload for point in points][0::2] == [nested(100)] * 2


def test_a_log_that_cannot_be_made_out_is_left_out(tmp_path):
    """Not told as a full disk: a point that is nested more deeply than the engine reads."""
    with closing(EmbeddedClient(tmp_path)) as client:
        client.create_collection("points", **VECTORS)
        point = qdrant_edge.Point(1, [1.0, 2.0], nested(126))
        shard = client._engine._shards.shard("points")
        shard.update(qdrant_edge.UpdateOperation.upsert_points([point]))
    with closing(EmbeddedClient(tmp_path)) as client:
        with pytest.warns(UserWarning, match="reading only.* 0 of the 1 changes in the log"):
            assert client.count("points").count == 1  # from the files beside the log
        with pytest.raises(QdrantConnectionError, match="cannot replay the log of 'points'"):
            client.delete("points", [1])


FORKED = """
import os, sys
from contextlib import closing
from qdrant_client import models
from qdrant_rerank.qdrant.embedded.client import EmbeddedClient
from qdrant_rerank.errors import QdrantConnectionError

def tried(call):
    try:
        return call()
    except QdrantConnectionError as error:
        return error

with closing(EmbeddedClient(sys.argv[1] or None)) as client:
    client.create_collection(
        "points", vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT)
    )
    point = models.PointStruct(id=1, vector=[1.0, 2.0])
    client.upsert("points", [point])
    client.query_points("points", query=[1.0, 2.0])
    child = os.fork()
    if child == 0:
        for call in (
            lambda: client.query_points("points", query=[1.0, 2.0]),
            lambda: client.upsert("points", [point]),
            lambda: client.create_collection("others", vectors_config={}),
            lambda: client.get_collections(),
            lambda: client.close(),
        ):
            print(tried(call))
        client._removed()  # as at the end of a process that was forked
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
    print("parent", len(client.query_points("points", query=[1.0, 2.0]).points))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("durable", [True, False])
def test_a_forked_process_is_told_and_takes_nothing_from_its_parent(tmp_path, durable):
    """It would wait for threads that it does not have, and remove the files of the other."""
    code = FORKED if not durable else FORKED.replace("client._removed()", "pass")
    done = run(code, arguments=[str(tmp_path / "db") if durable else ""])
    assert done.returncode == 0, done.stderr
    *told, closed, parent = done.stdout.splitlines()
    assert len(told) == 4
    assert all("was opened in another process" in line for line in told)
    assert all("Open it after the fork" in line for line in told)
    assert (closed, parent) == ("None", "parent 1")


# --- what it can do


def test_points_of_equal_score_come_by_id(edge):
    """Numbers first, then UUIDs."""
    text_id = "00000000-0000-0000-0000-000000000001"
    edge.upsert(
        "points",
        [models.PointStruct(id=i, vector=[9.0, 0.0]) for i in (10, text_id, 9)],
    )
    hits = edge.query_points("points", query=[1.0, 0.0], limit=3).points
    assert [hit.id for hit in hits] == [9, 10, text_id]


@pytest.mark.parametrize("branches", [2, 12])
def test_a_fused_page_that_ends_amid_equal_scores_is_the_same_each_time(edge, branches):
    """The least ids are on it, however many branches have a hit of one score, and pages join."""
    ids = range(100, 100 + 3 * branches)
    edge.upsert("points", rows(*ids, kind=0))
    for branch in range(branches):  # three points of its own, in an order of its own
        edge.set_payload("points", {"kind": branch}, points=list(ids[branch::branches]))
    prefetch = [
        models.Prefetch(
            query=[1.0, 0.0],
            limit=3,
            filter=models.Filter(
                must=[models.FieldCondition(key="kind", match=models.MatchValue(value=branch))]
            ),
        )
        for branch in range(branches)
    ]

    def page(limit, offset=0):
        fusion = models.FusionQuery(fusion=models.Fusion.RRF)
        found = edge.query_points(
            "points", prefetch=prefetch, query=fusion, limit=limit, offset=offset
        )
        return [hit.id for hit in found.points]

    whole = page(3 * branches)
    assert whole == [i for r in (2, 1, 0) for i in ids[r * branches : (r + 1) * branches]]
    for _ in range(20):
        assert page(branches + 1) == whole[: branches + 1]
    assert page(1) + page(2, offset=1) + page(99, offset=3) == whole


@needs_client(1, 20)
def test_every_kind_of_query_is_answered_as_local_mode_does(edge):
    """Text over an index, MMR, discovery, context, formula, feedback, order, rescoring."""
    words = ["red fox", "red red dog", "blue bird"]
    vector = {"query": [1.0, 0.5]}
    near = models.Prefetch(**vector, limit=3)
    pair = models.ContextPair(positive=1, negative=3)
    feedback = models.RelevanceFeedbackInput(
        target=[1.0, 0.5],
        feedback=[
            models.FeedbackItem(example=1, score=0.9),
            models.FeedbackItem(example=3, score=0),
        ],
        strategy=models.NaiveFeedbackStrategy(
            naive=models.NaiveFeedbackStrategyParams(a=0.1, b=0.2, c=0.3)
        ),
    )
    formula = models.SumExpression(sum=["$score", models.MultExpression(mult=[2.0, "size"])])
    mmr = models.Mmr(diversity=0.3, candidates_limit=3)
    asked = [
        {"query": models.TextQuery(text="red"), "using": "text"},
        {"query": models.NearestQuery(nearest=[1.0, 0.5], mmr=mmr)},
        {"query": models.DiscoverQuery(discover=models.DiscoverInput(target=2, context=pair))},
        {"query": models.ContextQuery(context=[pair])},
        {"query": models.FormulaQuery(formula=formula), "prefetch": near},
        {"query": models.RelevanceFeedbackQuery(relevance_feedback=feedback)},
        {"query": models.OrderByQuery(order_by=models.OrderBy(key="size", direction="desc"))},
        {"query": [0.0, 1.0], "prefetch": near},
        {**vector, "score_threshold": 2.0},
        {**vector, "offset": 1, "limit": 1},
    ]
    with closing(QdrantClient(":memory:")) as local:
        local.create_collection("points", **VECTORS)
        for client in (edge, local):
            client.create_payload_index(
                "points", "text", models.TextIndexParams(type="text", scoring=True)
            )
            client.create_payload_index("points", "size", models.PayloadSchemaType.INTEGER) if (
                client is edge
            ) else None
            client.upsert(
                "points",
                [
                    models.PointStruct(id=n, vector=[n, 4.0 - n], payload={"text": text, "size": n})
                    for n, text in enumerate(words, start=1)
                ],
            )
        for query in asked:
            ours, theirs = (
                client.query_points("points", **query).points for client in (edge, local)
            )
            assert [p.id for p in ours] == [p.id for p in theirs], query
            assert [p.score for p in ours] == pytest.approx([p.score for p in theirs], 1e-5), query
        groups = [
            client.query_points_groups(
                "points", "size", query=[1.0, 0.5], with_lookup="points"
            ).groups
            for client in (edge, local)
        ]
        assert [(g.id, g.lookup.payload) for g in groups[0]] == [
            (g.id, g.lookup.payload) for g in groups[1]
        ]


@needs_client(1, 20)
def test_a_collection_without_vectors_is_searched_by_its_text_index(tmp_path):
    """Recall by words alone, as in local mode; there the next time."""
    found = []
    for opened in (partial(QdrantClient, ":memory:"), *[partial(EmbeddedClient, tmp_path)] * 2):
        with closing(opened()) as client:
            searcher = HybridSearcher(
                "docs", client=client, embedder=None, sparse=TextIndex("text"), reranker=None
            )
            searcher.add(["Iron melts.", "Iron and iron ore.", "Bread rises."], progress=False)
            assert client.get_collection("docs").config.params.vectors == {}
            hits = searcher.search("iron", with_vectors=True)
            found.append([(hit.payload["text"], hit.vector, round(hit.score, 5)) for hit in hits])
    assert [text for text, *_ in found[0]] == ["Iron and iron ore.", "Iron melts."]
    assert found[0] == found[1] == found[2]


def test_a_graph_can_be_built(edge):
    """int8 and HNSW; the nearest are still found."""
    edge.create_collection(
        "large",
        vectors_config=models.VectorParams(size=8, distance=models.Distance.COSINE, on_disk=True),
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1),
        quantization_config=models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        ),
    )
    vectors = np.random.default_rng(5).standard_normal((399, 8)).astype(np.float32)
    edge.upload_collection("large", vectors, ids=range(1, 400))
    exact = edge.query_points("large", query=vectors[7].tolist(), limit=5).points
    assert edge.get_collection("large").indexed_vectors_count == 0
    assert edge.optimize("large")
    assert edge.get_collection("large").indexed_vectors_count == 399
    found = edge.query_points(
        "large", query=vectors[7].tolist(), limit=5, search_params=models.SearchParams(hnsw_ef=200)
    ).points
    assert [hit.id for hit in found] == [hit.id for hit in exact]


def test_an_alias_is_switched_in_one_step(edge):
    """Searches through it never fail while it moves to and fro."""
    edge.create_collection("other", **VECTORS)
    edge.update_collection_aliases([_alias("current", "points")])
    failures, done = [], threading.Event()

    def search():
        while not done.is_set():
            try:
                edge.query_points("current", query=[1.0, 1.0])
            except Exception as error:
                failures.append(error)

    thread = threading.Thread(target=search)
    thread.start()
    for target in ["other", "points"] * 5:
        edge.update_collection_aliases([_alias("current", target)])
    done.set()
    thread.join()
    assert failures == []
    [alias] = edge.get_collection_aliases("points").aliases
    assert alias.alias_name == "current"
    edge.delete_collection("points")
    assert edge.get_aliases().aliases == []


def test_searches_and_writes_from_many_threads(edge):
    """No write is lost, and no search fails."""
    searcher = HybridSearcher("docs", client=edge, reranker=None)
    searcher.add(["a document"], progress=False)
    failures = []

    def work(thread):
        try:
            for n in range(5):
                searcher.add([f"document {thread} {n} {k}" for k in range(10)], progress=False)
                assert searcher.search("document", limit=3)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert edge.count("docs").count == 301


def test_dates_and_uuids_in_a_payload_become_text(edge):
    """As a server keeps them."""
    import datetime
    import uuid

    day = datetime.datetime(2026, 5, 4, 3, 2, tzinfo=datetime.UTC)
    edge.upsert("points", rows(7, day=day, key=uuid.UUID(int=5)))
    [record] = edge.retrieve("points", [7])
    assert record.payload == json.loads(
        json.dumps({"day": "2026-05-04T03:02:00Z", "key": str(uuid.UUID(int=5))})
    )
    later = models.FieldCondition(key="day", range=models.DatetimeRange(gt=day))
    assert edge.count("points", count_filter=models.Filter(must=[later])).count == 0


def _alias(alias, collection):
    return models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=collection, alias_name=alias)
    )


def test_the_directory_holds_no_name_that_a_caller_chose(tmp_path):
    """A collection's name cannot lead outside of it."""
    with closing(EmbeddedClient(tmp_path / "db")) as client:
        client.create_collection("..hidden name", **VECTORS)
    names = {path.name for path in Path(tmp_path).rglob("*")}
    assert "..hidden name" not in names
