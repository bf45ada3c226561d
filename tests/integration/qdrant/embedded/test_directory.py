"""The directory of the embedded engine: whose it is, and that nothing of others is removed."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from qdrant_client import QdrantClient, models

from qdrant_rerank import HybridSearcher
from qdrant_rerank.errors import QdrantConnectionError
from qdrant_rerank.qdrant.embedded.choice import embedded_client, holds_collections
from qdrant_rerank.qdrant.embedded.client import EmbeddedClient
from tests.releases import needs_client

VECTORS = {"vectors_config": models.VectorParams(size=2, distance=models.Distance.DOT)}
POINT = models.PointStruct(id=1, vector=[1.0, 2.0])


def contents(path):
    """Every file below a directory, with its text where it is short."""
    return {
        str(file.relative_to(path)): file.read_bytes()[:100] for file in path.rglob("*")
        if file.is_file()
    }  # fmt: skip


def filled(path, *names):
    """A directory with collections of one point each."""
    with closing(EmbeddedClient(path)) as client:
        for name in names:
            client.create_collection(name, **VECTORS)
            client.upsert(name, [POINT])
    return json.loads((path / "collections.json").read_text())


def folders(path):
    """Names of the folders of collections."""
    return {one.name for one in (path / "shards").iterdir()}


# --- directories of others


@pytest.mark.parametrize(
    "file",
    [
        "shards/train/000.tar",
        "shards/0123456789abcdef0123456789abcdef/edge_config.json",
        "docs.jsonl",
        ".git/config",
        "set-aside/x",
    ],
)
def test_a_directory_of_others_is_refused_and_nothing_in_it_changes(tmp_path, file):
    """However it is opened: by a client, and by a searcher."""
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("theirs")
    before = contents(tmp_path)
    for opened in (EmbeddedClient, embedded_client):
        with pytest.raises(
            QdrantConnectionError, match=r"no directory of the embedded Qdrant"
        ) as e:
            opened(tmp_path)
        assert file.split("/")[0] in str(e.value)
        assert "Nothing was changed" in str(e.value)
    assert contents(tmp_path) == before
    assert not holds_collections(tmp_path)


@pytest.mark.parametrize("listing", ["collections.json", "meta.json"])
@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "7", "[1]", '{"name": "theirs"}', "[" * 100_000, "\udcff"),
        '{"format": 1, "collections": [], "aliases": {}}',
        '{"format": 1, "collections": {"a": 7}, "aliases": {}}',
        '{"format": 1, "collections": {"a": {"vectors": 7}}, "aliases": {}}',
        '{"format": 1, "collections": {}, "aliases": 7}',
    ],
)
def test_a_list_of_others_is_refused_and_nothing_beside_it_changes(tmp_path, listing, text):
    """A file that happens to have the name of ours, or of local mode's, or is damaged."""
    (tmp_path / listing).write_bytes(text.encode(errors="surrogateescape"))
    (tmp_path / "theirs").write_text("theirs")
    before = contents(tmp_path)
    with pytest.raises(QdrantConnectionError, match=rf"{listing} cannot be read.*Nothing was cha"):
        embedded_client(tmp_path)
    assert contents(tmp_path) == before


def test_a_list_that_cannot_be_written_changes_nothing(tmp_path):
    """Whatever is asked: no collection is lost, none is there by half, and no folder is left."""
    with closing(EmbeddedClient(tmp_path)) as client:
        client.create_collection("points", **VECTORS)
        client.upsert("points", [models.PointStruct(id=1, payload={"n": 1}, vector=[1.0, 0.0])])
        before = folders(tmp_path), (tmp_path / "collections.json").read_bytes()
        (tmp_path / "collections.part").mkdir()  # in the place of the file that is written first
        alias = models.CreateAlias(collection_name="points", alias_name="alias")
        named = {"dense": {"size": 2, "distance": "Dot"}}
        changes = [
            lambda: client.create_collection("other", **VECTORS),
            lambda: client.delete_collection("points"),
            lambda: client.create_payload_index("points", "n", "integer"),
            lambda: client.update_collection("points", metadata={"a": 1}),
            lambda: client.update_collection_aliases(
                [models.CreateAliasOperation(create_alias=alias)]
            ),
        ]
        if hasattr(client, "create_vector_name"):  # of qdrant-client 1.20
            changes.append(lambda: client.create_vector_name("points", "more", named))
        for change in changes:
            with pytest.raises(QdrantConnectionError, match="cannot read or write its files"):
                change()
            assert (folders(tmp_path), (tmp_path / "collections.json").read_bytes()) == before
            assert client.count("points").count == 1
    (tmp_path / "collections.part").rmdir()
    with closing(EmbeddedClient(tmp_path)) as client:
        assert client.retrieve("points", [1])[0].payload == {"n": 1}
        assert client.create_collection("other", **VECTORS)
        assert client.delete_collection("points")


def test_the_searcher_names_a_directory_of_others(tmp_path, monkeypatch):
    """By QDRANT_PATH, with the files of a training set in it."""
    (tmp_path / "shards" / "train").mkdir(parents=True)
    (tmp_path / "shards" / "train" / "000.tar").touch()
    monkeypatch.setenv("QDRANT_PATH", str(tmp_path))
    with pytest.raises(QdrantConnectionError, match="shards/train"):
        HybridSearcher("docs", reranker=None)
    assert (tmp_path / "shards" / "train" / "000.tar").is_file()


@pytest.mark.parametrize(
    "there", [[], [".lock"], [".lock", "shards/"], [".gitkeep", "lost+found/"]]
)
def test_an_empty_directory_is_taken(tmp_path, there):
    """Also one in which a process was killed before it wrote anything."""
    for name in there:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    assert filled(tmp_path, "points")["format"] == 1


def test_folders_of_others_beside_collections_are_left_and_named(tmp_path, caplog):
    """In a directory that the version before made among them."""
    filled(tmp_path, "points")
    (tmp_path / "shards" / "train").mkdir()
    (tmp_path / "shards" / "train" / "000.tar").touch()
    with caplog.at_level(logging.WARNING), closing(EmbeddedClient(tmp_path)) as client:
        assert client.count("points").count == 1
    assert "train is none of the embedded Qdrant's folders" in caplog.text
    assert (tmp_path / "shards" / "train" / "000.tar").is_file()


def test_a_directory_of_the_version_before_opens(tmp_path):
    """Its folders have no mark; a collection of it can be removed, and nothing else goes."""
    listed = filled(tmp_path, "points", "others")
    for marker in tmp_path.glob("shards/*/.qdrant-rerank"):
        marker.unlink()
    with closing(EmbeddedClient(tmp_path)) as client:
        assert client.count("points").count == client.count("others").count == 1
        client.delete_collection("points")
    assert folders(tmp_path) == {listed["collections"]["others"]["folder"]}


# --- lists that are lost, damaged or wrong


def test_a_killed_process_leaves_a_folder_that_is_set_aside(tmp_path, caplog):
    """Its files are kept and named; the collections of the list are as they were."""
    listed = filled(tmp_path, "points", "lost")
    kept, lost = (listed["collections"][name]["folder"] for name in ("points", "lost"))
    del listed["collections"]["lost"]
    (tmp_path / "collections.json").write_text(json.dumps(listed))
    files = contents(tmp_path / "shards" / lost)
    with caplog.at_level(logging.WARNING), closing(EmbeddedClient(tmp_path)) as client:
        assert [one.name for one in client.get_collections().collections] == ["points"]
        assert client.count("points").count == 1
    assert folders(tmp_path) == {kept}
    assert contents(tmp_path / "set-aside" / lost) == files
    assert f"set-aside/{lost}" in caplog.text
    assert "'lost'" in caplog.text


def test_a_list_restored_from_an_old_copy_loses_nothing(tmp_path, caplog):
    """What the copy lacks is set aside; what it has and is gone is told, and comes back."""
    filled(tmp_path, "points")
    old = (tmp_path / "collections.json").read_text()
    newer = filled(tmp_path, "newer")
    (tmp_path / "collections.json").write_text(old)
    filled(tmp_path)
    folder = newer["collections"]["newer"]["folder"]
    assert (tmp_path / "set-aside" / folder).is_dir()
    (tmp_path / "collections.json").write_text(json.dumps(newer))
    with closing(EmbeddedClient(tmp_path)) as client:
        with pytest.raises(QdrantConnectionError, match="lacks the files of 'newer'.*'set-aside'"):
            client.count("newer")
        assert client.count("points").count == 1
    (tmp_path / "set-aside" / folder).rename(tmp_path / "shards" / folder)
    with closing(EmbeddedClient(tmp_path)) as client:
        assert client.count("newer").count == 1


def test_without_its_list_a_directory_is_refused(tmp_path):
    """And not opened as an empty one."""
    filled(tmp_path, "points")
    (tmp_path / "collections.json").unlink()
    before = contents(tmp_path)
    with pytest.raises(QdrantConnectionError, match=r"restore collections\.json"):
        EmbeddedClient(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "folder", ["..", "", ".", "/", "../..", "x/../..", None, 3, "0" * 31, "A" * 32, "other"]
)
def test_a_folder_of_the_list_that_leads_elsewhere_is_refused(tmp_path, folder):
    """Nothing outside, and nothing inside, is read, written or removed."""
    directory = tmp_path / "db"
    listed = filled(directory, "points", "other")
    (tmp_path / "outside").write_text("theirs")
    if folder == "other":  # of another collection
        folder = listed["collections"]["other"]["folder"]
    listed["collections"]["points"]["folder"] = folder
    (directory / "collections.json").write_text(json.dumps(listed))
    before = contents(tmp_path)
    with pytest.raises(QdrantConnectionError, match=r"collections\.json cannot be read: .*folder"):
        EmbeddedClient(directory)
    assert contents(tmp_path) == before


def test_a_link_in_the_place_of_a_folder_is_not_followed_by_a_removal(tmp_path):
    """The files that it points to stay."""
    directory, theirs = tmp_path / "db", tmp_path / "theirs"
    folder = directory / "shards" / filled(directory, "points")["collections"]["points"]["folder"]
    folder.rename(theirs)
    folder.symlink_to(theirs)
    before = contents(theirs)
    with closing(EmbeddedClient(directory)) as client:
        client.delete_collection("points")
    assert contents(theirs) == before


# --- who has it open


CHILD_LIVES = """
import os, sys, time
from qdrant_client import models
from qdrant_rerank.qdrant.embedded.client import EmbeddedClient

client = EmbeddedClient(sys.argv[1])
client.create_collection("points", vectors_config={})
client.count("points")
if os.fork() == 0:
    print(os.getpid(), flush=True)  # it has let go by now, so whoever reads this may go on
    time.sleep(600)
if sys.argv[2] == "close":
    client.close()
    EmbeddedClient(sys.argv[1]).count("points")
    sys.stdin.read()
else:
    os._exit(0)
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("how", ["close", "exit"])
def test_a_forked_child_keeps_no_directory_locked(tmp_path, how):
    """Once the process that opened it has closed it, or is gone."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD_LIVES, tmp_path / "db", how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        child = int(process.stdout.readline())
        try:
            process.stdin.close()
            assert process.wait(60) == 0
            with closing(EmbeddedClient(tmp_path / "db")) as client:
                assert client.count("points").count == 0
        finally:
            os.kill(child, signal.SIGKILL)


def test_what_a_killed_process_had_in_memory_is_removed_by_the_next(tmp_path, monkeypatch):
    """After SIGTERM and SIGKILL; not what a process that lives has, nor what others made."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    filled(tmp_path / "qdrant-rerank-mine", "points")  # a directory that a user chose
    code = (
        "from qdrant_rerank.qdrant.embedded.client import EmbeddedClient\n"
        "client = EmbeddedClient(); client.create_collection('points', vectors_config={})\n"
        "print(client._engine._shards._directory.path, flush=True); input()"
    )
    with closing(EmbeddedClient()) as alive:
        alive.create_collection("points", **VECTORS)
        left = []
        for sent in (signal.SIGTERM, signal.SIGKILL):
            with subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "TMPDIR": str(tmp_path)},
            ) as process:
                left.append(Path(process.stdout.readline().strip()))
                process.send_signal(sent)
        assert left[1].is_dir()
        with closing(EmbeddedClient()):
            pass
        assert not any(folder.exists() for folder in left)
        assert alive.count("points").count == 0
    assert [one.name for one in tmp_path.glob("qdrant*")] == ["qdrant-rerank-mine"]


@pytest.mark.parametrize("path", ["None", "sys.argv[1]"])
@needs_client(1, 20)
def test_a_client_that_nobody_closed_warns_of_no_open_file(tmp_path, path):
    """At the end of a script, Python would name the lock."""
    code = (
        "import sys\nfrom qdrant_rerank.qdrant.embedded.client import EmbeddedClient\n"
        f"client = EmbeddedClient({path}); client.create_collection('c', vectors_config={{}})"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "default::ResourceWarning", "-c", code, tmp_path / "d"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("made_on", ["", "another machine"])
def test_what_another_machine_has_in_memory_is_left_alone(tmp_path, monkeypatch, made_on):
    """On a shared file system, its lock may not be seen here."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    filled(tmp_path / "qdrant-rerank-other", "points")
    (tmp_path / "qdrant-rerank-other" / ".temporary").write_text(made_on)
    EmbeddedClient().close()
    with closing(EmbeddedClient(tmp_path / "qdrant-rerank-other")) as client:
        assert client.count("points").count


def test_a_file_system_without_locks_is_our_error(tmp_path):
    """It is not taken for a directory that another process has open."""
    code = (
        "import errno, fcntl, os, sys\n"
        "def refused(*args): raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))\n"
        "fcntl.flock = fcntl.lockf = refused\n"
        "from qdrant_rerank.qdrant.embedded.client import EmbeddedClient\n"
        "EmbeddedClient(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "db"], check=False, capture_output=True, text=True
    )
    assert "QdrantConnectionError" in done.stderr
    assert "its file system cannot lock files" in done.stderr
    assert "already accessed" not in done.stderr.splitlines()[-1]


# --- where it is


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    """Of the argument, of QDRANT_PATH, and of a directory of local mode."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QDRANT_PATH", "~/db")
    with HybridSearcher("docs", reranker=None) as searcher:
        searcher.add(["a text"], progress=False)
    with closing(EmbeddedClient("~/db")) as client:
        assert client.count("docs").count == 1
    assert holds_collections("~/db")
    with closing(QdrantClient(path=str(tmp_path / "local"))) as local:
        local.create_collection("points", **VECTORS)
    with closing(embedded_client("~/local")) as client:
        assert client.collection_exists("points")
    assert {one.name for one in tmp_path.iterdir()} == {"db", "local"}


def test_a_tilde_without_a_home_directory_is_our_error(tmp_path):
    """As in a container without HOME and without an entry of its user."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, pwd\n"
            "pwd.getpwuid = lambda uid: (_ for _ in ()).throw(KeyError(uid))\n"
            "del os.environ['HOME']\n"
            "from qdrant_rerank.qdrant.embedded.choice import embedded_client\n"
            f"embedded_client({str(tmp_path / 'db')!r}).close()\n"
            "embedded_client('~/db')",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert "QdrantConnectionError: The Qdrant directory ~/db cannot be opened" in done.stderr
    assert "Set HOME" in done.stderr
    assert (tmp_path / "db").is_dir()


def test_no_temporary_directory_is_our_error(tmp_path, monkeypatch):
    """Where nothing can be written for an engine in memory."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(QdrantConnectionError, match="Set TMPDIR to a directory to write to"):
        EmbeddedClient()


def test_two_searchers_on_one_path_share_the_engine(tmp_path, monkeypatch):
    """A cell of a notebook that is run again, and another collection."""
    monkeypatch.setenv("QDRANT_PATH", str(tmp_path / "db"))
    with HybridSearcher("docs", reranker=None) as one, HybridSearcher("docs", reranker=None) as two:
        one.add(["a text"], progress=False)
        assert len(two.search("text")) == 1
        with HybridSearcher("others", reranker=None) as third:
            third.add(["another text"], progress=False)
        assert {c.name for c in one.client.get_collections().collections} == {"docs", "others"}
    shutil.rmtree(tmp_path / "db")


@pytest.mark.parametrize("make", [EmbeddedClient, embedded_client])
def test_the_name_of_memory_is_no_directory(make, tmp_path, monkeypatch):
    """As in ``QdrantClient(":memory:")``."""
    monkeypatch.chdir(tmp_path)
    with closing(make(":memory:")) as client:
        assert client.init_options.get("path") is None
    assert list(tmp_path.iterdir()) == []


REUSE_A_NUMBER = """
import fcntl, os, sys
from pathlib import Path
from qdrant_rerank.qdrant.embedded.places import unlock_files

below, other = Path(sys.argv[1], "below", "file"), Path(sys.argv[1], "other")
for path in (below, other):
    path.parent.mkdir(exist_ok=True)
    path.touch()
number = os.open(below, os.O_RDONLY)
mine = os.open(other, os.O_RDONLY)
fcntl.flock(mine, fcntl.LOCK_EX)

def as_another_thread(event, arguments):
    if event == "fcntl.flock" and arguments[1] == fcntl.LOCK_UN:
        os.dup2(mine, number)

sys.addaudithook(as_another_thread)
unlock_files(below.parent)
try:
    fcntl.flock(os.open(other, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("lost")
except BlockingIOError:
    print("kept")
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_no_lock_is_released_of_a_file_that_took_the_number_of_another(tmp_path):
    """A thread closes one and opens the other between the look at a descriptor and its unlock."""
    command = [sys.executable, "-c", REUSE_A_NUMBER, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "kept\n"
