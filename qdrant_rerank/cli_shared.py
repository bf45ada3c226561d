"""What the commands share: their options, how they read files, how they print and fail."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
from rich.text import Text

from qdrant_rerank.errors import InvalidInputError, QdrantRerankError
from qdrant_rerank.models import DEFAULT_EMBEDDER, DEFAULT_RERANKER

if TYPE_CHECKING:
    from qdrant_rerank.searcher import HybridSearcher

__all__ = [
    "BadInput",
    "Commands",
    "collection_options",
    "documents_of",
    "json_option",
    "open_lines",
    "print_json",
    "qdrant_place",
    "reranker_option",
    "searcher_for",
    "shortened",
    "text_option",
    "text_source",
]

LONGEST_CELL = 100  # characters of a text shown in a table


class BadInput(click.ClickException):
    """One line on stderr, exit code 2."""

    exit_code = 2


class Commands(click.Group):
    """Turns the package's errors into one line each."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # whoever reads the output has seen enough; click ends quietly
            raise
        except (QdrantRerankError, OSError) as error:
            notes = getattr(error, "__notes__", [])
            raise BadInput(" ".join(" ".join([str(error), *notes]).split())) from error


def collection_options(
    command: Callable[..., None], *, required: bool = True
) -> Callable[..., None]:
    """The options that say which collection, and how its texts are read."""
    for option in (
        click.option("--collection", required=required, help="Name of the collection."),
        click.option("--url", help="Qdrant server; else QDRANT_URL. Its key: QDRANT_API_KEY."),
        click.option("--path", help="Directory of an embedded Qdrant; else QDRANT_PATH."),
        text_option,
        click.option(
            "--embedder",
            default=DEFAULT_EMBEDDER,
            show_default=True,
            help="Dense encoder: a bundled or hub name, a directory, or 'none'.",
        ),
    ):
        command = option(command)
    return command


text_option = click.option(
    "--text",
    "text",
    multiple=True,
    default=("text",),
    show_default=True,
    help="Payload field with the text, or a template such as '{title} {body}'. May be repeated.",
)
reranker_option = click.option(
    "--reranker",
    default=DEFAULT_RERANKER,
    show_default=True,
    help="Cross-encoder: a name from 'models', or a path.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def qdrant_place(
    url: str | None, path: str | None, *, makes_one: bool = False
) -> tuple[str | None, str | None]:
    """URL or directory of the Qdrant to use: what is given, else what the environment says.

    Args:
        url: as given.
        path: as given.
        makes_one: whether the command makes an embedded Qdrant where there is none.

    Raises:
        InvalidInputError: both, neither, so that nothing would be kept, or a directory without a
            Qdrant in it.
    """
    from qdrant_rerank.engines.choice import holds_collections

    if url is not None and path is not None:
        raise InvalidInputError("--url and --path are both given; expected one of them.")
    if url is None and path is None:
        url = os.environ.get("QDRANT_URL") or None
        path = None if url else os.environ.get("QDRANT_PATH") or None
    if not (url or path):
        raise InvalidInputError(
            "No Qdrant to keep the collection in. Pass --path DIRECTORY for an embedded one or "
            "--url for a server, or set QDRANT_PATH or QDRANT_URL."
        )
    if path and not makes_one and not holds_collections(path):
        raise InvalidInputError(
            f"There is no Qdrant at {path}; expected a directory with collections. Check the path; "
            "'qdrant-rerank index' makes one."
        )
    return url, path


@contextmanager
def searcher_for(
    collection: str,
    url: str | None,
    path: str | None,
    text: Sequence[str],
    embedder: str,
    reranker: str | None,
    *,
    makes_one: bool = False,
) -> "Iterator[HybridSearcher]":
    """A searcher as the options say; its client is closed afterwards.

    Raises:
        InvalidInputError: see :func:`qdrant_place`.
    """
    from qdrant_rerank.connection import connect
    from qdrant_rerank.embedders import load_embedder
    from qdrant_rerank.searcher import HybridSearcher

    url, path = qdrant_place(url, path, makes_one=makes_one)
    if embedder != "none":
        load_embedder(embedder)  # kept; a wrong name makes no directory
    with closing(connect(url=url, path=path)) as client:
        yield HybridSearcher(
            collection,
            client=client,
            text=text_source(text),
            embedder=None if embedder == "none" else embedder,
            reranker=reranker,
        )


def text_source(text: Sequence[str]) -> str | list[str]:
    """One field or template, or several fields."""
    return text[0] if len(text) == 1 else list(text)


@contextmanager
def open_lines(file: str) -> Iterator[IO[bytes]]:
    """A file, or stdin for '-', as lines of bytes."""
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as opened:
            yield opened
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}.") from error


def documents_of(
    lines: Iterable[bytes], file: str, form: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, payload) of each line that is not blank.

    Raises:
        InvalidInputError: a line is not UTF-8 or not the JSON expected; the message starts with
            the file and the line number.
    """
    for number, raw in enumerate(lines, start=1):
        where = f"{'stdin' if file == '-' else file}, line {number}"
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
            f"{where} holds a {type(content).__name__}; expected a JSON object, or a string."
        )
    return content


def print_json(content: Any) -> None:
    """Print JSON on stdout."""
    click.echo(json.dumps(content, ensure_ascii=False, indent=2))


def shortened(text: str) -> Text:
    """One line of at most LONGEST_CELL characters, never read as markup."""
    line = " ".join(text.split())
    return Text(line if len(line) <= LONGEST_CELL else line[: LONGEST_CELL - 1] + "…")
