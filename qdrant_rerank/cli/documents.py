"""The documents of a file or of stdin, one per line: texts or JSON."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

from qdrant_rerank.cli.options import text_source
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.text_files import name_of, open_lines
from qdrant_rerank.utils.validation import a_type

__all__ = [
    "documents_in",
    "documents_of",
]


@contextmanager
def documents_in(file: str, text: Sequence[str]) -> Iterator[Iterator[dict[str, Any]]]:
    """The payloads of a JSONL file, or of stdin for '-', each checked to have a text.

    Raises:
        InvalidInputError: the file holds none; and, when it is its turn, a line is not JSON, or
            has no text (MissingTextError).
    """
    from qdrant_rerank.payload import PayloadText

    read = PayloadText(text_source(text))

    def checked(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        for number, payload in documents_of(lines, file, "jsonl"):
            read.require(payload, f"{name_of(file)}, line {number}")
            yield payload

    with open_lines(file) as lines:
        payloads = checked(lines)
        first = next(payloads, None)
        if first is None:
            raise InvalidInputError(
                f"{name_of(file)} has no documents; expected one JSON object a line."
            )
        yield chain([first], payloads)


def documents_of(
    lines: Iterable[bytes], file: str, form: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, payload) of each line that is not blank.

    Raises:
        InvalidInputError: a line is not UTF-8 or not the JSON expected; the message starts with
            the file and the line number.
    """
    for number, raw in enumerate(lines, start=1):
        where = f"{name_of(file)}, line {number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise InvalidInputError(
                f"{where} is not UTF-8 (byte {error.start + 1}). Convert the file to UTF-8."
            ) from error
        if not line:
            continue
        if form == "auto":
            form = "jsonl" if line.startswith("{") else "lines"
        yield number, {"text": line} if form == "lines" else _payload(line, where)


def _payload(line: str, where: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:  # or a number of 5,000 digits, or a deep nest
        raise InvalidInputError(
            f"{where} is not JSON: {error}. Expected one JSON object a line."
        ) from error
    if isinstance(content, str):
        return {"text": content}
    if not isinstance(content, dict):
        raise InvalidInputError(
            f"{where} holds {a_type(content)}; expected a JSON object, or a string."
        )
    return content
