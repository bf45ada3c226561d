"""The documents of a file or of stdin, one per line: texts or JSON."""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from typing import Any

from qdrant_rerank.cli.options import text_source
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.text_files import name_of, numbered_lines, where_in
from qdrant_rerank.utils.validation import a_type

__all__ = [
    "documents_in",
    "documents_of",
]


@contextmanager
def documents_in(file: str, text: Sequence[str]) -> Iterator[Iterator[dict[str, Any]]]:
    """Open the payloads of a JSONL file, or of stdin for '-'; each has a text.

    Raises:
        InvalidInputError: there are no documents; or, while iterating, a line is not JSON.
        MissingTextError: while iterating, a document has no text.
    """
    from qdrant_rerank.payload import TextChoice

    read = TextChoice(text_source(text)).text  # of "auto", any text: ``add`` knows where it must be

    def checked() -> Generator[dict[str, Any], None, None]:
        for number, payload in documents_of(file, "jsonl"):
            read.require(payload, where_in(file, number))
            yield payload

    with closing(checked()) as payloads:
        first = next(payloads, None)
        if first is None:
            raise InvalidInputError(
                f"{name_of(file)} has no documents; expected one JSON object per line."
            )
        yield chain([first], payloads)


def documents_of(file: str, form: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, payload) of each line that is not blank.

    Args:
        file: a file, gzipped or not, or '-' for stdin.
        form: "lines", "jsonl", or "auto", which the first line decides.

    Raises:
        InvalidInputError: the file cannot be read, or a line is not the JSON expected.
    """
    for number, line in numbered_lines(file):
        if form == "auto":
            form = "jsonl" if line.lstrip().startswith("{") else "lines"
        if form == "lines":
            yield number, {"text": line.strip()}
        else:
            yield number, _payload(line, where_in(file, number))


def _payload(line: str, where: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:  # or a number of 5,000 digits, or too deep
        raise InvalidInputError(
            f"{where} is not JSON: {error}. Expected one JSON object per line."
        ) from error
    if isinstance(content, str):
        return {"text": content}
    if not isinstance(content, dict):
        raise InvalidInputError(
            f"{where} holds {a_type(content)}; expected a JSON object, or a string."
        )
    return content
