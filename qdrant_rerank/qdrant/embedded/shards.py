"""The collections of the embedded engine: created, opened, renamed, removed; its errors as ours.

The order of a change: files first where something is created, the list first where something is
removed. So a process that is killed in between loses no collection that was there.
"""

import os
import shutil
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from qdrant_rerank.errors import (
    CollectionNotFoundError,
    QdrantConnectionError,
    QdrantRequestError,
)
from qdrant_rerank.qdrant.embedded.closed_files import recorded_points
from qdrant_rerank.qdrant.embedded.config import to_config, to_index
from qdrant_rerank.qdrant.embedded.directory import (
    ASIDE,
    SHARDS,
    Directory,
    Entry,
    Listing,
)
from qdrant_rerank.qdrant.embedded.engine_errors import engine_errors, opening_errors
from qdrant_rerank.qdrant.embedded.opened import ReadOnly, open_directory
from qdrant_rerank.qdrant.embedded.recovery import (
    COPY,
    LOG,
    Recovery,
    copy_points,
    is_panic,
    readable,
)
from qdrant_rerank.qdrant.embedded.vector_changes import vector_names
from qdrant_rerank.utils.fork import temporary_directory
from qdrant_rerank.utils.validation import shown
from qdrant_rerank.utils.warn import warn_caller

__all__ = ["KEPT_FREE", "Shards"]

#: Bytes free on the disk that a write needs, twice a write-ahead log, as on a server, and opening a
#: collection, for its log. The engine maps its files into memory, and the system ends a process
#: (SIGBUS) that touches a page of them for which the disk has no room.
KEPT_FREE = 64 * 2**20
TO_OPEN = 32 * 2**20
FLUSH_S = 5.0  # seconds of writes that a killed process has to replay, as on a server
FORBIDDEN = '<>:"/\\|?*\0\x1f'  # in names, as on a server
LONGEST_NAME = 255


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
        self._opened = open_directory(folder, self)

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
            seen = f"{self.where} has no collection {name!r}. " + (
                f"It has {names}." if names else "It has no collections."
            )
            raise CollectionNotFoundError(
                f"{seen} HybridSearcher.add(documents) creates it.",
                command=f"{seen} 'qdrant-rerank index' creates it.",
            )
        return found

    def shard(self, name: str) -> edge.EdgeShard:
        """Return the shard of a collection, opened if it is not.

        If its log cannot be replayed, that of a copy, for reading; :meth:`writable` refuses it.

        Raises:
            CollectionNotFoundError: there is no collection or alias of that name.
            QdrantConnectionError: its files cannot be read.
        """
        found = self._opened.shards.get(self.entry(name).folder)
        if found is None:
            found, wrong = self._open(name, or_copy=True)
            if wrong is not None:
                warn_caller(wrong)
        return found

    def _open(self, name: str, *, or_copy: bool = False) -> tuple[edge.EdgeShard, str | None]:
        """Open the shard of a collection, or a copy of it; return what is wrong with the latter."""
        with self.writing, self.errors(name):
            entry = self.entry(name)
            folder, path, shards = entry.folder, self._directory.folder(entry), self._opened.shards
            if folder in shards:
                return shards[folder], None
            if not path.is_dir():
                raise QdrantConnectionError(
                    f"{self.where} lacks the files of {name!r}: there is no {path}. Restore "
                    f"it from a copy, or from the folder {ASIDE!r} beside {path.parent.name!r}."
                )
            self.require_room(TO_OPEN)
            wrong = None
            try:
                with opening_errors(self.where, name):
                    self._opened.load(folder)
            except QdrantConnectionError as error:
                if not or_copy or isinstance(error.__cause__, ValueError):  # a damaged file
                    raise
                wrong = self._open_copy(name, folder)
                if wrong is None:
                    raise
            return shards[folder], wrong

    def writable(self, name: str) -> edge.EdgeShard:
        """Return the shard of a collection that is about to be changed.

        Raises:
            CollectionNotFoundError: there is no collection or alias of that name.
            QdrantConnectionError: its files cannot be read, or its log cannot be replayed.
        """
        shard = self.shard(name)
        if found := self._opened.read_only.get(self.entry(name).folder):
            raise QdrantConnectionError(f"{found.reason} Nothing was written.")
        return shard

    def _open_copy(self, name: str, folder: str) -> str | None:
        """Open a collection whose log cannot be replayed for reading; return what is wrong."""
        self.require_room(KEPT_FREE + self.used(name))
        with opening_errors(self.where, name):
            found = self._opened.load_copy(folder)
        if found is None:
            return None
        copy, closing = found
        reason = (
            f"{self.where} cannot replay the log of {name!r}: a change in it breaks the engine "
            "down. The collection is open for reading only, as it was before that change: with "
            f"{copy.replayed} of the {copy.total} changes in the log. To write to it again, give "
            f"it new files: EmbeddedClient(path).recover({name!r}), from "
            "qdrant_rerank.qdrant.embedded.client. Its old files are kept."
        )
        self._opened.read_only[folder] = ReadOnly(reason, closing)
        return reason

    def optimize(self, name: str) -> bool:
        """Build the graphs of a collection; return whether there was anything to do."""
        with self.writing, self.errors(name):
            self.require_room(KEPT_FREE + self.used(name))  # a copy
            return self.writable(name).optimize()

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
        with self.writing, self.errors(name):
            shard, folder = self.writable(name), self.entry(name).folder
            for operation in operations:
                self.require_room()
                try:
                    shard.update(operation)
                except BaseException as error:
                    if is_panic(error):
                        self._opened.give_up(folder)
                    raise
            if self._durable:
                self._trim(folder, shard)

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

    def create(
        self, name: str, config: models.CollectionConfig, *, replacing: bool = False
    ) -> None:
        """Create a collection.

        Args:
            name: of the collection.
            config: settings.
            replacing: whether one of that name is removed first, if the settings are right.

        Raises:
            QdrantRequestError: the name is taken or forbidden, or the settings are.
        """
        with self.writing:
            listing = self.listing
            self._require_name(name)
            self.require_room()
            if replacing:
                with self.errors(name):
                    to_config(config, durable=self._durable)
                self.delete(name)
                listing = self.listing
            for kind, taken in (("Collection", listing.collections), ("Alias", listing.aliases)):
                if name in taken:
                    raise QdrantRequestError(f"{kind} {name!r} already exists in {self.where}.")
            with self.errors(name):
                folder, shard = self._new_shard(name, config)
                try:
                    entry = Entry(folder.name, config)
                    self._record(replace(listing, collections={**listing.collections, name: entry}))
                except BaseException:
                    self._directory.remove(folder)
                    raise
                self._opened.shards[folder.name] = shard

    def recover(self, name: str) -> Recovery | None:
        """Open a collection without the part of its log that cannot be replayed.

        Its files are set aside. None if the collection opens as it is.

        Raises:
            CollectionNotFoundError: there is no collection or alias of that name.
            QdrantConnectionError: more than the log is damaged.
        """
        with self.writing:
            entry = self.entry(name)
            folder = self._directory.folder(entry)
            if entry.folder in self._opened.read_only:
                self._opened.close_copy(entry.folder)
            else:
                try:
                    self._open(name)
                except QdrantConnectionError:
                    if not folder.is_dir():
                        raise
                else:
                    return None
            self.require_room(2 * (KEPT_FREE + self.used(name)))  # the copy, and what is made of it
            with (
                self.errors(name),
                opening_errors(self.where, name),
                temporary_directory(self._directory.path, COPY) as room,
                readable(folder, room) as found,
            ):
                points = self._rebuild(name, entry, found.shard).info().points_count
                before = recorded_points(folder)
                aside = self._directory.set_aside(folder)
            left_out = found.total - found.replayed
            return Recovery(points, before, found.replayed, left_out, found.without, aside)

    def rebuild(self, name: str, config: models.CollectionConfig) -> None:
        """Store the points of a collection again, with settings that the engine cannot change."""
        with self.writing, self.errors(name):
            entry = self.entry(name)
            self.require_room(KEPT_FREE + self.used(name))
            self._rebuild(name, replace(entry, config=config), self.writable(name))
            self._remove(name, entry)

    def _rebuild(self, name: str, entry: Entry, source: edge.EdgeShard) -> edge.EdgeShard:
        """Store the points of a shard in the collection's new one, and record that."""
        folder, shard = self._new_shard(name, entry.config)
        try:
            copy_points(source, shard, vector_names(entry.config.params))
            for field, info in entry.indexes.items():
                shard.update(edge.UpdateOperation.create_field_index(field, to_index(info)))
            shard.flush()
            self.change(name, replace(entry, folder=folder.name))
        except BaseException:
            shard.close()
            self._directory.remove(folder)
            raise
        self._opened.shards[folder.name] = shard
        return shard

    def _new_shard(self, name: str, config: models.CollectionConfig) -> tuple[Path, edge.EdgeShard]:
        settings = to_config(config, durable=self._durable)
        folder = self._directory.new_folder(name)
        try:
            return folder, edge.EdgeShard.create(str(folder), settings)
        except BaseException:
            self._directory.remove(folder)
            raise

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
            self._remove(name, entry)
            return True

    def _remove(self, name: str, entry: Entry) -> None:
        """Close and remove the files of a collection."""
        with self.errors(name):
            if entry.folder in self._opened.read_only:
                self._opened.close_copy(entry.folder)
            shard = self._opened.shards.pop(entry.folder, None)
            if shard is not None:
                shard.close()
        self._directory.remove(self._directory.folder(entry))

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
        if not self._closed:
            self._closed = True
            with self.errors("all"):
                self._opened.release(self, flush=self._durable)

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

    def errors(self, name: str) -> AbstractContextManager[None]:
        """Raise the engine's bare exceptions as ours, with the cause attached."""
        return engine_errors(self.where, name)

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

    def _require_name(self, name: Any) -> None:
        fits = isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and name not in {".", ".."}
        if not fits or any(sign in FORBIDDEN or "\ud800" <= sign <= "\udfff" for sign in name):
            raise QdrantRequestError(
                f"{shown(name)} cannot be the name of a collection; expected 1 to {LONGEST_NAME} "
                f"characters, none of {FORBIDDEN[:-2]}"
            )
