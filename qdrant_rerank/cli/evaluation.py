"""The commands that measure: eval and tune."""

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import click

from qdrant_rerank.cli.datasets import Given, data_options, read_data, searchers_for
from qdrant_rerank.cli.shared import NONE, console, json_option, print_json
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.specs import DEFAULT_RERANKER

if TYPE_CHECKING:
    from qdrant_rerank.evaluation.evaluation_result import Evaluation
    from qdrant_rerank.evaluation.tuning_result import Tuning
    from qdrant_rerank.hub.precision import Precision
    from qdrant_rerank.options import Blend, Fusion

__all__ = ["COMMANDS"]


@click.command("eval")
@data_options
@click.option("--run", "run_file", help="Rerank these candidates, TREC or TSV; no Qdrant needed.")
@click.option(
    "--reranker",
    "rerankers",
    multiple=True,
    default=(DEFAULT_RERANKER,),
    show_default=True,
    help="A name from 'models', a path, or 'none'. May be repeated, to compare.",
)
@click.option(
    "--candidates", type=click.IntRange(min=1), default=100, show_default=True, help="To rerank."
)
@click.option(
    "--measure",
    "measures",
    multiple=True,
    default=("nDCG@10", "RR", "AP"),
    show_default=True,
    help="A name of ir-measures. May be repeated.",
)
@json_option
def evaluate_command(
    given: Given,
    run_file: str | None,
    rerankers: tuple[str, ...],
    candidates: int,
    measures: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure what reranking buys and costs, on judged queries.

    The --corpus is indexed in memory (BM25 and the static embedder, fused) and searched; with --run
    its candidates are reranked; with --collection that is searched.
    """
    from qdrant_rerank.evaluation.corpus import read_corpus
    from qdrant_rerank.evaluation.evaluate import evaluate, evaluate_run
    from qdrant_rerank.evaluation.metrics import require_measures

    require_measures(measures)
    data = read_data(given, run_file)
    named = {name: None if name == NONE else name for name in dict.fromkeys(rerankers)}
    if data.run is not None and data.corpus is not None:
        wanted = {document for found in data.run.values() for document in found}
        evaluation = evaluate_run(
            data.run,
            read_corpus(data.corpus, only=wanted),
            data.queries,
            data.qrels,
            reranker=named,
            candidates=candidates,
            measures=measures,
            seed=given.seed,
        )
    else:
        with searchers_for(given, data, named) as searchers:
            evaluation = evaluate(
                searchers,
                data.queries,
                data.qrels,
                candidates=candidates,
                id_field=given.id_field,
                measures=measures,
                seed=given.seed,
            )
    show(replace(evaluation, arguments={**data.files, **evaluation.arguments}), given, as_json)


@click.command("tune")
@data_options
@click.option(
    "--reranker",
    "rerankers",
    multiple=True,
    default=(DEFAULT_RERANKER,),
    show_default=True,
    help="A name from 'models', or a path. May be repeated, as may the next four.",
)
@click.option("--precision", "precisions", multiple=True, default=("auto",), show_default=True)
@click.option(
    "--candidates",
    type=click.IntRange(min=1),
    multiple=True,
    default=(10, 20, 50, 100),
    show_default=True,
)
@click.option(
    "--blend",
    "blends",
    multiple=True,
    default=("0", "0.2", "0.5", "rrf"),
    show_default=True,
    help="The retrieval score's share, 0 to 1, or 'rrf'.",
)
@click.option(
    "--fusion",
    "fusions",
    type=click.Choice(["rrf", "dbsf"]),
    multiple=True,
    default=("rrf", "dbsf"),
    show_default=True,
)
@click.option("--measure", default="nDCG@10", show_default=True, help="A name of ir-measures.")
@click.option("--max-ms", type=float, help="Most milliseconds a query of what is chosen.")
@json_option
def tune_command(
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
    """Sweep depth, model, precision, blend and fusion on judged queries.

    Prints the Pareto front of quality against milliseconds, and the constructor call of the best.
    Each pair is scored once. Half of the queries choose, the other half reports.
    """
    from qdrant_rerank.evaluation.metrics import require_measures
    from qdrant_rerank.evaluation.tune import tune
    from qdrant_rerank.hub.locate import locate

    require_measures([measure])
    for name, precision in product(rerankers, precisions):
        locate(name, precision=precision)  # a wrong name costs no indexing
    data = read_data(given, None)
    with searchers_for(given, data, {"none": None}) as searchers:
        found = tune(
            searchers["none"],
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


def show(found: "Evaluation | Tuning", given: Given, as_json: bool) -> None:
    """Print it, and save it where that was asked for."""
    written = [] if given.out is None else found.save(given.out)
    if as_json:
        print_json(found.to_dict())
    else:
        console().print(found.table())
    for path in written:
        click.echo(f"Wrote {path}", err=True)


#: What :mod:`~qdrant_rerank.cli.main` adds to its group.
COMMANDS: list[click.Command] = [evaluate_command, tune_command]
