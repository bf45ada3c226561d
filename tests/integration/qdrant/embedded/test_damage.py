"""Damage of a collection's files: told when it is opened, recovered from; nothing is removed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing

import pytest

from qdrant_rerank.errors import QdrantConnectionError
from qdrant_rerank.qdrant.embedded import closed_files
from qdrant_rerank.qdrant.embedded.client import EmbeddedClient
from tests.integration.qdrant.embedded.test_log import VECTORS, rows
from tests.integration.qdrant.embedded.test_refused import copy_with_holes

RECORD = closed_files.RECORD


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    """A directory with two collections, one of them with a graph, that was closed."""
    path = tmp_path_factory.mktemp("engine") / "db"
    with closing(EmbeddedClient(path)) as client:
        for name in ("points", "others"):
            client.create_collection(name, **VECTORS)
            client.create_payload_index(name, "text", "keyword")
            client.upsert(name, rows(*range(100), text="kept"))
            client.delete(name, [7])
    return path


@pytest.fixture
def copy(closed, tmp_path):
    """A copy to damage."""
    copy_with_holes(closed, tmp_path / "db")
    return tmp_path / "db"


def folder_of(path, name="points"):
    """The folder of a collection's files."""
    listing = json.loads((path / "collections.json").read_text("utf-8"))
    return path / "shards" / listing["collections"][name]["folder"]


def state(folder):
    """All files with their sizes and the times when they were changed."""
    return {
        file: (file.stat().st_size, file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file()
    }


def half(file):
    """Cut off, as by a copy that was not finished."""
    os.truncate(file, file.stat().st_size // 2)


def flipped(file):
    """One bit of its last byte that is not zero, or of its first."""
    held = bytearray(file.read_bytes())
    held[len(held.rstrip(b"\0")) - 1] ^= 1
    file.write_bytes(held)


def gone(file):
    """As by a restore without it."""
    file.unlink()


@pytest.mark.parametrize("damage", [half, flipped, gone])
def test_every_damaged_file_is_named_and_left(copy, damage):
    """Before the engine maps it; other collections open."""
    folder = folder_of(copy)
    files = [file for file in folder.rglob("*") if file.is_file() and file.name[0] != "."]
    assert len(files) > 30
    with closing(EmbeddedClient(copy)) as client:
        for file in files:
            if not file.stat().st_size:
                continue
            kept = file.with_name(f".{file.name}.kept")
            shutil.copy2(file, kept)
            damage(file)
            before = state(folder)
            seen = f"{file.relative_to(folder).as_posix()} .*Nothing was removed.*recover"
            with pytest.raises(QdrantConnectionError, match=seen):
                client.count("points")
            assert state(folder) == before
            kept.replace(file)
        assert client.count("others").count == 99
        assert client.count("points").count == 99


def test_a_collection_with_a_lost_list_of_points_is_recovered(copy):
    """It opened with half of its points; the log has all of them."""
    folder = folder_of(copy)
    [ids] = folder.glob("segments/*/mutable_id_tracker.mappings")
    half(ids)
    with closing(EmbeddedClient(copy)) as client:
        with pytest.raises(QdrantConnectionError, match="mappings has .* bytes; it had"):
            client.count("points")
        done = client.recover("points")
        assert (done.before, done.points, done.left_out) == (99, 99, 0)
        found = client.scroll("points", limit=200)[0]
        assert [one.id for one in found] == [n for n in range(100) if n != 7]
        assert (done.aside / "segments").is_dir()
        client.upsert("points", rows(200, text="new"))
    with closing(EmbeddedClient(copy)) as client:
        assert client.count("points").count == done.points + 1


def test_the_record_is_of_what_is_closed(copy):
    """Opening removes it, since that may change files, and closing writes it again."""
    record = folder_of(copy) / RECORD
    with closing(EmbeddedClient(copy)) as client:
        assert record.exists()
        client.scroll("points", with_vectors=True)
        client.query_points("points", query=[1.0, 0.0], using="dense")
        assert not record.exists()
    assert json.loads(record.read_text("utf-8"))["points"] == 99
    with closing(EmbeddedClient(copy)) as client:
        client.upsert("points", rows(1000))
        assert not record.exists()
    assert json.loads(record.read_text("utf-8"))["points"] == 100
    with closing(EmbeddedClient(copy)) as client:
        client.optimize("points")
        client.delete_payload_index("points", "text")
        assert not record.exists()
    with closing(EmbeddedClient(copy)) as client:
        assert client.count("points").count == 100


def test_a_copy_whose_holes_were_filled_is_whole(copy, tmp_path):
    """Many tools copy zeros."""
    shutil.copytree(copy, tmp_path / "filled")
    with closing(EmbeddedClient(tmp_path / "filled")) as client:
        assert client.count("points").count == 99


KILLED = """
import os, signal, sys
from qdrant_rerank.qdrant.embedded.client import EmbeddedClient
from tests.integration.qdrant.embedded.test_log import rows
client = EmbeddedClient(sys.argv[1])
if sys.argv[2] == "write":
    client.upsert("points", rows(*range(500, 520), text="written"))
else:
    client.count("points")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("does", "points"), [("write", 119), ("read", 99)])
def test_a_killed_process_is_no_damage(copy, does, points):
    """Its log says what was written."""
    done = subprocess.run([sys.executable, "-c", KILLED, copy, does], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (folder_of(copy) / RECORD).exists()
    with closing(EmbeddedClient(copy)) as client:
        assert client.count("points").count == points
    assert (folder_of(copy) / RECORD).exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": 2}', '{"format": 1, "points": 1, "files": {"../x": [1, 2]}}']
)
def test_a_record_that_cannot_be_read_stops_nobody(copy, text):
    """It is a help, no part of the data."""
    (folder_of(copy) / RECORD).write_text(text)
    with closing(EmbeddedClient(copy)) as client:
        assert client.count("points").count == 99


def test_fewer_points_than_were_closed_are_told(copy):
    """Where the files are too large for checksums."""
    record = folder_of(copy) / RECORD
    content = json.loads(record.read_text("utf-8"))
    record.write_text(json.dumps(content | {"points": 500}))
    with closing(EmbeddedClient(copy)) as client:
        # The engine changes files as it opens them.
        for seen in ("finds 99 points; there were 500", "is not what it was"):
            with pytest.raises(QdrantConnectionError, match=seen):
                client.count("points")
        assert client.recover("points").points == 99
