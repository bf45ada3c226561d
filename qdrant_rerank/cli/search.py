"""``qdrant-rerank search``: search a collection."""

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
from qdrant_rerank.utils.rendering import Column, Table

__all__ = ["search"]


@click.command()
@click.argument("query")
@source_options
@reranker_option("a path, or 'none' for the order of the first stage")
@click.option("--limit", type=ONE_OR_MORE, default=10, show_default=True, help="Hits to print.")
@click.option(
    "--candidates", type=ONE_OR_MORE, default=100, show_default=True, help="Hits to rerank."
)
@json_option
def search(
    query: str, source: Source, reranker: str, limit: int, candidates: int, as_json: bool
) -> None:
    """Search a collection and rerank the hits.

    In the table, "was" is the rank of a hit before reranking, and "recall" its score there.
    """
    require_candidates(candidates, limit)
    with searcher_for(source, reranker) as searcher:
        results = searcher.search(query, limit=limit, candidates=candidates)
    if as_json:
        print_json(results.to_dicts())
        return
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
