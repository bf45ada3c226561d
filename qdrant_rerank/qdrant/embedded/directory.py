"""A directory of collections: which there are, in one JSON file, and who may write to it.

A collection's own files are the engine's. The list of collections is written whole or not at all,
and always before files are deleted and after they are made, so that a process killed in between
leaves at most a folder that nobody names; it is removed the next time.
"""

import json
import os
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from qdrant_client import models

from qdrant_rerank.errors import QdrantConnectionError

__all__ = ["Directory", "Entry", "Listing"]

LISTING = "collections.json"
SHARDS = "shards"
#: The file that qdrant-client's local mode locks too, so that the two exclude each other.
LOCK = ".lock"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One collection.

    Attributes:
        folder: name of the folder with its files.
        config: what ``get_collection`` says.
        indexes: payload indexes by field.
    """

    folder: str
    config: models.CollectionConfig
    indexes: dict[str, models.PayloadIndexInfo] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listing:
    """All collections of a directory, and their other names.

    Attributes:
        collections: by name.
        aliases: collection's name by alias.
    """

    collections: dict[str, Entry] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)


class Directory:
    """A directory that this process alone writes to, until it is closed.

    Args:
        path: made where there is none.

    Attributes:
        path: of the directory.

    Raises:
        QdrantConnectionError: it cannot be used, or another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            (path / SHARDS).mkdir(parents=True, exist_ok=True)
            lock = (path / LOCK).open("a", encoding="utf-8")
        except OSError as error:
            raise QdrantConnectionError(
                f"The Qdrant directory {path} cannot be opened: {error}. Expected a directory to "
                "write to."
            ) from error
        _take(lock, path)
        self._lock: IO[str] | None = lock

    def read(self) -> Listing:
        """The collections, as they were written last.

        Raises:
            QdrantConnectionError: the list cannot be read.
        """
        file = self.path / LISTING
        try:
            content = json.loads(file.read_text("utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"format is {content['format']!r}; expected {FORMAT}")
            listing = Listing(
                {name: _entry(found) for name, found in content["collections"].items()},
                content["aliases"],
            )
        except FileNotFoundError:
            listing = Listing()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise QdrantConnectionError(
                f"{file} cannot be read: {error}. It lists the collections of the embedded Qdrant; "
                "restore it, or index into another directory."
            ) from error
        self._remove_unnamed(listing)
        return listing

    def write(self, listing: Listing) -> None:
        """Record the collections."""
        content = {
            "format": FORMAT,
            "collections": {
                name: {
                    "folder": entry.folder,
                    "config": entry.config.model_dump(mode="json", exclude_none=True),
                    "indexes": {
                        key: info.model_dump(mode="json", exclude_none=True)
                        for key, info in entry.indexes.items()
                    },
                }
                for name, entry in listing.collections.items()
            },
            "aliases": listing.aliases,
        }
        file = self.path / LISTING
        part = file.with_suffix(".part")
        with part.open("w", encoding="utf-8") as opened:
            json.dump(content, opened)
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(file)

    def new_folder(self) -> Path:
        """Where the files of a new collection go; no name of a collection can lead outside."""
        return self.path / SHARDS / uuid.uuid4().hex

    def folder(self, entry: Entry) -> Path:
        """Where a collection's files are."""
        return self.path / SHARDS / Path(entry.folder).name

    def close(self) -> None:
        """Let others open it."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _remove_unnamed(self, listing: Listing) -> None:
        named = {entry.folder for entry in listing.collections.values()}
        for folder in (self.path / SHARDS).iterdir():
            if folder.name not in named:
                shutil.rmtree(folder, ignore_errors=True)


def _take(lock: IO[str], path: Path) -> None:
    """Lock a directory's file, or close it and raise QdrantConnectionError."""
    import portalocker  # comes with qdrant-client; slow to import

    try:
        portalocker.lock(lock, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.exceptions.LockException as error:
        lock.close()
        raise QdrantConnectionError(
            f"The Qdrant directory {path} cannot be opened: it is already accessed by another "
            "instance of Qdrant. Close the other one, or use a server (QDRANT_URL), which both can."
        ) from error


def _entry(found: dict[str, Any]) -> Entry:
    return Entry(
        folder=found["folder"],
        config=models.CollectionConfig.model_validate(found["config"]),
        indexes={
            key: models.PayloadIndexInfo.model_validate(info)
            for key, info in found["indexes"].items()
        },
    )
