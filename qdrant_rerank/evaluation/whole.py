"""Files that are written whole or not at all: a temporary one, then a rename."""

import gzip
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO

from qdrant_rerank.errors import InvalidInputError

__all__ = ["whole_bytes", "whole_file"]


@contextmanager
def whole_file(path: str | Path) -> Iterator[IO[str]]:
    """A text file (gzipped if it ends in ``.gz``) that is written whole or not at all.

    It appears under its name when the block ends without an error.

    Raises:
        InvalidInputError: the path cannot be written.
    """
    path = Path(path)
    with whole_bytes(path) as raw:
        if path.suffix == ".gz":
            with gzip.open(raw, "wt", encoding="utf-8") as packed:
                yield packed
        else:
            with TextIOWrapper(raw, encoding="utf-8") as text:
                yield text


@contextmanager
def whole_bytes(path: str | Path) -> Iterator[IO[bytes]]:
    """The same for bytes.

    Raises:
        InvalidInputError: the path cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
        os.close(handle)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be written: {error.strerror}.") from error
    partial = Path(name)
    try:
        with partial.open("wb") as file:
            yield file
        partial.chmod(0o666 & ~_umask())  # mkstemp's own is for its owner alone
        partial.replace(path)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        partial.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
