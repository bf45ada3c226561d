"""``qdrant-rerank rerank``: rerank documents that come from no collection."""

import click

from qdrant_rerank.cli.documents import documents_of
from qdrant_rerank.cli.options import (
    AUTO,
    ONE_OR_MORE,
    json_option,
    reranker_option,
    text_option,
    text_source,
)
from qdrant_rerank.cli.output import opening, print_json, print_table
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.rendering import Column, Table
from qdrant_rerank.utils.text_files import name_of, where_in

__all__ = ["rerank"]


@click.command()
@click.argument("query")
@click.argument("file", type=click.Path(allow_dash=True), default="-")
@click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "lines", "jsonl"]),
    default="auto",
    show_default=True,
    help="Format of the documents; auto takes JSONL if the first line starts with '{'.",
)
@text_option
@reranker_option()
@click.option("--limit", type=ONE_OR_MORE, help="Documents to print; default: all.")
@json_option
def rerank(
    query: str,
    file: str,
    form: str,
    text: tuple[str, ...],
    reranker: str,
    limit: int | None,
    as_json: bool,
) -> None:
    """Rerank the documents of a FILE, or of stdin.

    FILE has one document per line: a text or JSON. Prints the best first.
    """
    from qdrant_client.models import ScoredPoint

    from qdrant_rerank.payload import TextChoice
    from qdrant_rerank.reranking.rerank import rerank_points

    if form == "lines" and text != (AUTO,):
        raise InvalidInputError("--text is for JSONL; documents given as lines have no fields.")
    choice = TextChoice(text_source(text))
    numbered = list(documents_of(file, form))
    if not numbered and as_json:
        print_json([])
        return
    if not numbered:
        raise InvalidInputError(
            f"{name_of(file)} has no documents to rerank; expected one per line."
        )
    read = choice.choose(payload for _, payload in numbered)
    for number, payload in numbered:
        read.require(payload, where_in(file, number))
    results = rerank_points(
        query,
        [ScoredPoint(id=n, version=0, score=0.0, payload=payload) for n, payload in numbered],
        reranker=reranker,
        text=read.source,
        limit=limit,
    )
    ranked = list(enumerate(results, start=1))
    if as_json:
        print_json(
            [
                {"rank": rank, "line": hit.id, "score": hit.rerank_score, "document": hit.payload}
                for rank, hit in ranked
            ]
        )
        return
    rows = [
        (str(rank), str(hit.id), f"{hit.rerank_score:.3f}", opening(read(hit.payload)))
        for rank, hit in ranked
    ]
    print_table(Table(("#", "line", "score", Column("text")), rows))
