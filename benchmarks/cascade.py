"""What a cascade loses and saves: quality and time, beside its large model alone.

    python benchmarks/cascade.py DATA_DIR [--set NAME] [--small NAME] [--large NAME] [--keep N ...]
                                 [--queries N] [--once] [--out FILE]

On dl19 nDCG@10 of BM25's published 100 candidates of each query, on wikiqa_test RR of its pools.
The large model and every cascade rerank a query in turn, in an order that rotates; the ratio of
times is taken query by query. With ``--once`` each model scores a pair once, also for the cascades:
no times. The loss has a 95 % interval by paired bootstrap and p by a paired randomisation test over
queries.
"""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from arguments import existing_path
from second_stage import GIVEN_QRELS, GIVEN_RUNS
from second_stage import MEASURE as OTHER_MEASURE

from qdrant_rerank import DEFAULT_RERANKER, Cascade, TextCrossEncoder
from qdrant_rerank.evaluation.corpus import read_corpus, read_queries
from qdrant_rerank.evaluation.metrics import by_query, gain_of
from qdrant_rerank.evaluation.trec import read_qrels, read_run
from qdrant_rerank.utils.atomic_files import atomic_text

STUDENT = "grown-e5-small-l6-v1"
KEEPS = (10, 20, 30, 40, 50)
SCORES_BYTES = 100_000_000
WARM_UP = 5  # documents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=existing_path)
    parser.add_argument("--set", default="dl19", choices=GIVEN_RUNS)
    parser.add_argument("--once", action="store_true", help="score a pair once: no times")
    parser.add_argument("--small", default=STUDENT)
    parser.add_argument("--large", default=DEFAULT_RERANKER)
    parser.add_argument("--keep", type=int, nargs="+", default=KEEPS)
    parser.add_argument("--queries", type=int, help="the first so many; all by default")
    parser.add_argument("--candidates", type=int, default=100, help="the first so many of a query")
    parser.add_argument("--out", type=Path, help="JSON with every query's times and nDCG@10")
    given = parser.parse_args()
    small, large = (
        TextCrossEncoder(name, score_cache=SCORES_BYTES if given.once else None)
        for name in (given.small, given.large)
    )
    contenders: dict[str, TextCrossEncoder | Cascade] = {
        given.large: large,
        given.small: small,
        **{f"keep {keep}": Cascade([(small, keep), (large, None)]) for keep in given.keep},
    }
    folder, measure = given.data / "eval" / given.set, OTHER_MEASURE.get(given.set, "nDCG@10")
    qrels = read_qrels(folder / GIVEN_QRELS.get(given.set, "qrels.tsv.gz"))
    queries = list(qrels)[: given.queries]
    orders, seconds = rerank_all(contenders, folder, queries, given.candidates)
    values = {name: by_query([measure], qrels, orders[name], queries)[measure] for name in orders}
    whole = given.large
    print(f"{len(queries)} queries of {given.set}, {given.small} before {given.large}")
    print(f"{'':<22}{measure:>9}{'change':>9}   95 %                p        ms   times as fast")
    for name in contenders:
        gain = gain_of(values[whole], values[name])
        ratios = np.array(seconds[whole]) / np.array(seconds[name])
        times = (
            f"{1000 * median(seconds[name]):9.1f}   {np.median(ratios):.2f} "
            f"({ratios.min():.2f} to {ratios.max():.2f})"
        )
        print(
            f"{name:<22}{values[name].mean():9.4f}{gain.mean:+9.4f}   {gain.low:+.4f} to "
            f"{gain.high:+.4f}   {gain.p:.4f}{'' if given.once else times}"
        )
    if given.out:
        found: dict[str, Any] = {
            "queries": queries,
            measure: {name: row.tolist() for name, row in values.items()},
            "seconds": seconds,
        }
        with atomic_text(given.out) as file:
            json.dump(found, file, indent=1)


def rerank_all(
    contenders: Mapping[str, TextCrossEncoder | Cascade],
    folder: Path,
    queries: list[str],
    candidates: int,
) -> tuple[dict[str, dict[str, dict[str, float]]], dict[str, list[float]]]:
    """Of each contender the run, best first, and the seconds of each query."""
    run = read_run(folder / GIVEN_RUNS[folder.name])
    asked = read_queries(folder / "queries.jsonl.gz")
    corpus = read_corpus(folder / "corpus.jsonl.gz")
    orders: dict[str, dict[str, dict[str, float]]] = {name: {} for name in contenders}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number, query in enumerate(queries):
        ids = list(run[query])[:candidates]
        texts = [corpus[document].content for document in ids]
        if number == 0:
            for reranker in contenders.values():
                reranker.rerank(asked[query], texts[:WARM_UP])
        first = number % len(names)
        for name in names[first:] + names[:first]:
            began = time.perf_counter()
            scores = contenders[name].rerank(asked[query], texts)
            seconds[name].append(time.perf_counter() - began)
            best = np.argsort(-np.array(scores), kind="stable")
            orders[name][query] = {ids[row]: scores[row] for row in best}
    return orders, seconds


if __name__ == "__main__":
    main()
