"""nDCG@10 and MRR before and after reranking, on questions about Python's standard library.

    python benchmarks/stdlib.py [--reranker NAME] [--candidates 50] [--misses]

``stdlib_questions.jsonl`` holds questions in a person's own words with the qualified names that
answer them, written before any ranking was looked at. Corpus and searcher are the demo's.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
from ir_measures import RR, Measure, calc_aggregate, iter_calc, nDCG

from qdrant_rerank import DEFAULT_RERANKER, SearchResults
from qdrant_rerank.demo import stdlib_searcher
from qdrant_rerank.stdlib_docs import standard_library_documents

QUESTIONS = Path(__file__).with_name("stdlib_questions.jsonl")
MEASURES = [nDCG @ 10, RR @ 10]
RESAMPLES = 10_000
Scores = dict[str, dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reranker", default=DEFAULT_RERANKER)
    parser.add_argument("--candidates", type=int, default=50)
    parser.add_argument("--misses", action="store_true", help="list the questions that got worse")
    given = parser.parse_args()
    questions = [json.loads(line) for line in QUESTIONS.read_text("utf-8").splitlines()]
    with stdlib_searcher(candidates=given.candidates, reranker=given.reranker) as searcher:
        count = searcher.add(standard_library_documents(), progress=False)
        began = time.perf_counter()
        found = {
            question["id"]: searcher.search(question["question"], limit=given.candidates)
            for question in questions
        }
        seconds = (time.perf_counter() - began) / len(questions)
    judged = {q["id"]: dict.fromkeys(q["answers"], 1) for q in questions}
    before = {key: first_stage(results) for key, results in found.items()}
    after = {key: reranked(results) for key, results in found.items()}
    recalled = np.mean([bool(set(judged[key]) & set(before[key])) for key in judged])
    print(
        f"{len(questions)} questions, {count:,} documents of Python {platform.python_version()}, "
        f"{given.candidates} candidates, {given.reranker}"
    )
    print(f"an answer is among the candidates: {recalled:.1%}; {seconds * 1000:.0f} ms a question")
    for measure in MEASURES:
        values = [calc_aggregate([measure], judged, run)[measure] for run in (before, after)]
        low, high = interval(judged, before, after, measure)
        print(
            f"{measure!s:<8} before {values[0]:.4f}   after {values[1]:.4f}   "
            f"gain {values[1] - values[0]:+.4f} (95 % interval {low:+.4f} to {high:+.4f})"
        )
    if given.misses:
        list_misses(questions, judged, before, after)


def first_stage(results: SearchResults) -> dict[str, float]:
    """Document names with scores that fall with the retrieval rank."""
    return {str((p.payload or {})["name"]): -float(p.retrieval_rank) for p in results}


def reranked(results: SearchResults) -> dict[str, float]:
    """Document names with scores that fall with the rank after reranking."""
    return {str((p.payload or {})["name"]): -float(rank) for rank, p in enumerate(results)}


def interval(
    judged: dict[str, dict[str, int]], before: Scores, after: Scores, measure: Measure
) -> tuple[float, float]:
    """Bootstrap 95 % interval of the mean gain, over questions."""
    per_run = [
        {item.query_id: item.value for item in iter_calc([measure], judged, run)}
        for run in (before, after)
    ]
    gains = np.array([per_run[1].get(key, 0.0) - per_run[0].get(key, 0.0) for key in judged])
    rng = np.random.default_rng(0)
    means = rng.choice(gains, (RESAMPLES, len(gains))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def list_misses(
    questions: list[dict[str, object]],
    judged: dict[str, dict[str, int]],
    before: Scores,
    after: Scores,
) -> None:
    """Questions whose best answer fell, with the three documents now first."""
    for question in questions:
        key = str(question["id"])
        ranks = [
            min(
                (rank for rank, name in enumerate(run[key], start=1) if name in judged[key]),
                default=0,
            )
            for run in (dict_sorted(before), dict_sorted(after))
        ]
        if ranks[1] > ranks[0]:
            top = list(dict_sorted(after)[key])[:3]
            print(f"{question['question']}: {ranks[0]} -> {ranks[1]}; first {', '.join(top)}")


def dict_sorted(run: Scores) -> Scores:
    """Each query's documents, best first."""
    return {key: dict(sorted(docs.items(), key=lambda item: -item[1])) for key, docs in run.items()}


if __name__ == "__main__":
    main()
