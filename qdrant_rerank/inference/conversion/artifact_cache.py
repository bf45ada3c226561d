"""Artifacts: files that are made once of a model and kept in the cache.

An artifact is a folder, named by a digest of all that it is made of: the contents of files, options
and versions. It is built under another name and then renamed, so it is always whole, and two
processes may build the same artifact at the same time. A manifest holds the digest of each of its
files; an artifact that does not match it is made again.

Only the owner can read an artifact, since the model may be private.
"""

import functools
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import file_digest, sha256
from pathlib import Path

from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.utils.fork import ForkLock, temporary_directory
from qdrant_rerank.utils.machine import this_boot

try:
    import fcntl
except ImportError:  # Windows: what a killed process left is told by its age alone
    fcntl = None  # type: ignore[assignment]

__all__ = ["artifact"]

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
BUILDING = ".building-"  # start of the names of rooms, the folders of builds
PART = "artifact"  # folder in a room: the artifact so far
LOCK = "lock"  # file in a room: its builder has locked it, as long as the builder lives
LEFT_BEHIND_S = 86_400  # age of what is in a room whose lock tells nothing

#: This process's rooms: process ids and paths. A file that is opened and closed again loses the
#: lock that the process itself has on it.
_rooms: set[tuple[int, Path]] = set()
_rooms_lock = ForkLock()


@contextmanager
def artifact(
    cache: Path,
    kind: str,
    files: Sequence[Path],
    options: Mapping[str, object],
    build: Callable[[Path], None],
) -> Iterator[Path]:
    """Give the folder of an artifact, built if it is not in the cache.

    If the cache cannot be written to, it is built in a temporary folder, which is removed after
    the ``with`` block.

    Args:
        cache: directory of all artifacts.
        kind: start of the folder's name.
        files: files that it is made of; their names and contents count.
        options: other things that decide what is made; they are compared by their ``repr``.
        build: puts the artifact's files into an empty folder. Files beside that folder are
            removed after the build.

    Raises:
        ModelFileError: there is no room for it anywhere.
    """
    folder = cache / f"{kind}-{_fingerprint(files, options)}"
    with ExitStack() as stack:
        if _is_whole(folder):
            with suppress(OSError):  # it is another user's
                _close_to_others(folder)  # an older version left it open
        else:
            try:
                _build_into(folder, build)
            except OSError as error:
                _log_once(folder, f"could not be kept ({error}); it is made again each time")
                try:
                    folder = stack.enter_context(temporary_directory()) / PART
                    folder.mkdir()
                    build(folder)
                except OSError as failure:
                    raise ModelFileError(
                        f"{kind} needs room on a disk, but neither {cache} nor {folder} can be "
                        f"written to: {error}; {failure}. Free some, or pass cache_dir=."
                    ) from failure
        yield folder


def _fingerprint(files: Sequence[Path], options: Mapping[str, object]) -> str:
    digest = sha256(repr(sorted(options.items())).encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(path.name.encode() + b"\0" + file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _build_into(folder: Path, build: Callable[[Path], None]) -> None:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _room(folder.parent) as room:
        made = room / PART
        made.mkdir(mode=0o700)
        build(made)
        (made / MANIFEST).write_text(json.dumps(_digests(made)), encoding="utf-8")
        _close_to_others(made)
        if folder.exists():
            if _is_whole(folder):  # another process was faster
                return
            _log_once(folder, "was damaged or not ours, and is made again")
            # Aside first: another process may replace it, too, and one of the two is the last.
            with suppress(FileNotFoundError):
                folder.rename(room / "aside")
        try:
            made.rename(folder)
        except OSError:
            if not _is_whole(folder):
                raise


@contextmanager
def _room(cache: Path) -> Iterator[Path]:
    """Give an empty folder in the cache for one build, and remove it and all abandoned ones."""
    with _rooms_lock:
        room = Path(tempfile.mkdtemp(dir=cache, prefix=BUILDING))
        _rooms.add((os.getpid(), room))
        now = room.stat().st_mtime  # by the clock of the file system, which may be another's
        for path in cache.glob(f"{BUILDING}*"):
            if (os.getpid(), path) not in _rooms:
                _remove_abandoned(path, now)
    try:
        with (room / "new").open("w", encoding="utf-8") as file:
            file.write(this_boot())
            file.flush()
            if fcntl is not None:
                with suppress(OSError):  # a file system without locks
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    (room / "new").rename(room / LOCK)  # locked before others can see it
            yield room
    finally:
        _remove(room)
        with _rooms_lock:
            _rooms.discard((os.getpid(), room))


def _remove_abandoned(room: Path, now: float) -> None:
    """Remove a room whose builder does not live any more.

    The lock of a builder on this machine tells. That of a builder on another machine may not be
    seen here, and some file systems have no locks: then nothing may have been written for a day.
    """
    with suppress(OSError):
        lock = room / LOCK
        if fcntl is not None and lock.is_file() and lock.read_bytes() == this_boot().encode():
            with lock.open("r+") as file:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while the builder lives
                _remove(room)
        elif now - max(one.stat().st_mtime for one in (room, *room.rglob("*"))) > LEFT_BEHIND_S:
            _remove(room)


def _close_to_others(folder: Path) -> None:
    folder.chmod(0o700)
    for path in folder.iterdir():
        path.chmod(0o600)


def _is_whole(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest) and manifest == _digests(folder)
    except (OSError, ValueError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.iterdir()):
        if path.name != MANIFEST:
            with path.open("rb") as file:
                digests[path.name] = file_digest(file, "sha256").hexdigest()
    return digests


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@functools.cache
def _log_once(folder: Path, what: str) -> None:
    logger.warning("%s %s.", folder, what)
