"""What the commands share: their options, how they print, and how they warn and fail."""

import ast
import io
import json
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from qdrant_rerank.errors import InvalidInputError, QdrantRerankError
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER, DEFAULT_RERANKER

if TYPE_CHECKING:
    from qdrant_rerank.search.searcher import HybridSearcher

__all__ = [
    "NONE",
    "BadInput",
    "Commands",
    "collection_options",
    "console",
    "counted",
    "documents_are",
    "json_option",
    "print_json",
    "qdrant_place",
    "reranker_option",
    "searcher_for",
    "shortened",
    "text_option",
    "text_source",
]

LONGEST_CELL = 100  # characters of a text shown in a table
NONE = "none"  # in place of a model: the recall order, or no dense vectors
QUOTED = r"""(?:'[^']*'|"[^"]*")"""
PYTHON_TEXT = re.compile(f"Pass text=({QUOTED}(?: or {QUOTED})*)")
#: What differs between warnings of one kind: names, with the comma of a list, and numbers.
VARYING = re.compile(r"'[^']*'(, )?|\d+")


class BadInput(click.ClickException):
    """One line on stderr, exit code 2."""

    exit_code = 2


class Commands(click.Group):
    """Turns the package's errors and warnings into one line each."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # of a terminal that lacks a sign
        with warnings.catch_warnings():
            warnings.showwarning = _shown_once()
            try:
                return super().invoke(ctx)
            except BrokenPipeError:  # whoever reads the output has seen enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise SystemExit(0) from None
            except (QdrantRerankError, OSError) as error:
                notes = getattr(error, "__notes__", [])
                raise BadInput(_in_one_line(" ".join([str(error), *notes]))) from error


def _shown_once() -> Callable[..., None]:
    """A ``warnings.showwarning``: a line on stderr, once, whatever names and numbers are in it."""
    shown = set()

    def show(message: Warning | str, *where: Any) -> None:
        line = _in_one_line(str(message))
        kind = VARYING.sub("", line)
        if kind not in shown:
            shown.add(kind)
            click.echo(f"Warning: {line}", err=True)

    return show


def _in_one_line(message: str) -> str:
    """A message of the package with the option in place of the argument that it advises."""

    def option(found: re.Match[str]) -> str:
        fields = map(ast.literal_eval, re.findall(QUOTED, found[1]))
        return f"Pass --text {' or '.join(map(shlex.quote, fields))}"

    return PYTHON_TEXT.sub(option, " ".join(message.split()))


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the group, as with everything else that is printed."""
        raise BrokenPipeError


def console() -> Console:
    """What tables are printed on."""
    return _Output()


def counted(number: int, what: str) -> str:
    """The number with the noun: 1 document, 2 documents.

    >>> counted(1, "document"), counted(1200, "hit")
    ('1 document', '1,200 hits')
    """
    return f"{number:,} {what}{'s' * (number != 1)}"


def documents_are(number: int) -> str:
    """The number as the subject of a sentence: 1 document is, 2 documents are."""
    return f"{counted(number, 'document')} {'is' if number == 1 else 'are'}"


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
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def reranker_option(others: str = "or a path") -> Callable[[Callable[..., None]], Any]:
    """The option with the cross-encoder; ``others`` says what it takes besides a name."""
    return click.option(
        "--reranker",
        default=DEFAULT_RERANKER,
        show_default=True,
        help=f"Cross-encoder: a name from 'models', {others}.",
    )


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
    from qdrant_rerank.qdrant.embedded.choice import holds_collections

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
    from qdrant_rerank.embedders import load_embedder
    from qdrant_rerank.qdrant.transport.client import connect
    from qdrant_rerank.search.searcher import HybridSearcher

    url, path = qdrant_place(url, path, makes_one=makes_one)
    if embedder != NONE:
        load_embedder(embedder)  # kept; a wrong name makes no directory
    with closing(connect(url=url, path=path)) as client:
        yield HybridSearcher(
            collection,
            client=client,
            text=text_source(text),
            embedder=None if embedder == NONE else embedder,
            reranker=None if reranker == NONE else reranker,
        )


def text_source(text: Sequence[str]) -> str | list[str]:
    """One field or template, or several fields."""
    return text[0] if len(text) == 1 else list(text)


def print_json(content: Any) -> None:
    """Print JSON on stdout."""
    click.echo(json.dumps(content, ensure_ascii=False, indent=2))


def shortened(text: str) -> Text:
    """One line of at most LONGEST_CELL characters, never read as markup."""
    line = " ".join(text.split())
    return Text(line if len(line) <= LONGEST_CELL else line[: LONGEST_CELL - 1] + "…")
