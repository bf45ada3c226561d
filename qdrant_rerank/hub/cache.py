"""Where the hub's cache keeps a repository on this disk, and what is remembered about it.

The layout is huggingface_hub's own, so what other tools fetched is found, and they find ours.
Beside it, in a folder ``qdrant-rerank``, lie the listing of each commit fetched (names, sizes,
digests) and which files have been found whole. Nothing here touches the network.
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
from typing import Any

from qdrant_rerank.hub.integrity import Digest, Verified
from qdrant_rerank.utils.atomic_files import write_whole

__all__ = [
    "CachedRepository",
    "Listing",
    "artifact_directory",
    "cache_directory",
    "is_commit",
    "is_offline",
]

logger = logging.getLogger(__name__)

#: The ref under which the commit of the default branch is remembered; other tools do not move it.
OWN_REF = "qdrant-rerank"


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a repository at one commit.

    Attributes:
        files: relative path -> what the hub reports of it.
        license: identifier, or "".
    """

    files: Mapping[str, Digest] = field(default_factory=dict)
    license: str = ""


@dataclass(frozen=True, slots=True)
class CachedRepository:
    """A hub repository in a cache directory, whether anything of it is there or not.

    Attributes:
        name: "owner/name".
        cache: the cache directory.
    """

    name: str
    cache: Path

    @property
    def folder(self) -> Path:
        """All that is kept of the repository."""
        return self.cache / f"models--{self.name.replace('/', '--')}"

    @property
    def blob_folders(self) -> tuple[Path, Path]:
        """Where the links of a snapshot may lead."""
        return self.folder / "blobs", self.cache / "blobs"

    def snapshot(self, commit: str) -> Path:
        """The directory of a commit's files."""
        return self.folder / "snapshots" / commit

    def remembered(self, revision: str | None) -> str | None:
        """The commit that a branch or tag stood for when last fetched.

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
        """Keep which commit a branch or tag stands for."""
        write_whole(self.folder / "refs" / (revision or OWN_REF), commit)

    def listing(self, commit: str) -> Listing | None:
        """The files of a commit, as the hub listed them when it was fetched."""
        kept = _read_json(self._notes / f"{commit}.json")
        try:
            files = {name: Digest(**digest) for name, digest in kept["files"].items()}
            return Listing(files=files, license=str(kept["license"]))
        except (KeyError, TypeError, AttributeError):
            return None

    def keep_listing(self, commit: str, listing: Listing) -> None:
        """Keep the files of a commit."""
        write_whole(self._notes / f"{commit}.json", json.dumps(asdict(listing)))

    def verified(self) -> Verified:
        """The files found whole; where the cache is read-only, this process alone remembers."""
        path = self._notes / "verified.json"

        def save(known: dict[str, list[int | str]]) -> None:
            with suppress(OSError):
                write_whole(path, json.dumps(known))

        return Verified(_read_json(path), save)

    def hard_linked(self, commit: str, model: Path, data: Sequence[Path]) -> Path:
        """An ONNX file of a snapshot with its external data really beside it, not through links.

        onnxruntime 1.24 refuses external data whose link leads out of the model's directory, as
        all links of a snapshot do (https://github.com/microsoft/onnxruntime/issues/27353); 1.25
        allows it only where both links lead to one directory, which those to the cache's shared
        blobs do not.

        Returns:
            The linked file; the given one where the cache is read-only or has no hard links.
        """
        root = self.snapshot(commit)
        try:
            for path in (model, *data):
                link, target = self._notes / commit / path.relative_to(root), path.resolve()
                link.parent.mkdir(parents=True, exist_ok=True)
                if not (link.exists() and link.samefile(target)):
                    made = link.with_name(f".{secrets.token_hex(8)}")  # others may do the same
                    made.hardlink_to(target)
                    made.replace(link)
                    made.unlink(missing_ok=True)
        except OSError as error:
            logger.info("%s: no hard links (%s)", self._notes, error)
            return model
        return self._notes / commit / model.relative_to(root)

    def names(self, commit: str) -> list[str]:
        """The files of a commit that are here."""
        root = self.snapshot(commit)
        return [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]

    @property
    def _notes(self) -> Path:
        return self.folder / "qdrant-rerank"


def cache_directory(cache_dir: str | Path | None = None) -> Path:
    """``cache_dir``, else ``QDRANT_RERANK_CACHE``, else the hub's own cache."""
    from huggingface_hub import constants

    chosen = cache_dir or os.environ.get("QDRANT_RERANK_CACHE") or constants.HF_HUB_CACHE
    return Path(chosen).expanduser().absolute()


def artifact_directory(cache_dir: str | Path | None = None) -> Path:
    """Where in that cache lies what is made of models, such as quantised ones."""
    return cache_directory(cache_dir) / "qdrant-rerank"


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids requests."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def is_commit(revision: str | None) -> bool:
    """Whether it is a full commit hash, which never moves, rather than a branch or tag."""
    return bool(revision and re.fullmatch("[0-9a-f]{40}", revision))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent, or of no use: it can be made again
        return {}
    return content if isinstance(content, dict) else {}
