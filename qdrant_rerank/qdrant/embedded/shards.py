"""The collections of the embedded engine: created, opened, renamed, removed; its errors as ours.

The order of a change: files first where something is created, the list first where something is
removed. So a process that is killed in between loses no collection that was there.
"""

import ctypes
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from weakref import WeakSet, WeakValueDictionary

import qdrant_edge as edge
from qdrant_client import models

from qdrant_rerank.errors import (
    CollectionNotFoundError,
    QdrantConnectionError,
    QdrantRequestError,
    QdrantRerankError,
)
from qdrant_rerank.qdrant.embedded.config import to_config
from qdrant_rerank.qdrant.embedded.directory import ASIDE, SHARDS, Directory, Entry, Listing
from qdrant_rerank.utils.fork import in_child

__all__ = ["KEPT_FREE", "Shards"]

# What the engine says when it cannot write; a bare Exception with this in its text.
DISK_TROUBLE = ("os error", "io error", "i/o error", "no space", "file too large")
# And where it cannot make out what it reads.
DAMAGE = ("can't read wal", "can't deserialize", "corrupt")
# All that it says where a formula cannot be computed.
FORMULA_FAILED = "cancelled by service"
#: Bytes free on the disk that a write needs, twice a write-ahead log, as on a server, and opening a
#: collection, for its log. The engine maps its files into memory, and the system ends a process
#: (SIGBUS) that touches a page of them for which the disk has no room.
KEPT_FREE = 64 * 2**20
TO_OPEN = 32 * 2**20
LOG = "wal"  # folder of a shard's log, in files of 32 MiB
FLUSH_S = 5.0  # seconds of writes that a killed process has to replay, as on a server
FORBIDDEN = '<>:"/\\|?*\0\x1f'  # in names, as on a server
LONGEST_NAME = 255


class _Opened:
    """A directory that is open in this process, once for all clients on it.

    Args:
        folder: directory of the collections.

    Attributes:
        directory: the directory, locked.
        listing: its list of collections.
        shards: opened collections by folder name.
        flushed: filled files of their logs, and the time, when they were written to disk last.
        writing: the lock that a writer holds.
        users: the clients that have the directory open.
    """

    def __init__(self, folder: Path) -> None:
        self.writing = threading.RLock()
        self.shards: dict[str, edge.EdgeShard] = {}
        self.flushed: dict[str, tuple[set[str], float]] = {}
        self.users: WeakSet[Shards] = WeakSet()
        self.directory = Directory(folder)
        try:
            self.listing = self.directory.read()
        except BaseException:
            self.directory.close()
            raise

    def let_go(self) -> None:
        """Leave the files to the parent process, of which this one is a fork."""
        for shard in self.shards.values():
            # Never freed here, since that would write to the parent's files.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(shard))
        self.directory.let_go()


# A directory whose clients are all forgotten is closed without their help.
_opened: WeakValueDictionary[Path, _Opened] = WeakValueDictionary()
_opening = threading.Lock()


@in_child
def _let_go() -> None:
    """Close the parent's files, which would stay locked for as long as this process lives."""
    global _opening  # noqa: PLW0603 - another thread of the parent may have held it
    _opening = threading.Lock()
    for opened in list(_opened.values()):
        opened.let_go()
    _opened.clear()


class Shards:
    """Every collection of a directory. Each is opened on first use.

    Clients of one process share an open directory; the last one that is closed lets it go.

    Args:
        folder: directory of the collections.
        durable: whether every write is logged, so that it survives a crash.

    Raises:
        QdrantConnectionError: the directory holds something else, cannot be used, or another
            process has it open.
    """

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self._process = os.getpid()
        self.where = f"The embedded Qdrant at {folder if durable else ':memory:'}"
        self._durable = durable
        self._closed = False
        self._key = Path(os.path.realpath(folder))
        with _opening:
            opened = _opened.get(self._key)
            if opened is None:
                opened = _opened[self._key] = _Opened(folder)
            opened.users.add(self)
        self._opened = opened

    @property
    def writing(self) -> threading.RLock:
        """The lock that a writer holds.

        Raises:
            QdrantConnectionError: another process opened the engine.
        """
        self._require_own()
        return self._opened.writing

    @property
    def listing(self) -> Listing:
        """The collections and aliases.

        Raises:
            QdrantConnectionError: the client was closed, or another process opened it.
        """
        self._require_own()
        if self._closed:
            raise QdrantConnectionError(f"{self.where} is closed. Open it again.")
        return self._opened.listing

    def entry(self, name: str) -> Entry:
        """Return what is recorded of a collection.

        Raises:
            CollectionNotFoundError: there is no collection or alias of that name.
        """
        listing = self.listing
        found = listing.collections.get(listing.aliases.get(name, name))
        if found is None:
            names = ", ".join(map(repr, sorted(listing.collections)))
            raise CollectionNotFoundError(
                f"{self.where} has no collection {name!r}. "
                f"{f'It has {names}' if names else 'It has no collections'}. "
                "HybridSearcher.add(documents) creates it."
            )
        return found

    def shard(self, name: str) -> edge.EdgeShard:
        """Return the shard of a collection, opened if it is not.

        Raises:
            CollectionNotFoundError: there is no collection or alias of that name.
            QdrantConnectionError: its files cannot be read.
        """
        folder = self.entry(name).folder
        found = self._opened.shards.get(folder)
        if found is not None:
            return found
        with self.writing, self.errors(name):
            shards, path = self._opened.shards, self._directory.folder(self.entry(name))
            if folder not in shards:
                if not path.is_dir():
                    raise QdrantConnectionError(
                        f"{self.where} lacks the files of {name!r}: there is no {path}. Restore "
                        f"it from a copy, or from the folder {ASIDE!r} beside {path.parent.name!r}."
                    )
                self.require_room(TO_OPEN)
                shards[folder] = edge.EdgeShard.load(str(path))
            return shards[folder]

    def text_fields(self, name: str) -> frozenset[str]:
        """Return the payload fields of a collection that have a text index."""
        return frozenset(
            field
            for field, info in self.entry(name).indexes.items()
            if info.data_type == models.PayloadSchemaType.TEXT
        )

    def update(self, name: str, operations: Iterable[edge.UpdateOperation]) -> None:
        """Log and apply checked operations, and write to disk what the log has held for long.

        Raises:
            QdrantConnectionError: the disk is full, or files cannot be written.
            QdrantRequestError: the engine refused an operation.
        """
        shard = self.shard(name)
        with self.writing, self.errors(name):
            for operation in operations:
                self.require_room()
                shard.update(operation)
            if self._durable:
                self._trim(self.entry(name).folder, shard)

    def _trim(self, folder: str, shard: edge.EdgeShard) -> None:
        """Flush a shard whose log has a full file or is old, so that the log can be cut off.

        The engine replays what was not flushed when it opens a collection.
        """
        log = self._directory.path / SHARDS / folder / LOG
        filled = {file.name for file in log.glob("closed-*")}
        now = time.monotonic()
        known, flushed = self._opened.flushed.setdefault(folder, (filled, now))
        if filled - known or now - flushed > FLUSH_S:
            shard.flush()
            self._opened.flushed[folder] = filled, now

    @property
    def _directory(self) -> Directory:
        return self._opened.directory

    def create(self, name: str, config: models.CollectionConfig) -> None:
        """Create a collection.

        Raises:
            QdrantRequestError: the name is taken or forbidden, or the settings are.
        """
        with self.writing:
            listing = self.listing
            self._require_name(name)
            self.require_room()
            for kind, taken in (("Collection", listing.collections), ("Alias", listing.aliases)):
                if name in taken:
                    raise QdrantRequestError(f"{kind} {name!r} already exists in {self.where}.")
            with self.errors(name):
                settings = to_config(config, durable=self._durable)
                folder = self._directory.new_folder(name)
                try:
                    shard = edge.EdgeShard.create(str(folder), settings)
                    entry = Entry(folder.name, config)
                    self._record(replace(listing, collections={**listing.collections, name: entry}))
                except BaseException:
                    self._directory.remove(folder)
                    raise
                self._opened.shards[folder.name] = shard

    def delete(self, name: str) -> bool:
        """Remove a collection and its aliases; return whether there was one."""
        with self.writing:
            listing = self.listing
            entry = listing.collections.get(name)
            if entry is None:
                return False
            self._record(
                Listing(
                    {key: one for key, one in listing.collections.items() if key != name},
                    {alias: to for alias, to in listing.aliases.items() if to != name},
                )
            )
            with self.errors(name):
                shard = self._opened.shards.pop(entry.folder, None)
                if shard is not None:
                    shard.close()
            self._directory.remove(self._directory.folder(entry))
            return True

    def change(self, name: str, entry: Entry) -> None:
        """Record other settings of a collection."""
        listing = self.listing
        real = listing.aliases.get(name, name)
        self._record(replace(listing, collections={**listing.collections, real: entry}))

    def rename(self, aliases: Mapping[str, str]) -> None:
        """Record other aliases, all at once, so that no search falls in between."""
        self._record(replace(self.listing, aliases=dict(aliases)))

    def close(self) -> None:
        """Let the directory go; the last client on it writes everything to disk."""
        if self._process != os.getpid():
            return  # the files are the other process's to write, and to let go
        with _opening, self.writing:
            if self._closed:
                return
            self._closed = True
            opened = self._opened
            opened.users.discard(self)
            if opened.users:
                return
            del _opened[self._key]
            try:
                with self.errors("all"):
                    for shard in opened.shards.values():
                        if self._durable:
                            shard.flush()
                        shard.close()
            finally:
                opened.shards.clear()
                opened.directory.close()

    def require_room(self, needed: int = KEPT_FREE) -> None:
        """Raise QdrantConnectionError unless so many bytes are free on the disk."""
        free = shutil.disk_usage(self._directory.path).free
        if free < needed:
            raise QdrantConnectionError(
                f"{self.where} has {free / 1e6:,.0f} MB left on its disk; expected more than "
                f"{needed / 1e6:,.0f} MB. Nothing was done. Make room, or use another directory."
            )

    def used(self, name: str) -> int:
        """Return the bytes that a collection takes on the disk, where its files have holes."""
        folder = self._directory.folder(self.entry(name))
        return sum(file.stat().st_blocks * 512 for file in folder.rglob("*"))

    @contextmanager
    def errors(self, name: str) -> Iterator[None]:
        """Raise the engine's bare exceptions as ours, with the cause attached.

        Raises:
            QdrantConnectionError: files cannot be read or written, or the engine broke down.
            QdrantRequestError: the engine refused the request.
        """
        try:
            yield
        except QdrantRerankError:
            raise
        except Exception as error:
            said = str(error)
            if isinstance(error, OSError) or any(word in said.lower() for word in DISK_TROUBLE):
                raise QdrantConnectionError(
                    f"{self.where} cannot read or write its files: {said}. Is the disk full, or "
                    "the directory not writable?"
                ) from error
            if any(word in said.lower() for word in DAMAGE):
                raise QdrantConnectionError(
                    f"{self.where} cannot make out the files of {name!r}: {said}. They are damaged "
                    "or of another version of qdrant-edge-py. Restore a copy of the directory, or "
                    "index into another."
                ) from error
            if FORMULA_FAILED in said:
                said = (
                    "a formula divides by zero, or takes a payload value that is missing or no "
                    f"number, or a root or logarithm that there is not ({said})."
                )
            raise QdrantRequestError(
                f"{self.where} cannot do that with {name!r}: {said}"
            ) from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # Ctrl-C and the like
                raise
            raise QdrantConnectionError(
                f"{self.where} broke down at {name!r}: {error}. Close the client and open it again."
            ) from error

    def _require_own(self) -> None:
        """Refuse a process that was forked from the one with the engine's threads."""
        if self._process != os.getpid():
            raise QdrantConnectionError(
                f"{self.where} was opened in another process ({self._process}), and this one was "
                "forked from it. Open it after the fork, in one process; several take a server."
            )

    def _record(self, listing: Listing) -> None:
        try:
            self._directory.write(listing)
        except OSError as error:
            raise QdrantConnectionError(
                f"{self.where} cannot read or write its files: {error}. Is the disk full, or the "
                "directory not writable?"
            ) from error
        self._opened.listing = listing

    def _require_name(self, name: str) -> None:
        wrong = next((sign for sign in name if sign in FORBIDDEN), None)
        if wrong is not None or name in {"", ".", ".."} or len(name) > LONGEST_NAME:
            raise QdrantRequestError(
                f"{name!r} cannot be the name of a collection; expected 1 to {LONGEST_NAME} "
                f"characters, none of {FORBIDDEN[:-2]}"
            )
