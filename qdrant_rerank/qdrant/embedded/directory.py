"""A directory of collections: the list of them, in one JSON file, and who may write to it.

The files of a collection are the engine's. The list of collections is written whole or not at all.
It is written before files are deleted and after they are created, so a process that is killed in
between leaves at most a folder that the list does not name. Opening a directory removes nothing:
such a folder is set aside. Only a folder with our name and our mark in it is ever removed.
"""

import json
import logging
import os
import re
import shutil
import uuid
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from qdrant_client import models

from qdrant_rerank.errors import QdrantConnectionError
from qdrant_rerank.qdrant.embedded.places import (
    LISTING,
    LOCK,
    TEMPORARY_MARK,
    close_files,
    never_free,
    take,
)
from qdrant_rerank.utils.json_object import parse_json
from qdrant_rerank.utils.terminal import one_line

__all__ = ["ASIDE", "SHARDS", "Directory", "Entry", "Listing", "require_ours"]

logger = logging.getLogger(__name__)

SHARDS = "shards"
ASIDE = "set-aside"
#: A file in each folder that this engine made.
MARK = ".qdrant-rerank"
FOLDER_NAME = re.compile("[0-9a-f]{32}")
FORMAT = 1
#: Names in a directory that counts as empty.
HARMLESS = {
    LOCK,
    TEMPORARY_MARK,
    ".DS_Store",
    ".gitignore",
    ".gitkeep",
    "lost+found",
    "collections.part",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One collection.

    Attributes:
        folder: name of the folder with its files.
        config: settings, as ``get_collection`` returns them.
        indexes: payload indexes by field.
    """

    folder: str
    config: models.CollectionConfig
    indexes: dict[str, models.PayloadIndexInfo] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listing:
    """All collections of a directory, and their aliases.

    Attributes:
        collections: entries by name.
        aliases: names of collections by alias.
    """

    collections: dict[str, Entry] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)


class Directory:
    """A directory of collections that this process alone writes to, until it is closed.

    Args:
        path: directory. It is created where there is none. A directory that holds something else
            is refused, and nothing is changed in it.

    Attributes:
        path: of the directory.

    Raises:
        QdrantConnectionError: the directory holds something else, cannot be used, or another
            process has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            require_ours(path)
            (path / SHARDS).mkdir(parents=True, exist_ok=True)
            lock = (path / LOCK).open("a", encoding="utf-8")
        except QdrantConnectionError:  # which is an OSError, too
            raise
        except OSError as error:
            reason = "it is a file" if path.is_file() else error
            raise QdrantConnectionError(
                f"The Qdrant directory {path} cannot be opened: {reason}. Expected a directory to "
                "write to."
            ) from error
        take(lock, path)
        self._lock: IO[str] | None = lock
        # A directory that nobody closed is let go when it is forgotten. At exit the system does so,
        # last of all; Python would warn of an open file.
        never_free(lock)
        weakref.finalize(self, lock.close).atexit = False

    def read(self) -> Listing:
        """Read the list of collections; make an empty list in a new directory.

        Folders that the list does not name are left where they are or set aside, and named in a
        warning of the log. Nothing is removed.

        Raises:
            QdrantConnectionError: the list cannot be read or written.
        """
        file = self.path / LISTING
        listing = _read(file)
        if listing is None:
            listing = Listing()
            try:
                self.write(listing)
            except OSError as error:
                raise QdrantConnectionError(
                    f"{file} cannot be written: {error}. Is the disk full?"
                ) from error
        self._set_aside_unlisted(listing)
        return listing

    def write(self, listing: Listing) -> None:
        """Write the list of collections, whole or not at all."""
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

    def new_folder(self, collection: str) -> Path:
        """Make and mark the folder of a new collection. Its name is never chosen by a caller."""
        folder = self.path / SHARDS / uuid.uuid4().hex
        folder.mkdir()
        try:
            (folder / MARK).write_text(collection, encoding="utf-8")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # without a mark it would stay for ever
            raise
        return folder

    def folder(self, entry: Entry) -> Path:
        """Return the folder of a collection's files."""
        return self.path / SHARDS / entry.folder

    def remove(self, folder: Path) -> None:
        """Remove the folder of a collection, if this engine made it."""
        if _is_ours(folder):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            logger.warning("%s was not made by the embedded Qdrant, and is left there", folder)

    def set_aside(self, folder: Path) -> Path:
        """Move a collection's folder to where nothing reads it; return where it is now."""
        place = self.path / ASIDE
        place.mkdir(exist_ok=True)
        moved = place / folder.name
        folder.rename(moved)
        return moved

    def close(self) -> None:
        """Let other processes open the directory, those forked from this one too."""
        if self._lock is not None:
            import portalocker

            # Closing alone does not do it while a forked process has the file open.
            portalocker.unlock(self._lock)
            self._lock.close()
            self._lock = None

    def let_go(self) -> None:
        """Close all files of the directory in a process that was forked with them open."""
        if self._lock is not None:
            self._lock.close()  # the lock stays with the other process
            self._lock = None
        close_files(self.path)

    def _set_aside_unlisted(self, listing: Listing) -> None:
        named = {entry.folder for entry in listing.collections.values()}
        for folder in (self.path / SHARDS).iterdir():
            if folder.name in named:
                continue
            if not _is_ours(folder):
                logger.warning("%s is none of the embedded Qdrant's folders; left there", folder)
                continue
            try:
                moved = self.set_aside(folder)
            except OSError as error:
                logger.warning("%s is not in %s, and stays there: %s", folder, LISTING, error)
            else:
                mark = moved / MARK
                logger.warning(
                    "%s of the collection %r is not in %s and was moved to %s. A killed process "
                    "left it, or the list is older than it. Remove it if no collection is missing.",
                    folder,
                    mark.read_text("utf-8") if mark.is_file() else "(unknown)",
                    LISTING,
                    moved,
                )


def require_ours(path: Path) -> None:
    """Raise QdrantConnectionError for a directory with files of others; change nothing in it."""
    if not path.is_dir() or _read(path / LISTING) is not None:
        return
    there = sorted(one.name for one in path.iterdir() if one.name not in HARMLESS)
    shards = path / SHARDS
    if there == [SHARDS] and shards.is_dir():
        there = [f"{SHARDS}/{one.name}" for one in sorted(shards.iterdir())]
    if there:
        raise QdrantConnectionError(
            f"{path} is no directory of the embedded Qdrant: it has no {LISTING}, but it has "
            f"{', '.join(there[:3])}{' and more' if len(there) > 3 else ''}. Nothing was changed. "
            f"Use an empty or a new directory, or restore {LISTING}."
        )


def _read(file: Path) -> Listing | None:
    """Return the list of collections that a file holds; None if there is no such file.

    Raises:
        QdrantConnectionError: it holds something else.
    """
    try:
        content = parse_json(file.read_text("utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format is {content['format']!r:.80}; expected {FORMAT}")
        listing = Listing(
            {name: _entry(found) for name, found in content["collections"].items()},
            dict(content["aliases"]),
        )
        _require_consistent(listing)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        missing = f"{error} is missing" if isinstance(error, KeyError) else one_line(str(error))
        raise QdrantConnectionError(
            f"{file} cannot be read: {missing}. It should list the collections of the embedded "
            "Qdrant. Nothing was changed. Restore it, or use another directory."
        ) from error
    return listing


def _is_ours(folder: Path) -> bool:
    """Return whether this engine made a folder of a collection."""
    return (
        FOLDER_NAME.fullmatch(folder.name) is not None
        and not folder.is_symlink()
        # The second is in the folders of version 0.1, which had no mark.
        and ((folder / MARK).is_file() or (folder / "edge_config.json").is_file())
    )


def _require_consistent(listing: Listing) -> None:
    """Raise ValueError for a list that the engine cannot have written."""
    folders = [entry.folder for entry in listing.collections.values()]
    for folder in folders:
        if not isinstance(folder, str) or FOLDER_NAME.fullmatch(folder) is None:
            raise ValueError(f"a folder is {folder!r}; expected 32 hexadecimal digits")
        if folders.count(folder) > 1:
            raise ValueError(f"two collections have the folder {folder!r}; expected one each")
    for alias, name in listing.aliases.items():
        if name not in listing.collections:
            raise ValueError(f"the alias {alias!r} stands for {name!r}, which is no collection")


def _entry(found: dict[str, Any]) -> Entry:
    return Entry(
        folder=found["folder"],
        config=models.CollectionConfig.model_validate(found["config"]),
        indexes={
            key: models.PayloadIndexInfo.model_validate(info)
            for key, info in found["indexes"].items()
        },
    )
