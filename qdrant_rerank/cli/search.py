"""``qdrant-rerank search``: search a collection."""

from typing import TYPE_CHECKING

import click

from qdrant_rerank.cli.options import (
    ONE_OR_MORE,
    Source,
    json_option,
    require_candidates,
    reranker_option,
    source_options,
)
from qdrant_rerank.cli.output import opening, print_json, print_table
from qdrant_rerank.cli.searchers import searcher_for
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.json_object import parse_json
from qdrant_rerank.utils.rendering import Column, Table
from qdrant_rerank.utils.validation import a_type

if TYPE_CHECKING:
    from qdrant_client.models import Filter

__all__ = ["search"]

FILTER = '{"must": [{"key": "year", "range": {"gte": 2010}}]}'


@click.command()
@click.argument("query")
@source_options
@reranker_option("a path, or 'none' for the order of the first stage")
@click.option("--limit", type=ONE_OR_MORE, default=10, show_default=True, help="Hits to print.")
@click.option(
    "--candidates", type=ONE_OR_MORE, default=100, show_default=True, help="Hits to rerank."
)
@click.option(
    "--filter",
    "query_filter",
    metavar="JSON",
    help=f"Which points to consider, such as {FILTER}.",
)
@json_option
def search(
    query: str,
    source: Source,
    reranker: str,
    limit: int,
    candidates: int,
    query_filter: str | None,
    as_json: bool,
) -> None:
    """Search a collection and rerank the hits.

    QUERY is a text, or the UUID of a point, for points like it. In the table, "was" is the rank of
    a hit before reranking, and "recall" its score there.

    Exit code 1 if none of the hits has text, so that they are not reranked; 2 on bad input.
    """
    require_candidates(candidates, limit)
    points = None if query_filter is None else parsed_filter(query_filter)
    with searcher_for(source, reranker) as searcher:
        results = searcher.search(query, limit=limit, candidates=candidates, query_filter=points)
    if as_json:
        print_json(results.to_dicts())
        raise SystemExit(int(results.trace.status == "no text"))
    rows = [
        (
            str(rank),
            str(hit.retrieval_rank),
            "" if hit.rerank_score is None else f"{hit.rerank_score:.3f}",
            f"{hit.retrieval_score:.3f}",
            str(hit.id),
            opening(searcher.text(hit.payload)),
        )
        for rank, hit in enumerate(results, start=1)
    ]
    print_table(Table(("#", "was", "score", "recall", Column("id"), Column("text")), rows))
    raise SystemExit(int(results.trace.status == "no text"))


def parsed_filter(given: str) -> "Filter | None":
    """Return a filter that was given as JSON.

    Raises:
        InvalidInputError: it is not JSON, or not a filter.
    """
    from qdrant_rerank.qdrant.recall_request import read_filter

    expected = "expected a filter as JSON, such as " + FILTER
    try:
        parsed = parse_json(given)
    except ValueError as error:
        raise InvalidInputError(f"--filter is not JSON ({error}); {expected}") from error
    if not isinstance(parsed, dict):
        raise InvalidInputError(f"--filter is {a_type(parsed)}; {expected}")
    return read_filter(parsed)
