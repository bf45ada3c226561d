"""``qdrant-rerank tune``: find the configuration to use, on judged queries."""

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import click

from qdrant_rerank.cli.datasets import Given, data_options, read_data, searchers_for, show
from qdrant_rerank.cli.options import NONE, json_option
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.specs import DEFAULT_RERANKER

if TYPE_CHECKING:
    from qdrant_rerank.hub.precision import Precision
    from qdrant_rerank.options import Blend, Fusion

__all__ = ["tune"]


@click.command()
@data_options
@click.option(
    "--reranker",
    "rerankers",
    multiple=True,
    default=(DEFAULT_RERANKER,),
    show_default=True,
    help="A name from 'models', or a path. Repeatable, as are the next four options.",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    default=("auto",),
    show_default=True,
    help="Which file of each reranker, such as fp32 or int8.",
)
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    multiple=True,
    default=(10, 20, 50, 100),
    show_default=True,
    help="Hits to rerank.",
)
@click.option(
    "--blend",
    "blends",
    multiple=True,
    default=("0", "0.2", "0.5", "rrf"),
    show_default=True,
    help="Share of the retrieval score in the final score, 0 to 1, or 'rrf'.",
)
@click.option(
    "--fusion",
    "fusions",
    type=click.Choice(["rrf", "dbsf"]),
    multiple=True,
    default=("rrf", "dbsf"),
    show_default=True,
    help="How dense and sparse hits are fused.",
)
@click.option(
    "--measure",
    default="nDCG@10",
    show_default=True,
    help="Metric to optimise, by its name in ir-measures.",
)
@click.option("--max-ms", type=float, help="Most milliseconds per query of the chosen one.")
@json_option
def tune(
    given: Given,
    rerankers: tuple[str, ...],
    precisions: "tuple[Precision, ...]",
    candidates: tuple[int, ...],
    blends: tuple[str, ...],
    fusions: "tuple[Fusion, ...]",
    measure: str,
    max_ms: float | None,
    as_json: bool,
) -> None:
    """Find the best configuration, on judged queries.

    Tries all combinations of depth, model, precision, blend and fusion.

    Prints the Pareto front of quality against milliseconds, and the Python call that makes the best
    searcher. Each pair is scored once. One half of the queries chooses the best; the other half
    shows what to expect of it.
    """
    from qdrant_rerank.evaluation.metrics import require_metrics
    from qdrant_rerank.evaluation.tune import tune as tune_searcher
    from qdrant_rerank.hub.locate import locate

    require_metrics([measure])
    for name, precision in product(rerankers, precisions):
        locate(name, precision=precision)  # a wrong name costs no indexing
    data = read_data(given, None)
    with searchers_for(given, data, {NONE: None}) as searchers:
        found = tune_searcher(
            searchers[NONE],
            data.queries,
            data.qrels,
            rerankers=rerankers,
            precisions=precisions,
            candidates=candidates,
            blends=[_blend(value) for value in blends],
            fusions=fusions,
            measure=measure,
            max_ms=max_ms,
            id_field=given.id_field,
            ignore_identical_ids=given.ignore_identical_ids,
            seed=given.seed,
        )
    show(replace(found, arguments={**data.files, **found.arguments}), given, as_json)


def _blend(value: str) -> "Blend":
    try:
        return "rrf" if value == "rrf" else float(value)
    except ValueError as error:
        raise InvalidInputError(
            f"--blend is {value!r}; expected the retrieval score's share, 0 to 1, or 'rrf'."
        ) from error
