"""Checks of published files: their names, and once their bytes, by size and digest."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from qdrant_rerank.errors import DamagedFileError

__all__ = ["Digest", "Verified", "check_file", "is_hex", "sha256_of", "stays_inside"]

READ_AT_ONCE = 1 << 20  # bytes
#: Path -> size, modification time in nanoseconds and digest of a file that was found whole.
Known = dict[str, list[int | str]]


@dataclass(frozen=True, slots=True)
class Digest:
    """Facts by which a file's contents are checked.

    Attributes:
        size: bytes; None if unknown.
        sha256: hex digest, which the hub reports for every file that it stores with LFS.
        git: hex SHA-1 of "blob SIZE", a zero byte and the contents, by which git names any other
            file.

    Raises:
        ValueError: a digest is not hex of the right length, or the size is not a whole number.
    """

    size: int | None = None
    sha256: str | None = None
    git: str | None = None

    def __post_init__(self) -> None:
        # Files are named by digests, and a hub may send anything.
        for name, digits in (("sha256", 64), ("git", 40)):
            if (value := getattr(self, name)) is not None and not is_hex(value, digits):
                raise ValueError(f"{name} is {value!r:.80}; expected {digits} hex digits")
        if self.size is not None and (type(self.size) is not int or self.size < 0):
            raise ValueError(f"size is {self.size!r:.80}; expected bytes")

    @classmethod
    def of_blob(cls, path: Path) -> "Digest":
        """Read the digest from the name of the blob that a link of the hub's cache leads to."""
        name = path.resolve().name
        if is_hex(name, 64):
            return cls(sha256=name)
        return cls(git=name) if is_hex(name, 40) else cls()

    @property
    def wanted(self) -> str | None:
        """Digest to compare with; None if only the size is known."""
        return self.sha256 or self.git


def is_hex(value: object, digits: int) -> bool:
    """Return whether a value is a str of this many lower-case hex digits."""
    return isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{digits}}}", value) is not None


def stays_inside(name: str) -> bool:
    """Return whether a relative path stays in its directory, by the rules of every system."""
    windows = PureWindowsPath(name)
    return not (
        not name
        or "\0" in name
        or windows.drive
        or windows.root
        or ".." in windows.parts
        or PurePosixPath(name).is_absolute()
    )


def check_file(path: Path, expected: Digest, *, name: str = "") -> None:
    """Read a file and compare it with what was published; ``name`` stands for it in errors.

    Raises:
        DamagedFileError: the file differs; the message has both sizes or digests.
    """
    size = path.stat().st_size
    name = name or str(path)
    if expected.size is not None and size != expected.size:
        raise DamagedFileError(
            f"{name} is damaged: it has {size:,} bytes, and {expected.size:,} were published."
        )
    if expected.wanted is None:
        return
    if expected.sha256:
        kind, found = "sha256", sha256_of(path)
    else:
        kind = "git sha1"
        # git's object id, https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
        prefix = f"blob {size}\0".encode()
        found = _hexdigest(path, hashlib.sha1(prefix, usedforsecurity=False))
    if found != expected.wanted:
        raise DamagedFileError(
            f"{name} is damaged: its {kind} is {found}, and {expected.wanted} was published."
        )


def sha256_of(path: Path) -> str:
    """Return the hex digest of a file's bytes."""
    return _hexdigest(path, hashlib.sha256())


class Verified:
    """A memory of the files that were found whole. A file that has changed is checked again.

    Args:
        known: the files that were found whole before.
        save: stores them; may do nothing if the cache is read-only.
    """

    def __init__(self, known: Known, save: Callable[[Known], None]) -> None:
        self._known = known
        self._save = save

    def check(self, files: Mapping[Path, Digest]) -> None:
        """Check each file that is not known to be whole.

        Args:
            files: path -> what was published.

        Raises:
            DamagedFileError: a file differs.
        """
        stale = {
            path: expected
            for path, expected in files.items()
            if self._known.get(str(path)) != _state(path, expected)
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
