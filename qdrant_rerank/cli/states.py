"""``qdrant-rerank states``: add the states of its documents to a collection."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from qdrant_rerank.cli.options import (
    NONE,
    ONE_OR_MORE,
    Source,
    json_option,
    reranker_option,
    source_options,
)
from qdrant_rerank.cli.output import counted, print_json, say
from qdrant_rerank.cli.searchers import searcher_for
from qdrant_rerank.errors import InvalidInputError

if TYPE_CHECKING:
    from qdrant_rerank.types import StatesPrecision

__all__ = ["states"]


@click.command()
@source_options
@reranker_option("or a path, of a model whose lower layers see each text alone")
@click.option(
    "--precision",
    type=click.Choice(["int8", "float16", "pq"]),
    help="Of the states; else as the collection records, or int8.",
)
@click.option(
    "--batch-size", type=ONE_OR_MORE, default=64, show_default=True, help="Documents per request."
)
@json_option
def states(
    source: Source,
    reranker: str,
    precision: "StatesPrecision | None",
    batch_size: int,
    as_json: bool,
) -> None:
    """Read the documents of a collection once, and store what the reranker needs of them.

    Searches with this reranker then read the query alone. Points that have current states are
    skipped, so the command goes on where it was interrupted, and does little when it is run again.
    The collection may be searched meanwhile; a document without states is read in the search.
    """
    if reranker == NONE:
        raise InvalidInputError("--reranker is none; expected the model that will rerank.")
    with searcher_for(source, reranker) as searcher:
        filled = searcher.fill_states(precision=precision, batch_size=batch_size)
    if as_json:
        print_json({"collection": source.collection, **asdict(filled)})
        return
    say(
        f"{counted(filled.made, 'document')} read, {filled.current:,} had current states; "
        f"{source.collection!r} holds {filled.points:,}"
        + (f", of which {filled.without_text:,} have no text." if filled.without_text else ".")
    )
