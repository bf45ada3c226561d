"""Are a file's bytes those that were published? Sizes and digests, checked once and remembered."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qdrant_rerank.errors import DamagedFileError

__all__ = ["Digest", "Verified", "check_file"]

READ_AT_ONCE = 1 << 20  # bytes
#: Path -> size, mtime in nanoseconds and digest of a file found whole.
Known = dict[str, list[int | str]]


@dataclass(frozen=True, slots=True)
class Digest:
    """What is known of a file's contents.

    Attributes:
        size: in bytes.
        sha256: hex digest, which the hub reports of every file that it stores with LFS.
        git: hex SHA-1 of "blob SIZE", a zero byte and the contents: git's name of any other file.
    """

    size: int | None = None
    sha256: str | None = None
    git: str | None = None

    @classmethod
    def of_blob(cls, path: Path) -> "Digest":
        """What the hub cache tells by the name of the blob that a link leads to."""
        name = path.resolve().name
        if re.fullmatch("[0-9a-f]{64}", name):
            return cls(sha256=name)
        return cls(git=name) if re.fullmatch("[0-9a-f]{40}", name) else cls()

    @property
    def wanted(self) -> str | None:
        """The digest to compare with; None where only the size is known."""
        return self.sha256 or self.git


def check_file(path: Path, expected: Digest) -> None:
    """Read a file and compare it with what was published.

    Raises:
        DamagedFileError: it differs; the message has both digests.
    """
    size = path.stat().st_size
    if expected.size is not None and size != expected.size:
        raise DamagedFileError(
            f"{path} is damaged: it has {size:,} bytes, and {expected.size:,} were published."
        )
    if expected.wanted is None:
        return
    if expected.sha256:
        name, found = "sha256", _hexdigest(path, hashlib.sha256())
    else:
        name = "git sha1"
        # git's object id, https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
        prefix = f"blob {size}\0".encode()
        found = _hexdigest(path, hashlib.sha1(prefix, usedforsecurity=False))
    if found != expected.wanted:
        raise DamagedFileError(
            f"{path} is damaged: its {name} is {found}, and {expected.wanted} was published."
        )


class Verified:
    """Files found whole before. A file that has changed since is checked again.

    Args:
        known: path -> size, mtime in nanoseconds, digest; as kept.
        save: keeps it; may do nothing where the cache is read-only.
    """

    def __init__(self, known: Known, save: Callable[[Known], None]) -> None:
        self._known = known
        self._save = save

    def check(self, files: dict[Path, Digest], *, again: bool = False) -> None:
        """Check each file that is not known to be whole.

        Args:
            files: path -> what was published.
            again: check those known, too.

        Raises:
            DamagedFileError: a file differs.
        """
        stale = {
            path: expected
            for path, expected in files.items()
            if again or self._known.get(str(path)) != _state(path, expected)
        }
        for path, expected in stale.items():
            self._known.pop(str(path), None)
            check_file(path, expected)
            self._known[str(path)] = _state(path, expected)
        if stale:
            self._save(self._known)


def _state(path: Path, expected: Digest) -> list[int | str]:
    about = path.stat()
    return [about.st_size, about.st_mtime_ns, expected.wanted or ""]


def _hexdigest(path: Path, digest: "hashlib._Hash") -> str:
    with path.open("rb") as file:
        while chunk := file.read(READ_AT_ONCE):
            digest.update(chunk)
    return digest.hexdigest()
