"""Directories that are open in this process, once for all clients, and in none of its forks."""

import os
import shutil
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakSet, WeakValueDictionary, finalize

import qdrant_edge as edge

from qdrant_rerank.qdrant.embedded.closed_files import (
    record,
    require_points,
    require_whole,
    without_record,
)
from qdrant_rerank.qdrant.embedded.directory import SHARDS, Directory
from qdrant_rerank.qdrant.embedded.places import never_free, unlock_files
from qdrant_rerank.qdrant.embedded.recovery import COPY, Readable, readable
from qdrant_rerank.utils.fork import in_child

__all__ = ["Opened", "open_directory"]


@dataclass(frozen=True, slots=True)
class ReadOnly:
    """A collection whose log cannot be replayed: a copy of it is open, for reading.

    Attributes:
        reason: what is wrong, and what to do, for whoever writes to it.
        copy: closes the copy and removes it.
    """

    reason: str
    copy: ExitStack


class Opened:
    """A directory that is open in this process, once for all clients on it.

    Args:
        folder: directory of the collections.

    Attributes:
        directory: the directory, locked.
        listing: its list of collections.
        shards: opened collections by folder name.
        read_only: those of them that are copies, by folder name.
        flushed: filled files of their logs, and the time, when they were written to disk last.
        writing: the lock that a writer holds.
        users: the clients that have the directory open.
    """

    def __init__(self, folder: Path) -> None:
        self._key = _key(folder)
        self.writing = threading.RLock()
        self.shards: dict[str, edge.EdgeShard] = {}
        self.read_only: dict[str, ReadOnly] = {}
        self.flushed: dict[str, tuple[set[str], float]] = {}
        self.users: WeakSet[object] = WeakSet()
        self.directory = Directory(folder)
        try:
            self.listing = self.directory.read()
        except BaseException:
            self.directory.close()
            raise

    def release(self, user: object, *, flush: bool) -> None:
        """Close the directory unless it has other users; write everything to disk if asked."""
        with _opening, self.writing:
            self.users.discard(user)
            if self.users:
                return
            _opened.pop(self._key, None)
            try:
                for folder in list(self.read_only):
                    self.close_copy(folder)
                for folder, shard in self.shards.items():
                    if flush:
                        shard.flush()
                    points = shard.info().points_count
                    shard.close()
                    if flush:
                        record(self.directory.path / SHARDS / folder, points)
            finally:
                self.shards.clear()
                self.directory.close()

    def load(self, folder: str) -> edge.EdgeShard:
        """Open the shard of a folder; its files must be those that were closed.

        Raises:
            ValueError: a file is damaged.
        """
        place = self.directory.path / SHARDS / folder
        require_whole(place)
        with without_record(place) as recorded:  # opening may change files
            shard = edge.EdgeShard.load(str(place))
            try:
                require_points(recorded, shard.info().points_count)
            except ValueError:
                never_free(shard)
                unlock_files(place)
                raise
        self.shards[folder] = shard
        return shard

    def load_copy(self, folder: str) -> tuple[Readable, ExitStack] | None:
        """Open a copy of a shard whose log cannot be replayed; None if other files are damaged."""
        with ExitStack() as stack:
            room = Path(tempfile.mkdtemp(dir=self.directory.path, prefix=COPY))
            stack.callback(finalize(self, _remove, os.getpid(), room))
            found = stack.enter_context(readable(self.directory.path / SHARDS / folder, room))
            if found.without or found.replayed == found.total:
                return None
            self.shards[folder] = found.shard
            return found, stack.pop_all()

    def close_copy(self, folder: str) -> None:
        """Close and remove the copy of a collection that is open for reading."""
        del self.shards[folder]
        self.read_only.pop(folder).copy.close()

    def let_go(self) -> None:
        """Leave the files to the parent process, of which this one is a fork."""
        for shard in self.shards.values():
            never_free(shard)
        self.directory.let_go()

    def give_up(self, folder: str) -> None:
        """Forget a shard that broke down in a write, and write nothing of it to disk."""
        never_free(self.shards.pop(folder))
        unlock_files(self.directory.path / SHARDS / folder)


def _remove(process: int, copy: Path) -> None:
    """Remove the copy of a collection, unless this is a fork of the process that made it."""
    if os.getpid() == process:
        shutil.rmtree(copy, ignore_errors=True)


# A directory whose clients are all forgotten is closed without their help.
_opened: WeakValueDictionary[Path, Opened] = WeakValueDictionary()
_opening = threading.Lock()


def open_directory(folder: Path, user: object) -> Opened:
    """Open a directory for a client, or share it with the clients that have it open.

    Raises:
        QdrantConnectionError: the directory holds something else, cannot be used, or another
            process has it open.
    """
    with _opening:
        opened = _opened.get(_key(folder))
        if opened is None:
            opened = Opened(folder)
            _opened[_key(folder)] = opened
        opened.users.add(user)
        return opened


def _key(folder: Path) -> Path:
    return Path(os.path.realpath(folder))


@in_child
def _let_go() -> None:
    """Close the parent's files, which would stay locked for as long as this process lives."""
    global _opening  # noqa: PLW0603 - another thread of the parent may have held it
    _opening = threading.Lock()
    for opened in list(_opened.values()):
        opened.let_go()
    _opened.clear()
