"""A file -> numbered lines -> JSON objects or rows of columns, gzipped or not.

What is wrong with a line is said with the file and its number, before anyone reads its meaning.
"""

import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from qdrant_rerank.errors import InvalidInputError

__all__ = [
    "GZIP_MAGIC",
    "name_of",
    "numbered_lines",
    "open_lines",
    "records",
    "rows",
    "shown",
    "text_field",
    "where_in",
]

GZIP_MAGIC = b"\x1f\x8b"
LONGEST_SHOWN = 60  # characters of a foreign value in a message

GZIP_MAGIC = b"\x1f\x8b"


def where_in(path: Path, number: int) -> str:
    """The place that a message starts with."""
    return f"{path}, line {number}"


def shown(value: object) -> str:
    """A foreign value as it is shown in a message: on one line, and not for pages."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of each line that is not blank."""
    number = 0
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
        if path.suffix == ".gz" and not packed:
            raise InvalidInputError(
                f"{where_in(path, 1)}: the file is named .gz and is not gzipped. Rename it, or "
                "fetch it again."
            )
        with gzip.open(path) if packed else path.open("rb") as lines:
            for number, raw_line in enumerate(lines, start=1):
                line = _decoded(raw_line, path, number)
                if line.strip():
                    yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidInputError(
            f"{where_in(path, number + 1)}: the gzip data are damaged or cut short. Fetch the file "
            "again."
        ) from error
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}.") from error


def _decoded(raw: bytes, path: Path, number: int) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{where_in(path, number)} is not UTF-8 (byte {error.start + 1}). Convert the file to "
            "UTF-8."
        ) from error


def records(path: Path, what: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(line number, id, object) of each line of a JSONL file."""
    seen: set[str] = set()
    for number, line in numbered_lines(path):
        where = where_in(path, number)
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(
                f"{where} is not JSON: {error}. Expected one JSON object a line."
            ) from error
        if not isinstance(record, dict):
            raise InvalidInputError(
                f"{where} holds a {type(record).__name__}; expected a JSON object with _id and "
                "text."
            )
        identifier = record.get("_id")
        if isinstance(identifier, int) and not isinstance(identifier, bool):
            identifier = str(identifier)
        if not isinstance(identifier, str) or not identifier.strip() or _broken(identifier):
            raise InvalidInputError(
                f"{where} has the _id {shown(identifier)}; its fields are "
                f"{shown(list(record))}. Expected a text that is not empty, of whole characters, "
                "under '_id'."
            )
        if identifier in seen:
            raise InvalidInputError(
                f"{where}: the _id {shown(identifier)} stands on an earlier line already. Give "
                "each line its own, or remove one of the two."
            )
        seen.add(identifier)
        yield number, identifier, record
    if not seen:
        raise InvalidInputError(
            f"{where_in(path, 1)}: the file is empty; expected {what}, one JSON object a line."
        )


def _broken(text: str) -> bool:
    """Whether JSON's escapes left half of a character, which no file can hold."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def text_field(record: dict[str, Any], name: str, where: str, *, required: bool) -> str:
    """A field of an object; empty where it is missing and not required."""
    value = record.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise InvalidInputError(
            f"{where} has {shown(value)} as {name}; its fields are {shown(list(record))}. "
            f"Expected a text under {name!r}."
        )
    return value


def rows(
    path: Path, *, required: tuple[str, ...], trec: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, value by column) of each row, in whichever of the two formats it is."""
    columns: tuple[str, ...] | None = None
    separator: str | None = "\t"
    count = 0
    for number, line in numbered_lines(path):
        where = where_in(path, number)
        if columns is None:
            first = tuple(part.strip() for part in line.split("\t"))
            if set(first) & {"query-id", "corpus-id", *required}:
                if missing := [name for name in required if name not in first]:
                    raise InvalidInputError(
                        f"{where}: the header has the columns {', '.join(first)} and lacks "
                        f"{', '.join(missing)}. Name every column, separated by tabs: "
                        f"{', '.join(required)}."
                    )
                columns = first
                continue
            columns, separator = trec, None
        values = line.split(separator)
        if len(values) != len(columns):
            raise InvalidInputError(_miscounted(where, values, columns, required, trec))
        count += 1
        yield number, dict(zip(columns, (value.strip() for value in values), strict=True))
    if not count:
        raise InvalidInputError(
            f"{where_in(path, 1)}: the file is empty; expected rows of {', '.join(trec)}, or a "
            f"header with {', '.join(required)}."
        )


def _miscounted(
    where: str,
    values: list[str],
    columns: tuple[str, ...],
    required: tuple[str, ...],
    trec: tuple[str, ...],
) -> str:
    said = f"{where} has {len(values)} columns; expected {len(columns)}: {', '.join(columns)}."
    if columns is trec:
        return f"{said} A file with other columns starts with a header: {', '.join(required)}."
    return f"{said} Columns are separated by tabs."


def name_of(file: str) -> str:
    """What a file is called in messages."""
    return "stdin" if file == "-" else file


@contextmanager
def open_lines(file: str) -> Iterator[Iterable[bytes]]:
    """The lines of a file, gzipped or not, or of stdin for '-'.

    Raises:
        InvalidInputError: it cannot be opened.
    """
    if file == "-":
        yield sys.stdin.buffer
        return
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(Path(file).open("rb"))
        except OSError as error:
            raise InvalidInputError(f"{file} cannot be read: {error.strerror}.") from error
        yield _unpacked(opened, file) if opened.peek(2).startswith(GZIP_MAGIC) else opened


def _unpacked(packed: IO[bytes], file: str) -> Iterator[bytes]:
    number = 0
    try:
        with gzip.open(packed) as lines:
            for number, line in enumerate(lines, start=1):  # noqa: B007 - named below
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidInputError(
            f"{file}, line {number + 1}: the gzip data are damaged or cut short. Fetch the file "
            "again."
        ) from error
