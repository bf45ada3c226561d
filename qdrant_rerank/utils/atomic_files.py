"""Files that are written whole or not at all: under a temporary name first, then renamed."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from secrets import token_hex
from typing import IO

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.validation import as_path

__all__ = ["atomic_binary", "atomic_text", "write_whole"]


@contextmanager
def atomic_text(path: str | Path) -> Iterator[IO[str]]:
    """Open a text file (gzipped if it ends in ``.gz``) that is written whole or not at all.

    It gets its name when the block ends without an error.

    Raises:
        InvalidInputError: ``path`` is no path, or cannot be written.
    """
    path = as_path("path", path)
    with atomic_binary(path) as raw:
        if path.suffix == ".gz":
            with gzip.open(raw, "wt", encoding="utf-8") as packed:
                yield packed
        else:
            with TextIOWrapper(raw, encoding="utf-8") as text:
                yield text


@contextmanager
def atomic_binary(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a binary file that is written whole or not at all.

    Raises:
        InvalidInputError: ``path`` is no path, or cannot be written.
    """
    path = as_path("path", path)
    try:
        with _replacing(path) as file:
            yield file
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be written: {error.strerror}.") from error


def write_whole(path: Path, text: str) -> None:
    """Write a text file of this package, whole or not at all, in one call.

    Raises:
        OSError: the path cannot be written.
    """
    with _replacing(path) as file:
        file.write(text.encode())


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not by tempfile: only the owner can read its files, and caches are shared.
    partial = path.with_name(f".{token_hex(8)}.partial")
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
