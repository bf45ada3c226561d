"""The log of the embedded engine: its size, what a crash replays, and recovery from it."""

import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import qdrant_edge
from qdrant_client import models

from qdrant_rerank.errors import QdrantConnectionError
from qdrant_rerank.qdrant.embedded.client import EmbeddedClient
from tests.integration.qdrant.embedded.test_refused import copy_with_holes

VECTORS = {
    "vectors_config": {"dense": models.VectorParams(size=2, distance=models.Distance.COSINE)},
    "sparse_vectors_config": {"sparse": models.SparseVectorParams()},
}


def rows(*ids, **payload):
    """Points on a circle."""
    return [
        models.PointStruct(
            id=n,
            vector={
                "dense": [float(n), 1.0],
                "sparse": models.SparseVector(indices=[n], values=[1.0]),
            },
            payload=payload,
        )
        for n in ids
    ]


def on_disk(path):
    """MB that a directory takes; its files have holes."""
    return sum(file.stat().st_blocks for file in path.rglob("*")) * 512 / 1e6


def break_down(client, indices=(1, 2, 3)):
    """Log what breaks the engine down, past our checks."""
    bad = qdrant_edge.Point(98, {"sparse": qdrant_edge.SparseVector(list(indices), [1.0])}, {})
    operation = qdrant_edge.UpdateOperation.upsert_points([bad])
    with pytest.raises(QdrantConnectionError, match="broke down at 'points'"):
        client._engine._shards.update("points", [operation])


def test_the_log_does_not_grow_without_bound(tmp_path):
    """600 upserts of the same 100 points, 120 MB: two files of the log of 32 MiB at most."""
    with closing(EmbeddedClient(tmp_path)) as client:
        client.create_collection("points", **VECTORS)
        grown = []
        for n in range(600):
            client.upsert("points", rows(*range(100), text=str(n) * 700))
            if n % 100 == 0:
                grown.append(on_disk(tmp_path))
        grown.append(on_disk(tmp_path))
        assert max(grown) < 80, grown
        assert client.count("points").count == 100


def test_what_was_written_some_seconds_ago_needs_no_log(tmp_path):
    """So that a killed process has little to replay."""
    with closing(EmbeddedClient(tmp_path / "db")) as client:
        client.create_collection("points", **VECTORS)
        client.upsert("points", rows(1, 2, 3))
        time.sleep(5.1)
        client.upsert("points", rows(4))
        copy_with_holes(tmp_path / "db", tmp_path / "crashed")
    for log in (tmp_path / "crashed").glob("shards/*/wal"):
        shutil.rmtree(log)
    with closing(EmbeddedClient(tmp_path / "crashed")) as client:
        assert client.count("points").count == 4


def test_a_log_that_cannot_be_replayed_is_read_and_recovered_from(tmp_path):
    """All that was stored before the bad change is there; after recover it can be changed."""
    with closing(EmbeddedClient(tmp_path)) as client:
        for name in ("points", "others"):
            client.create_collection(name, **VECTORS)
            client.create_payload_index(name, "kind", models.PayloadSchemaType.KEYWORD)
            client.upsert(name, rows(1, 2, 3, kind="old"))
        client.upsert("points", rows(3, 4, kind="new"))
        client.delete("points", [1])
        client.update_collection_aliases(
            [
                models.CreateAliasOperation(
                    create_alias=models.CreateAlias(collection_name="points", alias_name="current")
                )
            ]
        )
        before = client.scroll("points", limit=100, with_vectors=True)[0]
        break_down(client)
    with closing(EmbeddedClient(tmp_path)) as client:
        with pytest.warns(UserWarning, match=r"open for reading only.* 4 of the 5 changes"):
            assert client.count("points").count == 3
        assert client.scroll("current", limit=100, with_vectors=True)[0] == before
        assert [hit.id for hit in client.query_points("points", [9.0, 1.0], using="dense").points]
        refused = pytest.raises(QdrantConnectionError, match=r"recover\('points'.*Nothing was wr")
        for change in (
            lambda: client.upsert("points", rows(7)),
            lambda: client.delete("current", [2]),
            lambda: client.create_payload_index("points", "other", "keyword"),
            lambda: client.optimize("points"),
        ):
            with refused:
                change()
        assert client.count("others").count == 3
    assert not list(tmp_path.glob(".recovery-*"))
    with closing(EmbeddedClient(tmp_path)) as client:
        with pytest.warns(UserWarning, match="for reading only"):
            client.count("points")
        done = client.recover("current")
        assert (done.points, done.replayed, done.left_out) == (3, 4, 1)
        assert (done.aside / "wal").is_dir()
        assert client.scroll("points", limit=100, with_vectors=True)[0] == before
        assert client.count("current").count == 3
        assert client.recover("points") is None
        client.upsert("points", rows(2, 9, kind="newer"))
    with closing(EmbeddedClient(tmp_path)) as client:
        kinds = {one.id: one.payload["kind"] for one in client.scroll("points")[0]}
        assert kinds == {2: "newer", 3: "new", 4: "new", 9: "newer"}
        assert [(hit.value, hit.count) for hit in client.facet("points", "kind").hits] == [
            ("new", 2),
            ("newer", 2),
        ]
        assert not list(tmp_path.glob(".recovery-*"))


FORKS = """
import os, sys, warnings
from qdrant_rerank.qdrant.embedded.client import EmbeddedClient
warnings.simplefilter("ignore")
client = EmbeddedClient(sys.argv[1])
client.count("points")
copies = lambda: [name for name in os.listdir(sys.argv[1]) if name.startswith(".recovery-")]
child = os.fork()
if child == 0:
    sys.exit()
os.waitpid(child, 0)
print(len(copies()), client.count("points").count)
if sys.argv[2] == "delete":
    client.delete_collection("points")
    print(len(copies()))
"""


@pytest.mark.parametrize(("end", "said"), [("delete", ["1 3", "0"]), ("exit", ["1 3"])])
def test_the_copy_that_is_read_is_removed_by_who_made_it(tmp_path, end, said):
    """With its collection, or at the end of the process; not by a forked child."""
    with closing(EmbeddedClient(tmp_path)) as client:
        client.create_collection("points", **VECTORS)
        client.upsert("points", rows(1, 2, 3))
        break_down(client)
    command = [sys.executable, "-W", "ignore", "-c", FORKS, str(tmp_path), end]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == said
    assert not list(tmp_path.glob(".recovery-*"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are not listed here")
def test_files_of_an_engine_that_broke_down_stay_its_own(tmp_path):
    """A thread of it may close them later, when the number would be a stranger's file."""

    def opened():
        files = {file: file.readlink() for file in Path("/proc/self/fd").iterdir() if file.exists()}
        return {file: at for file, at in files.items() if tmp_path in at.parents}

    with closing(EmbeddedClient(tmp_path)) as client:
        client.create_collection("points", **VECTORS)
        before = opened()
        break_down(client)
        assert len(before) > 1
        assert opened().items() >= before.items()
        with pytest.warns(UserWarning, match="open for reading only"):  # anew: no lock is left
            assert client.count("points").count == 0


def test_recovery_keeps_what_was_written_to_disk_before_the_log_began(tmp_path):
    """With a log of several files, whose first ones are cut off; nothing is written after it."""
    with closing(EmbeddedClient(tmp_path)) as client:
        client.create_collection("points", **VECTORS)
        for n in range(50):
            client.upsert("points", rows(*range(100), text=str(n) * 10_000))
        client.upsert("points", rows(*range(50), text="last"))
        break_down(client)
        with pytest.raises(QdrantConnectionError, match=r"recover\('points'\)"):
            client.upsert("points", rows(1, text="after"))
    with closing(EmbeddedClient(tmp_path)) as client:
        done = client.recover("points")
        assert done.points == 100
        assert done.left_out >= 1
        texts = {one.id: one.payload["text"] for one in client.scroll("points", limit=100)[0]}
        assert texts == {n: "last" if n < 50 else "49" * 10_000 for n in range(100)}
        client.upsert("points", rows(1, text="new"))
        assert client.retrieve("points", [1])[0].payload == {"text": "new"}


def test_sparse_vectors_that_cannot_be_read_are_left_out_and_named(tmp_path):
    """Of a point that was there: its vector is on disk, and breaks the engine down."""
    with closing(EmbeddedClient(tmp_path)) as client:
        client.create_collection("points", **VECTORS)
        client.upsert("points", rows(1, 2, 3, text="kept"))
        bad = qdrant_edge.PointVectors(2, {"sparse": qdrant_edge.SparseVector([1, 2], [1.0])})
        with pytest.raises(QdrantConnectionError, match="broke down"):
            client._engine._shards.update(
                "points", [qdrant_edge.UpdateOperation.update_vectors([bad])]
            )
        with pytest.raises(QdrantConnectionError, match="recover"):  # writes it to disk, too
            client.count("points")
        done = client.recover("points")
        assert (done.points, done.without) == (3, ("sparse",))
        points = client.scroll("points", with_vectors=True)[0]
        assert [one.payload for one in points] == [{"text": "kept"}] * 3
        assert [set(one.vector) for one in points] == [{"dense"}] * 3
        client.upsert("points", rows(2))
        query = models.SparseVector(indices=[2], values=[1.0])
        assert [hit.id for hit in client.query_points("points", query, using="sparse").points] == [
            2
        ]


def test_damage_beyond_the_log_is_told(tmp_path):
    """Nothing is recovered, and nothing is lost."""
    with closing(EmbeddedClient(tmp_path)) as client:
        client.create_collection("points", **VECTORS)
        client.upsert("points", rows(1, 2, 3))
    for file in tmp_path.glob("shards/*/segments/*/segment.json"):
        file.write_text("{")
    with closing(EmbeddedClient(tmp_path)) as client:
        for call in (client.count, client.recover):
            with pytest.raises(QdrantConnectionError, match="'points'"):
                call("points")
        assert not (tmp_path / "set-aside").exists()
        assert len(list((tmp_path / "shards").iterdir())) == 1
