"""Text files -> numbered lines -> JSON objects or rows of columns.

A file may be gzipped. Errors name the file and the line.
"""

import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.validation import as_path

__all__ = [
    "GZIP_MAGIC",
    "decoded_lines",
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
LONGEST_SHOWN = 60  # characters of a value in a message


def name_of(file: str | Path) -> str:
    """Return the name of a file in messages; '-' is stdin."""
    return "stdin" if file == "-" else str(file)


def where_in(file: str | Path, number: int) -> str:
    """Return the place that a message starts with: the file and the line."""
    return f"{name_of(file)}, line {number}"


def shown(value: object) -> str:
    """Return a value as a message shows it: on one line, and shortened."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


@contextmanager
def open_lines(file: str | Path) -> Iterator[Iterable[bytes]]:
    """Open the lines of a file, gzipped or not, or of stdin for '-'.

    Raises:
        InvalidInputError: the file cannot be read; or, while iterating, it is damaged.
    """
    if file == "-":
        yield sys.stdin.buffer
        return
    path = as_path("path", file)
    try:
        opened = path.open("rb")
    except OSError as error:
        raise _unreadable(file, error) from error
    with opened:
        yield _lines(opened, file)


def _lines(opened: BufferedReader, file: str | Path) -> Iterator[bytes]:
    number = 0
    try:
        packed = opened.peek(2).startswith(GZIP_MAGIC)
        if Path(file).suffix == ".gz" and not packed:
            raise InvalidInputError(
                f"{where_in(file, 1)}: the file is named .gz and is not gzipped. Rename it, or "
                "download it again."
            )
        with gzip.open(opened) if packed else opened as source:
            for number, line in enumerate(source, start=1):  # noqa: B007 - named below
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidInputError(
            f"{where_in(file, number + 1)}: the gzip data are damaged or cut short. Download the "
            "file again."
        ) from error
    except OSError as error:
        raise _unreadable(file, error) from error


def _unreadable(file: str | Path, error: OSError) -> InvalidInputError:
    return InvalidInputError(f"{file} cannot be read: {error.strerror}.")


def decoded_lines(lines: Iterable[bytes], file: str | Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line without its end) of each line, the blank ones too.

    Raises:
        InvalidInputError: a line is not UTF-8.
    """
    for number, raw in enumerate(lines, start=1):
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InvalidInputError(
                f"{where_in(file, number)} is not UTF-8 (byte {error.start + 1}). Convert the file "
                "to UTF-8."
            ) from error


def numbered_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line without its end) of each line that is not blank.

    Raises:
        InvalidInputError: the file cannot be read, is damaged, or is not UTF-8.
    """
    with open_lines(path) as lines:
        for number, line in decoded_lines(lines, path):
            if line.strip():
                yield number, line


def records(path: Path, what: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield (line number, id, object) of each line of a JSONL file.

    Raises:
        InvalidInputError: a line is not a JSON object with a unique id, or there is no line.
    """
    seen: set[str] = set()
    for number, line in numbered_lines(path):
        where = where_in(path, number)
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(
                f"{where} is not JSON: {error}. Expected one JSON object per line."
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
                f"{where} has the _id {shown(identifier)}; its fields are {shown(list(record))}. "
                "Expected under '_id' a text that is not empty and has no half of a surrogate pair."
            )
        if identifier in seen:
            raise InvalidInputError(
                f"{where}: the _id {shown(identifier)} is already on an earlier line. Give each "
                "line its own, or remove one of the two."
            )
        seen.add(identifier)
        yield number, identifier, record
    if not seen:
        raise InvalidInputError(
            f"{where_in(path, 1)}: the file is empty; expected {what}, one JSON object per line."
        )


def _broken(text: str) -> bool:
    """Return whether JSON's escapes left half of a surrogate pair, which no file can hold."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def text_field(record: dict[str, Any], name: str, where: str, *, required: bool) -> str:
    """Return a field of an object; "" if it is missing and not required.

    Raises:
        InvalidInputError: the field is not a text.
    """
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
    """Yield (line number, value by column) of each row of a table.

    Args:
        path: the file: tabs and a header, or TREC's columns, which white space separates.
        required: columns that a header must have.
        trec: the columns of a file without a header.

    Raises:
        InvalidInputError: a column is missing, or there is no row.
    """
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
            advice = (
                f"A file with other columns starts with a header: {', '.join(required)}."
                if columns is trec
                else "Columns are separated by tabs."
            )
            raise InvalidInputError(
                f"{where} has {len(values)} columns; expected {len(columns)}: "
                f"{', '.join(columns)}. {advice}"
            )
        count += 1
        yield number, dict(zip(columns, (value.strip() for value in values), strict=True))
    if not count:
        raise InvalidInputError(
            f"{where_in(path, 1)}: the file is empty; expected rows of {', '.join(trec)}, or a "
            f"header with {', '.join(required)}."
        )
