"""The hub's cache on this disk: where it keeps a repository, and our notes on it.

The layout is huggingface_hub's own, so other tools find our files, and we find theirs. A folder
``qdrant-rerank`` in a repository's folder holds our notes: the listing of each commit that was
fetched (names, sizes, digests), and which files were found whole. Nothing here uses the network.
"""

import json
import logging
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from qdrant_rerank.errors import InvalidInputError, UnknownModelError
from qdrant_rerank.hub.integrity import Digest, Verified, is_hex, stays_inside
from qdrant_rerank.utils.atomic_files import write_whole
from qdrant_rerank.utils.validation import as_path

__all__ = [
    "CachedRepository",
    "Listing",
    "artifact_directory",
    "cache_directory",
    "cached_repository",
    "expanded",
    "is_commit",
    "is_offline",
    "is_repository",
]

logger = logging.getLogger(__name__)

# "owner/name", or "name" as some old repositories have it.
REPOSITORY = re.compile(r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", re.ASCII)
#: Ref that remembers the commit of the default branch; other tools do not move it.
OWN_REF = "qdrant-rerank"


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a repository at one commit.

    Attributes:
        files: relative path -> what the hub reports about the file.
        license: identifier, or "" if unknown.

    Raises:
        ValueError: a path leads out of the repository.
    """

    files: Mapping[str, Digest] = field(default_factory=dict)
    license: str = ""

    def __post_init__(self) -> None:
        if outside := [name for name in self.files if "\\" in name or not stays_inside(name)]:
            raise ValueError(f"a file is named {outside[0]!r:.80}; expected a path inside it")


@dataclass(frozen=True, slots=True)
class CachedRepository:
    """A hub repository's place in a cache directory, which may be empty.

    Attributes:
        name: "owner/name".
        cache: the cache directory.

    Raises:
        UnknownModelError: no repository can have this name.
    """

    name: str
    cache: Path

    def __post_init__(self) -> None:
        if not is_repository(self.name):
            raise UnknownModelError(
                f"{self.name!r} is not a path that exists, and not the name of a hub repository; "
                "expected 'owner/name'."
            )

    @property
    def folder(self) -> Path:
        """Folder of all files of the repository."""
        return self.cache / f"models--{self.name.replace('/', '--')}"

    @property
    def blob_folders(self) -> tuple[Path, Path]:
        """Folders that the links of a snapshot may lead to."""
        return self.folder / "blobs", self.cache / "blobs"

    def snapshot(self, commit: str) -> Path:
        """Return the directory of a commit's files."""
        return self.folder / "snapshots" / commit

    def remembered(self, revision: str | None) -> str | None:
        """Return the commit that a branch or tag stood for when it was last fetched, or None.

        Args:
            revision: None for the default branch.
        """
        for ref in (revision,) if revision else (OWN_REF, "main"):
            with suppress(OSError, UnicodeDecodeError):
                commit = (self.folder / "refs" / ref).read_text(encoding="utf-8").strip()
                if is_commit(commit):
                    return commit
        return None

    def remember(self, revision: str | None, commit: str) -> None:
        """Remember which commit a branch or tag stands for."""
        write_whole(self.folder / "refs" / (revision or OWN_REF), commit)

    def listing(self, commit: str) -> Listing | None:
        """Return the listing of a commit that was fetched, or None."""
        kept = _read_json(self._notes / f"{commit}.json")
        try:
            files = {name: Digest(**digest) for name, digest in kept["files"].items()}
            return Listing(files=files, license=str(kept["license"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def keep_listing(self, commit: str, listing: Listing) -> None:
        """Remember the listing of a commit."""
        write_whole(self._notes / f"{commit}.json", json.dumps(asdict(listing)))

    def verified(self) -> Verified:
        """Return which files were found whole; a read-only cache learns no new ones."""
        path = self._notes / "verified.json"

        def save(known: dict[str, list[int | str]]) -> None:
            with suppress(OSError):
                write_whole(path, json.dumps(known))

        return Verified(_read_json(path), save)

    def hard_linked(self, commit: str, model: Path, data: Sequence[Path]) -> Path:
        """Put an ONNX file of a snapshot and its external data into one folder, as hard links.

        onnxruntime 1.24 refuses external data whose link leads out of the model's directory, as
        all links of a snapshot do (https://github.com/microsoft/onnxruntime/issues/27353); 1.25
        allows it only if both links lead to one directory, which is not so for shared blobs.

        Returns:
            The linked ONNX file; the given one if the cache is read-only or has no hard links.
        """
        root = self.snapshot(commit)
        try:
            for path in (model, *data):
                link, target = self._notes / commit / path.relative_to(root), path.resolve()
                link.parent.mkdir(parents=True, exist_ok=True)
                if not (link.exists() and link.samefile(target)):
                    made = link.with_name(f".{secrets.token_hex(8)}")  # others may make one, too
                    made.hardlink_to(target)
                    made.replace(link)
                    made.unlink(missing_ok=True)
        except OSError as error:
            logger.info("%s: no hard links (%s)", self._notes, error)
            return model
        return self._notes / commit / model.relative_to(root)

    def names(self, commit: str) -> list[str]:
        """Return the files of a commit that are in the cache."""
        root = self.snapshot(commit)
        return [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]

    @property
    def _notes(self) -> Path:
        return self.folder / "qdrant-rerank"


def cached_repository(name: str, cache_dir: str | Path | None = None) -> CachedRepository:
    """Return a repository's place in the cache.

    That is fastembed's cache (``FASTEMBED_CACHE_PATH``) if the repository is there and not in ours,
    and the caller named no other cache.

    Raises:
        InvalidInputError: see :func:`cache_directory`.
    """
    fastembeds = os.environ.get("FASTEMBED_CACHE_PATH")
    if fastembeds and not _chosen(cache_dir):
        found = CachedRepository(name, expanded(fastembeds).absolute())
        with suppress(InvalidInputError):
            ours = CachedRepository(name, cache_directory())
            return found if found.folder.is_dir() and not ours.folder.is_dir() else ours
        return found  # there is no home for a cache of ours
    return CachedRepository(name, cache_directory(cache_dir))


def cache_directory(cache_dir: str | Path | None = None) -> Path:
    """Return ``cache_dir``, else ``QDRANT_RERANK_CACHE``, else the hub's own cache.

    Raises:
        InvalidInputError: it is no path, or it starts with "~", and there is no home directory.
    """
    from huggingface_hub import constants

    chosen = _chosen(cache_dir)
    if not chosen and constants.HF_HUB_CACHE.startswith("~"):
        raise InvalidInputError(
            "There is no home directory to keep models in: HOME is not set, and the user has no "
            "passwd entry. Pass cache_dir=, or set QDRANT_RERANK_CACHE or HOME."
        )
    return expanded(chosen or constants.HF_HUB_CACHE).absolute()


def artifact_directory(cache_dir: str | Path | None = None) -> Path:
    """Return the folder in that cache for files made of models, such as quantised ones.

    Without a home directory, it is a folder that cannot be written: nothing is kept.

    Raises:
        InvalidInputError: ``cache_dir`` is no path, or starts with a "~" that stands for none.
    """
    try:
        return cache_directory(cache_dir) / "qdrant-rerank"
    except InvalidInputError:
        if cache_dir not in (None, ""):
            raise
        return Path(os.devnull, "qdrant-rerank")


def _chosen(cache_dir: str | Path | None) -> Path | str | None:
    if cache_dir not in (None, ""):
        return as_path("cache_dir", cache_dir)
    return os.environ.get("QDRANT_RERANK_CACHE")


def expanded(path: str | Path) -> Path:
    """Return a path with the home directory in the place of "~".

    Raises:
        InvalidInputError: there is no such home directory.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InvalidInputError(
            f"The home directory in {str(path)!r} is not known: HOME is not set, or there is no "
            "such user. Pass the path without '~'."
        ) from error


def is_offline() -> bool:
    """Return whether ``HF_HUB_OFFLINE`` forbids requests."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def is_repository(name: str) -> bool:
    """Return whether the hub allows a name for a repository."""
    return REPOSITORY.fullmatch(name) is not None and ".." not in name


def is_commit(revision: str | None) -> TypeGuard[str]:
    """Return whether a revision is a full commit hash, which never moves."""
    return is_hex(revision, 40)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # absent or damaged: it can be made again
        return {}
    return content if isinstance(content, dict) else {}
