"""Where a directory of collections is: its path, its lock, and temporary ones."""

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from qdrant_rerank.errors import QdrantConnectionError
from qdrant_rerank.utils.machine import this_boot

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "IN_MEMORY",
    "LISTING",
    "LOCK",
    "TEMPORARY_MARK",
    "at",
    "close_files",
    "never_free",
    "sync_folder",
    "take",
    "temporary_folder",
    "unlock_files",
]

#: The file that qdrant-client's local mode locks too, so that the two exclude each other.
LOCK = ".lock"
LISTING = "collections.json"
IN_MEMORY = ":memory:"  # what qdrant-client calls the place that is no directory
DESCRIPTORS = Path("/proc/self/fd")  # open files of this process, on Linux
TEMPORARY = "qdrant-rerank-"  # first part of the names of temporary directories
TEMPORARY_MARK = ".temporary"  # a file in them


def unlock_files(path: Path) -> None:
    """Release the locks of all files below a directory that this process has open.

    They stay open: the engine's threads own some of them, and would close a second time a
    descriptor that by then is another file's.
    """
    for descriptor in _open_below(path):
        with suppress(OSError):
            # By a duplicate, which no other thread closes: the number may be another file's now.
            duplicate = os.dup(descriptor)
            try:
                if _is_below(path, DESCRIPTORS / str(duplicate)):
                    fcntl.flock(duplicate, fcntl.LOCK_UN)
            finally:
                os.close(duplicate)


def close_files(path: Path) -> None:
    """Close all files below a directory that this process has from the one it was forked from.

    Their locks stay with the other process. No thread of it is here, to close them again.
    """
    for descriptor in _open_below(path):
        with suppress(OSError):
            os.close(descriptor)


def _open_below(path: Path) -> Iterator[int]:
    for descriptor in list(DESCRIPTORS.iterdir()) if DESCRIPTORS.is_dir() else ():
        with suppress(OSError):
            if _is_below(path, descriptor):
                yield int(descriptor.name)


def _is_below(path: Path, descriptor: Path) -> bool:
    """Return whether the file of a descriptor, a link of the system's, is below a directory."""
    return str(descriptor.readlink()).startswith(f"{os.path.realpath(path)}{os.sep}")


def never_free(thing: object) -> None:
    """Keep an object for the life of the process, since freeing it does something to files."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def sync_folder(folder: Path) -> None:
    """Write to disk which files a folder has, where the system can."""
    with suppress(OSError):  # not on Windows
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def at(path: str | Path) -> Path:
    """Return the path of a directory, ``~`` replaced by the home directory.

    Raises:
        QdrantConnectionError: there is no home directory.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise QdrantConnectionError(
            f"The Qdrant directory {path} cannot be opened: {error} Set HOME, or write the path "
            "without '~'."
        ) from error


def temporary_folder() -> Path:
    """Make a temporary directory, and remove those that killed processes left.

    Raises:
        QdrantConnectionError: no temporary directory can be written to.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY))
        (folder / TEMPORARY_MARK).write_text(this_boot(), encoding="utf-8")
    except OSError as error:
        raise QdrantConnectionError(
            f"The embedded Qdrant has no room for collections in memory: {error}. Set TMPDIR to a "
            "directory to write to, or QDRANT_PATH to one that keeps the collections."
        ) from error
    for other in folder.parent.glob(f"{TEMPORARY}*"):
        # The list is written after the lock is taken, so a process that lives holds the lock.
        if (
            other != folder
            and not other.is_symlink()
            and all((other / name).is_file() for name in (TEMPORARY_MARK, LISTING))
        ):
            with suppress(OSError, QdrantConnectionError):
                # The lock of a process on another machine may not be seen here.
                if (other / TEMPORARY_MARK).read_bytes() != this_boot().encode():
                    continue
                with (other / LOCK).open("r+", encoding="utf-8") as lock:
                    take(lock, other)
                shutil.rmtree(other, ignore_errors=True)
    return folder


def take(lock: IO[str], path: Path) -> None:
    """Lock the file of a directory, or close it and raise QdrantConnectionError."""
    import portalocker  # comes with qdrant-client; slow to import

    try:
        portalocker.lock(lock, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.exceptions.LockException as error:
        lock.close()
        reason = error.args[0] if error.args else error
        if isinstance(reason, OSError) and reason.errno not in {errno.EAGAIN, errno.EACCES}:
            raise QdrantConnectionError(
                f"The Qdrant directory {path} cannot be opened: its file system cannot lock files "
                f"({reason}), so another process could write to it, too. Use a directory on a "
                "local disk, or a server (QDRANT_URL)."
            ) from error
        raise QdrantConnectionError(
            f"The Qdrant directory {path} cannot be opened: it is already accessed by another "
            "instance of Qdrant. Close the other one, or use a server (QDRANT_URL), which both can."
        ) from error
