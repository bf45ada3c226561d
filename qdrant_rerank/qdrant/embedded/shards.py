"""The collections of the embedded engine: made, opened, renamed, removed; and its errors as ours.

The order of a change: files first where something is made, the list first where something is
removed, so that a process killed in between loses no collection that was there.
"""

import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import qdrant_edge as edge
from qdrant_client import models

from qdrant_rerank.errors import (
    CollectionNotFoundError,
    QdrantConnectionError,
    QdrantRequestError,
    QdrantRerankError,
)
from qdrant_rerank.qdrant.embedded.config import edge_config
from qdrant_rerank.qdrant.embedded.directory import Directory, Entry, Listing

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
FORBIDDEN = '<>:"/\\|?*\0\x1f'  # in names, as on a server
LONGEST_NAME = 255


class Shards:
    """Every collection of a directory; each is opened on first use.

    Args:
        folder: of the collections.
        durable: whether every write is logged, to survive a crash.

    Raises:
        QdrantConnectionError: the directory cannot be used, or another process has it open.
    """

    def __init__(self, folder: Path, *, durable: bool) -> None:
        self._writing = threading.RLock()
        self._process = os.getpid()
        self.where = f"The embedded Qdrant at {folder if durable else ':memory:'}"
        self._durable = durable
        self._directory = Directory(folder)
        self._open: dict[str, edge.EdgeShard] = {}
        self._closed = False
        try:
            self._listing = self._directory.read()
        except BaseException:
            self._directory.close()
            raise

    @property
    def writing(self) -> threading.RLock:
        """The lock that a writer holds.

        Raises:
            QdrantConnectionError: another process opened the engine.
        """
        self._require_own()
        return self._writing

    @property
    def listing(self) -> Listing:
        """The collections and aliases.

        Raises:
            QdrantConnectionError: the client was closed, or another process opened it.
        """
        self._require_own()
        if self._closed:
            raise QdrantConnectionError(f"{self.where} is closed. Open it again.")
        return self._listing

    def entry(self, name: str) -> Entry:
        """What is recorded of a collection.

        Raises:
            CollectionNotFoundError: there is none of that name.
        """
        listing = self.listing
        found = listing.collections.get(listing.aliases.get(name, name))
        if found is None:
            names = ", ".join(map(repr, sorted(listing.collections)))
            seen = f"{self.where} has no collection {name!r}. " + (
                f"It has {names}." if names else "It has no collections."
            )
            raise CollectionNotFoundError(
                f"{seen} HybridSearcher.add(documents) creates it.",
                command=f"{seen} 'qdrant-rerank index' creates it.",
            )
        return found

    def shard(self, name: str) -> edge.EdgeShard:
        """A collection's shard.

        Raises:
            CollectionNotFoundError: there is none of that name.
            QdrantConnectionError: its files cannot be read.
        """
        folder = self.entry(name).folder
        found = self._open.get(folder)
        if found is not None:
            return found
        with self.writing, self.errors(name):
            if folder not in self._open:
                self.require_room(TO_OPEN)
                path = self._directory.folder(self.entry(name))
                self._open[folder] = edge.EdgeShard.load(str(path))
            return self._open[folder]

    def create(self, name: str, config: models.CollectionConfig) -> None:
        """Make a collection.

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
            folder = self._directory.new_folder()
            with self.errors(name):
                try:
                    settings = edge_config(config, durable=self._durable)
                    shard = edge.EdgeShard.create(str(folder), settings)
                except BaseException:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
                self._open[folder.name] = shard
                entry = Entry(folder.name, config)
                self._record(replace(listing, collections={**listing.collections, name: entry}))

    def delete(self, name: str) -> bool:
        """Remove a collection and its aliases; whether there was one."""
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
                shard = self._open.pop(entry.folder, None)
                if shard is not None:
                    shard.close()
            shutil.rmtree(self._directory.folder(entry), ignore_errors=True)
            return True

    def change(self, name: str, entry: Entry) -> None:
        """Record something else of a collection."""
        listing = self.listing
        real = listing.aliases.get(name, name)
        self._record(replace(listing, collections={**listing.collections, real: entry}))

    def rename(self, aliases: Mapping[str, str]) -> None:
        """Record other aliases; all at once, so that no search falls in between."""
        self._record(replace(self.listing, aliases=dict(aliases)))

    def close(self) -> None:
        """Write everything out and let others open the directory."""
        if self._process != os.getpid():
            return  # they are the other process's to write, and to let go
        with self.writing:
            if self._closed:
                return
            self._closed = True
            try:
                with self.errors("all"):
                    for shard in self._open.values():
                        if self._durable:
                            shard.flush()
                        shard.close()
            finally:
                self._open.clear()
                self._directory.close()

    def require_room(self, needed: int = KEPT_FREE) -> None:
        """Raise QdrantConnectionError unless so many bytes are free on the disk."""
        free = shutil.disk_usage(self._directory.path).free
        if free < needed:
            raise QdrantConnectionError(
                f"{self.where} has {free / 1e6:,.0f} MB left on its disk; expected more than "
                f"{needed / 1e6:,.0f} MB. Nothing was done. Make room, or use another directory."
            )

    def used(self, name: str) -> int:
        """Bytes that a collection's files take on the disk; they have holes."""
        folder = self._directory.folder(self.entry(name))
        return sum(file.stat().st_blocks * 512 for file in folder.rglob("*"))

    @contextmanager
    def errors(self, name: str) -> Iterator[None]:
        """The engine's bare exceptions as ours, with the cause attached.

        Raises:
            QdrantConnectionError: files cannot be read or written, or the engine broke down.
            QdrantRequestError: it refused.
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
        self._listing = listing

    def _require_name(self, name: str) -> None:
        wrong = next((sign for sign in name if sign in FORBIDDEN), None)
        if wrong is not None or name in {"", ".", ".."} or len(name) > LONGEST_NAME:
            raise QdrantRequestError(
                f"{name!r} cannot be the name of a collection; expected 1 to {LONGEST_NAME} "
                f"characters, none of {FORBIDDEN[:-2]}"
            )
