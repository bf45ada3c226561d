"""``qdrant-rerank eval``: measure rerankers on judged queries."""

from dataclasses import replace

import click

from qdrant_rerank.cli.datasets import Given, data_options, read_data, searchers_for, show
from qdrant_rerank.cli.options import json_option, model
from qdrant_rerank.hub.specs import DEFAULT_RERANKER

__all__ = ["evaluate"]


@click.command("eval")
@data_options
@click.option("--run", "run_file", help="Rerank these candidates, TREC or TSV; needs no Qdrant.")
@click.option(
    "--reranker",
    "rerankers",
    multiple=True,
    default=(DEFAULT_RERANKER,),
    show_default=True,
    help="A name from 'models', a path, or 'none'. Repeatable, to compare.",
)
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Hits to rerank.",
)
@click.option(
    "--measure",
    "measures",
    multiple=True,
    default=("nDCG@10", "RR", "AP"),
    show_default=True,
    help="Metric, by its name in ir-measures. Repeatable.",
)
@json_option
def evaluate(
    given: Given,
    run_file: str | None,
    rerankers: tuple[str, ...],
    candidates: int,
    measures: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure what reranking gains and costs, on judged queries.

    The documents of --corpus are indexed in memory (BM25 and the static embedder, fused) and
    searched. With --run the candidates of that file are reranked instead; with --collection that
    collection is searched.
    """
    from qdrant_rerank.evaluation.corpus import read_corpus
    from qdrant_rerank.evaluation.evaluate import evaluate as evaluate_searchers
    from qdrant_rerank.evaluation.evaluate import evaluate_run
    from qdrant_rerank.evaluation.metrics import require_metrics

    require_metrics(measures)
    data = read_data(given, run_file)
    named = {name: model(name) for name in dict.fromkeys(rerankers)}
    if data.run is not None and data.corpus is not None:
        wanted = {document for found in data.run.values() for document in found}
        evaluation = evaluate_run(
            data.run,
            read_corpus(data.corpus, only=wanted),
            data.queries,
            data.qrels,
            reranker=named,
            candidates=candidates,
            ignore_identical_ids=given.ignore_identical_ids,
            measures=measures,
            seed=given.seed,
        )
    else:
        with searchers_for(given, data, named) as searchers:
            evaluation = evaluate_searchers(
                searchers,
                data.queries,
                data.qrels,
                candidates=candidates,
                id_field=given.id_field,
                ignore_identical_ids=given.ignore_identical_ids,
                measures=measures,
                seed=given.seed,
            )
    show(replace(evaluation, arguments={**data.files, **evaluation.arguments}), given, as_json)
