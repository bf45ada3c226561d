"""The ``qdrant-rerank`` command: demo, index, search, rerank, models.

Tables for people, ``--json`` for machines. Bad input ends with exit code 2 and one line on stderr.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qdrant_rerank._version import __version__
from qdrant_rerank.errors import InvalidInputError, QdrantRerankError
from qdrant_rerank.models import DEFAULT_EMBEDDER, DEFAULT_RERANKER

if TYPE_CHECKING:
    from qdrant_rerank.searcher import HybridSearcher

__all__ = ["main"]

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
        except (QdrantRerankError, OSError) as error:
            notes = getattr(error, "__notes__", [])
            raise BadInput(" ".join(" ".join([str(error), *notes]).split())) from error


def collection_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which collection, and how its texts are read."""
    for option in (
        click.option("--collection", required=True, help="Name of the collection."),
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


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="qdrant-rerank")
def main() -> None:
    """Put the right passage first: Qdrant recall, reranked by a cross-encoder."""


@main.command()
@click.argument("question", required=False)
def demo(question: str | None) -> None:
    """Search Python's own documentation, before and after reranking.

    With a QUESTION asks that one, else five.
    """
    from qdrant_rerank.demo import QUESTIONS, run_demo

    run_demo(Console(), [question] if question is not None else QUESTIONS)


@main.command()
@click.argument("file", type=click.Path(allow_dash=True))
@collection_options
@click.option("--batch-size", default=256, show_default=True, help="Documents a request.")
@json_option
def index(
    file: str,
    collection: str,
    url: str | None,
    path: str | None,
    text: tuple[str, ...],
    embedder: str,
    batch_size: int,
    as_json: bool,
) -> None:
    """Add the documents of a JSONL FILE ('-' for stdin) to a collection.

    A line is a JSON object (the payload) or a JSON string (the text). Ids are made from the texts,
    so indexing a file twice does not duplicate.
    """
    with (
        open_lines(file) as lines,
        searcher_for(collection, url, path, text, embedder, None) as searcher,
    ):
        added = searcher.add(
            (payload for _, payload in documents_of(lines, file, "jsonl")), batch_size=batch_size
        )
    if as_json:
        print_json({"collection": collection, "added": added})
    else:
        click.echo(f"{added:,} documents are in {collection!r}.")


@main.command()
@click.argument("query")
@collection_options
@reranker_option
@click.option("--limit", default=10, show_default=True, help="Hits to print.")
@click.option("--candidates", default=100, show_default=True, help="Hits to rerank.")
@json_option
def search(
    query: str,
    collection: str,
    url: str | None,
    path: str | None,
    text: tuple[str, ...],
    embedder: str,
    reranker: str,
    limit: int,
    candidates: int,
    as_json: bool,
) -> None:
    """Search a collection and rerank the hits."""
    with searcher_for(collection, url, path, text, embedder, reranker) as searcher:
        results = searcher.search(query, limit=limit, candidates=candidates)
        if as_json:
            print_json(results.to_dicts())
            return
        table = Table("#", "was", "score", "recall", "id", "text")
        for rank, point in enumerate(results, start=1):
            score = "" if point.rerank_score is None else f"{point.rerank_score:.3f}"
            table.add_row(
                str(rank),
                str(point.retrieval_rank),
                score,
                f"{point.retrieval_score:.3f}",
                Text(str(point.id)),
                shortened(searcher.text(point.payload) or ""),
            )
        Console().print(table)


@main.command("rerank")
@click.argument("query")
@click.argument("file", type=click.Path(allow_dash=True), default="-")
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "lines", "jsonl"]),
    default="auto",
    show_default=True,
    help="Of the documents; auto takes JSONL if the first line starts with '{'.",
)
@text_option
@reranker_option
@click.option("--limit", type=int, help="Documents to print; all by default.")
@json_option
def rerank_lines(
    query: str,
    file: str,
    form: str,
    text: tuple[str, ...],
    reranker: str,
    limit: int | None,
    as_json: bool,
) -> None:
    """Score documents, one a line of FILE (stdin by default), and print the best first."""
    from qdrant_client.models import ScoredPoint

    from qdrant_rerank.reranking import rerank_points
    from qdrant_rerank.text import PayloadText

    if form == "lines" and text != ("text",):
        raise InvalidInputError("--text is for JSONL; documents given as lines have no fields.")
    with open_lines(file) as lines:
        numbered = list(documents_of(lines, file, form))
    results = rerank_points(
        query,
        [ScoredPoint(id=at, version=0, score=0.0, payload=payload) for at, payload in numbered],
        reranker=reranker,
        text=text_source(text),
        limit=limit,
        on_missing_text="raise",
    )
    if as_json:
        print_json(
            [
                {"rank": rank, "line": hit.id, "score": hit.rerank_score, "document": hit.payload}
                for rank, hit in enumerate(results, start=1)
            ]
        )
        return
    table = Table("#", "line", "score", "text")
    read = PayloadText(text_source(text))
    for rank, hit in enumerate(results, start=1):
        table.add_row(
            str(rank), str(hit.id), f"{hit.rerank_score:.3f}", shortened(read(hit.payload) or "")
        )
    Console().print(table)


@main.command("models")
@json_option
def list_models(as_json: bool) -> None:
    """List the cross-encoders known by name."""
    from qdrant_rerank.cross_encoder import TextCrossEncoder

    listed = TextCrossEncoder.list_supported_models()
    if as_json:
        print_json(listed)
        return
    table = Table("model", "GB", "tokens", "license", "description")
    for item in listed:
        table.add_row(
            item["model"],
            f"{item['size_in_GB']:.2f}",
            str(item["max_length"] or ""),
            item["license"],
            item["description"],
        )
    Console().print(table)


@contextmanager
def searcher_for(
    collection: str,
    url: str | None,
    path: str | None,
    text: Sequence[str],
    embedder: str,
    reranker: str | None,
) -> "Iterator[HybridSearcher]":
    """A searcher as the options say; its client is closed afterwards.

    Raises:
        InvalidInputError: both a URL and a path, or neither, so that nothing would be kept.
    """
    from qdrant_rerank.connection import connect
    from qdrant_rerank.searcher import HybridSearcher

    if url is not None and path is not None:
        raise InvalidInputError("--url and --path are both given; expected one of them.")
    if not (url or path or os.environ.get("QDRANT_URL") or os.environ.get("QDRANT_PATH")):
        raise InvalidInputError(
            "No Qdrant to keep the collection in. Pass --path DIRECTORY for an embedded one or "
            "--url for a server, or set QDRANT_PATH or QDRANT_URL."
        )
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
    except json.JSONDecodeError as error:
        raise InvalidInputError(
            f"{where} is not JSON: {error.msg} at column {error.colno}. Expected one JSON object a "
            "line."
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
