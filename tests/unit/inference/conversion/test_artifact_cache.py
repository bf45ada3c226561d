"""Artifacts: kept whole, made again when anything differs, never a reason to fail."""

import logging
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.inference.conversion.artifact_cache import artifact

BUILD_SLOWLY = """
import sys, time
from pathlib import Path
from qdrant_rerank.inference.conversion.artifact_cache import artifact

def build(folder):
    (folder / "a").write_text("one")
    time.sleep(0.5)
    (folder / "b").write_text("two")

with artifact(Path(sys.argv[1]), "kind", [], {}, build) as folder:
    print(folder.name, (folder / "a").read_text() + (folder / "b").read_text())
"""

BUILD = [sys.executable, "-c", BUILD_SLOWLY]
BUILD_AND_WAIT = """
import os, sys, time
from pathlib import Path
from qdrant_rerank.inference.conversion.artifact_cache import artifact

def build(folder):
    (folder / "part").write_text("part")
    if not int(sys.argv[2]) or os.fork() == 0:  # a child that prints has let go
        room = next(p for p in folder.parents if p.parent == Path(sys.argv[1]))
        print(room, os.getpid(), flush=True)
    time.sleep(60)

with artifact(Path(sys.argv[1]), "kind", [], {}, build):
    pass
"""


class Builder:
    """Writes one file, and counts."""

    def __init__(self):
        self.times = 0

    def __call__(self, folder):
        self.times += 1
        (folder / "made").write_text("content")


@pytest.fixture
def source(tmp_path):
    """A file that an artifact is made of."""
    path = tmp_path / "source"
    path.write_text("weights")
    return path


def made(cache, source, build, **options):
    """Contents of the artifact, and its folder."""
    with artifact(cache, "kind", [source], options, build) as folder:
        return (folder / "made").read_text(), folder


def test_it_is_built_once_and_again_when_anything_differs(tmp_path, source):
    """The file's contents and the options count; each has its own folder."""
    build, cache = Builder(), tmp_path / "cache"
    folders = {made(cache, source, build, version=1)[1] for _ in range(3)}
    assert (build.times, len(folders)) == (1, 1)
    folders.add(made(cache, source, build, version=2)[1])
    source.write_text("other weights")
    folders.add(made(cache, source, build, version=2)[1])
    assert (build.times, len(folders)) == (3, 3)
    assert sorted(cache.iterdir()) == sorted(folders)


@pytest.mark.parametrize("damage", ["cut", "gone", "added", "manifest", "file", "empty"])
def test_a_damaged_or_foreign_entry_is_made_again_and_said_once(tmp_path, source, damage, caplog):
    """Whatever lies there."""
    build, cache = Builder(), tmp_path / "cache"
    _, folder = made(cache, source, build)
    if damage == "cut":
        (folder / "made").write_text("cont")
    elif damage == "gone":
        (folder / "made").unlink()
    elif damage == "added":
        (folder / "more").write_text("foreign")
    elif damage == "manifest":
        (folder / "manifest.json").write_text("[")
    else:
        for path in folder.iterdir():
            path.unlink()
        if damage == "file":
            folder.rmdir()
            folder.write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        assert made(cache, source, build) == ("content", folder)
        assert made(cache, source, build) == ("content", folder)
    assert build.times == 2
    assert [record.message for record in caplog.records] == [
        f"{folder} was damaged or not ours, and is made again."
    ]
    assert list(cache.iterdir()) == [folder]


def test_where_nothing_can_be_kept_it_is_made_for_the_moment_and_said_once(
    tmp_path, source, caplog
):
    """A file stands where the cache should be; a read-only or full disk fails in the same way."""
    build, cache = Builder(), tmp_path / "cache"
    cache.write_text("in the way")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            content, folder = made(cache, source, build)
            assert content == "content"
            assert not folder.exists()
    assert len({record.message for record in caplog.records}) == len(caplog.records) == 1
    assert "could not be kept" in caplog.text


HOLD_AND_FORK = """
import os, sys, tempfile, weakref
from contextlib import ExitStack
from pathlib import Path
from qdrant_rerank.inference.conversion.artifact_cache import artifact

class Model:
    pass

tempfile.tempdir = sys.argv[2]
stack, model = ExitStack(), Model()
build = lambda folder: (folder / "made").write_text("content")
folder = stack.enter_context(artifact(Path(sys.argv[1]), "kind", [], {}, build))
weakref.finalize(model, stack.close)
for freed in (True, False):
    if os.fork() == 0:
        if freed:
            del model
        sys.exit()
    os.wait()
    print((folder / "made").is_file(), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on Windows")
def test_what_is_made_for_the_moment_outlives_a_forked_child(tmp_path):
    """A child that frees its copy of the model, or ends, leaves the files; the parent does not."""
    (tmp_path / "cache").write_text("in the way")
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-c", HOLD_AND_FORK, str(tmp_path / "cache"), str(tmp_path / "tmp")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path, source, monkeypatch):
    """The real error of a full device, and the error that says what to do."""
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("no /dev/full")

    def build(folder):
        (folder / "made").symlink_to("/dev/full")
        with (folder / "made").open("wb") as file:
            file.write(b"content")

    cache = tmp_path / "cache"
    with (
        pytest.raises(ModelFileError, match=r"No space left.*pass cache_dir="),
        artifact(cache, "kind", [source], {}, build),
    ):
        pass
    assert list(cache.iterdir()) == []


def test_two_processes_may_build_the_same_at_once(tmp_path):
    """Both have it whole, and one folder is left."""
    command = [sys.executable, "-c", BUILD_SLOWLY, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate(timeout=60)[0] for process in running}
    [folder] = tmp_path.iterdir()
    assert said == {f"{folder.name} onetwo\n"}


@pytest.mark.parametrize("lock", [None, "", "another machine", b"\xff"])
def test_what_no_lock_tells_of_is_removed_a_day_after_it_was_written_to(tmp_path, source, lock):
    """Not before: it may still be at work, on a file system without locks or another machine."""
    young, old, at_work = (tmp_path / f".building-{n}" for n in ("young", "old", "at-work"))
    day_before = time.time() - 100_000
    for path in (young, old, at_work):
        (path / "artifact").mkdir(parents=True)
        part = path / "artifact" / "part"
        part.write_text("part")
        if lock is not None:
            (path / "lock").write_bytes(lock if isinstance(lock, bytes) else lock.encode())
        if path != young:
            for one in (*path.rglob("*"), path):
                os.utime(one, (day_before, day_before))
        if path == at_work:
            os.utime(part)
    _, folder = made(tmp_path, source, Builder())
    left = {path for path in tmp_path.iterdir() if path.is_dir()}
    assert left == {young, at_work, folder}


WITHOUT_LOCKS = """
import errno, fcntl, os
def lockf(*args):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.lockf = fcntl.flock = lockf
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
def test_a_builder_on_a_file_system_without_locks_is_left_alone(tmp_path, source):
    """Neither a process that sees locks nor one that does not removes its room."""
    cache = tmp_path / "cache"
    code = WITHOUT_LOCKS + BUILD_AND_WAIT
    command = [sys.executable, "-c", code, str(cache), "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, start_new_session=True
    ) as builder:
        room = Path(builder.stdout.readline().split()[0])
        made(cache, source, Builder(), version=1)
        subprocess.run([sys.executable, "-c", WITHOUT_LOCKS + BUILD[-1], str(cache)], check=True)
        assert room.is_dir()
        builder.kill()


@pytest.mark.parametrize("forks", [False, True], ids=["alone", "with a forked child"])
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
def test_what_a_killed_process_left_is_removed_by_the_next_build_and_not_before(
    tmp_path, source, forks
):
    """A child that the killed process forked during its build keeps nothing."""
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", BUILD_AND_WAIT, str(cache), str(int(forks))]
    builder = subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        room, child = builder.stdout.readline().split()
        _, first = made(cache, source, Builder(), version=1)
        assert set(cache.iterdir()) == {Path(room), first}  # the builder lives
        os.kill(builder.pid, signal.SIGKILL)
        builder.wait(timeout=30)
        if forks:
            os.kill(int(child), 0)  # lives
        _, second = made(cache, source, Builder(), version=2)
        assert set(cache.iterdir()) == {first, second}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(builder.pid, signal.SIGKILL)
        builder.stdin.close()
        builder.stdout.close()
        builder.wait(timeout=30)


def test_a_build_during_another_build_of_the_process_leaves_it_alone(tmp_path, source):
    """Threads that load two models into one cache; what is beside the folder goes at the end."""
    cache = tmp_path / "cache"

    def build(folder):
        (folder / "made").write_text("content")
        (folder.parent / "scratch").write_text("scratch")
        made(cache, source, Builder(), version=1)
        assert subprocess.run([*BUILD, str(cache)], check=True, timeout=60)  # another process, too
        assert (folder / "made").read_text() == "content"

    with artifact(cache, "kind", [source], {"version": 2}, build) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["made", "manifest.json"]
    assert len(list(cache.iterdir())) == 3


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize("left_open", [False, True])
def test_only_the_owner_can_read_an_artifact(tmp_path, source, left_open):
    """Whatever the process's mask is, and where an older version left it open."""
    cache = tmp_path / "cache"
    before = os.umask(0)
    try:
        _, folder = made(cache, source, Builder())
        if left_open:
            folder.chmod(0o755)
            for path in folder.iterdir():
                path.chmod(0o644)
            made(cache, source, Builder())
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"made": 0o600, "manifest.json": 0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (cache, folder)} == {0o700}
