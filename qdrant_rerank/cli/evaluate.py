"""``qdrant-rerank eval``: measure rerankers on judged queries."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qdrant_rerank.cli.datasets import (
    Data,
    Given,
    data_options,
    read_data,
    searchers_for,
    show,
    show_sets,
)
from qdrant_rerank.cli.options import json_option, model
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.specs import DEFAULT_RERANKER

if TYPE_CHECKING:
    from qdrant_rerank.evaluation.evaluation_result import Evaluation

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
@click.option(
    "--baseline",
    is_flag=True,
    help="Also measure BM25, and the bi-encoder inside a bundled reranker.",
)
@json_option
def evaluate(
    given: Given,
    run_file: str | None,
    rerankers: tuple[str, ...],
    candidates: int,
    measures: tuple[str, ...],
    baseline: bool,
    as_json: bool,
) -> None:
    """Measure what reranking gains and costs, on judged queries.

    The documents of --corpus are indexed in memory (BM25 and the static embedder, fused) and
    searched. With --run the candidates of that file are reranked instead; with --collection that
    collection is searched. With --corpus several times, each set is measured, and p-values are
    corrected for their number.
    """
    from qdrant_rerank.evaluation.metrics import require_metrics
    from qdrant_rerank.evaluation.sets import EvaluatedSets

    require_metrics(measures)
    sets = _sets(given, run_file)
    everything = [(name, one, read_data(one, run_file)) for name, one in sets]
    named = {name: model(name) for name in dict.fromkeys(rerankers)}
    found = {
        name: _measured(one, data, named, candidates, measures, baseline)
        for name, one, data in everything
    }
    if len(found) == 1:
        [(_, one, _)] = everything
        show(next(iter(found.values())), one, as_json)
        return
    for name, one, _ in everything:
        if one.out is not None:
            found[name].save(one.out)
    show_sets(EvaluatedSets(found), as_json)


def _sets(given: Given, run_file: str | None) -> list[tuple[str, Given]]:
    """Return the name and the options of each set.

    Raises:
        InvalidInputError: several corpora come with a file or a collection of one set.
    """
    if len(given.corpora) < 2:
        return [(given.corpus or "", given)]
    of_one = {
        "--run": run_file,
        "--queries": given.queries_file,
        "--qrels": given.qrels_file,
        "--collection": given.collection,
    }
    if named := [option for option, value in of_one.items() if value is not None]:
        raise InvalidInputError(
            f"{named[0]} is of one set, and --corpus is given {len(given.corpora)} times; expected "
            "BEIR folders with queries and qrels of their own."
        )
    names = [Path(corpus).name for corpus in given.corpora]
    if len(set(names)) < len(names):
        names = list(given.corpora)
    if len(set(names)) < len(names):
        raise InvalidInputError("The same --corpus is given twice; expected each set once.")
    return [
        (
            name,
            replace(
                given,
                corpora=(corpus,),
                out=None
                if given.out is None
                else str(Path(given.out) / f"{number:02}-{Path(corpus).name}"),
            ),
        )
        for number, (name, corpus) in enumerate(zip(names, given.corpora, strict=True), start=1)
    ]


def _measured(
    given: Given,
    data: Data,
    named: Mapping[str, str | None],
    candidates: int,
    measures: Sequence[str],
    baseline: bool,
) -> "Evaluation":
    from qdrant_rerank.evaluation.corpus import read_corpus
    from qdrant_rerank.evaluation.evaluate import evaluate as evaluate_searchers
    from qdrant_rerank.evaluation.evaluate import evaluate_run

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
            baseline=baseline,
            language=given.language or "english",
            ranked=data.ranked,
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
                baseline=baseline,
            )
    return replace(evaluation, arguments={**data.files, **evaluation.arguments})
