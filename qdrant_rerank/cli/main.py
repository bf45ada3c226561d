"""The ``qdrant-rerank`` command: demo, index, search, rerank, models; and those that measure.

Tables for people, ``--json`` for machines. Bad input ends with exit code 2 and one line on stderr.
"""

import click
from rich.table import Table
from rich.text import Text

from qdrant_rerank._version import __version__
from qdrant_rerank.cli.compare import compare
from qdrant_rerank.cli.doctor import doctor
from qdrant_rerank.cli.evaluation import COMMANDS
from qdrant_rerank.cli.files import (
    documents_in,
    documents_of,
)
from qdrant_rerank.cli.models import models
from qdrant_rerank.cli.reindex import reindex
from qdrant_rerank.cli.shared import (
    Commands,
    collection_options,
    console,
    counted,
    documents_are,
    json_option,
    print_json,
    qdrant_place,
    reranker_option,
    searcher_for,
    shortened,
    text_option,
    text_source,
)
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.text_files import (
    name_of,
    open_lines,
)

__all__ = ["main"]


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
    from qdrant_rerank.cli.demo import QUESTIONS, run_demo

    run_demo(console(), [question] if question is not None else QUESTIONS)


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

    A line is a JSON object (the payload) or a JSON string (the text); the file may be gzipped. Ids
    are made from the texts, so indexing a file twice does not duplicate; with another --text the
    texts and ids are others, and copies are added.
    """
    from qdrant_rerank.qdrant.transport.driver import CallLimits, Driver

    qdrant_place(url, path, makes_one=True)  # before anything is read
    with (
        documents_in(file, text) as documents,
        searcher_for(collection, url, path, text, embedder, None, makes_one=True) as searcher,
    ):
        added = searcher.add(documents, batch_size=batch_size)
        talk = Driver(searcher.client, collection, CallLimits())
        holds = talk.ask(lambda client, timeout: client.count(collection)).count
    if as_json:
        print_json({"collection": collection, "added": added, "holds": holds})
    elif added == holds:
        click.echo(f"{documents_are(added)} in {collection!r}.")
    else:
        click.echo(f"{counted(added, 'document')} added; {collection!r} holds {holds:,}.")


@main.command()
@click.argument("query")
@collection_options
@reranker_option("a path, or 'none' for the recall order")
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
        console().print(table)


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
@reranker_option()
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

    from qdrant_rerank.payload import PayloadText
    from qdrant_rerank.reranking.rerank import rerank_points

    if form == "lines" and text != ("text",):
        raise InvalidInputError("--text is for JSONL; documents given as lines have no fields.")
    read = PayloadText(text_source(text))
    with open_lines(file) as lines:
        numbered = list(documents_of(lines, file, form))
    for at, payload in numbered:
        read.require(payload, f"{name_of(file)}, line {at}")
    results = rerank_points(
        query,
        [ScoredPoint(id=at, version=0, score=0.0, payload=payload) for at, payload in numbered],
        reranker=reranker,
        text=text_source(text),
        limit=limit,
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
    for rank, hit in enumerate(results, start=1):
        table.add_row(
            str(rank), str(hit.id), f"{hit.rerank_score:.3f}", shortened(read(hit.payload) or "")
        )
    console().print(table)


for command in (*COMMANDS, compare, doctor, models, reindex):
    main.add_command(command)
