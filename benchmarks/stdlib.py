"""Before and after reranking, on questions about Python's standard library.

    python benchmarks/stdlib.py [--reranker NAME] [--candidates 50] [--moves 2]

``stdlib_questions.jsonl`` holds questions in a person's own words with the qualified names that
answer them, written before any ranking was looked at. Corpus and searcher are the demo's.
"""

import argparse
import json
import platform
from pathlib import Path

import numpy as np
from rich.console import Console

from qdrant_rerank import DEFAULT_RERANKER
from qdrant_rerank.cli.demo import stdlib_searcher
from qdrant_rerank.cli.stdlib_docs import standard_library_documents
from qdrant_rerank.evaluation import Evaluation, evaluate

QUESTIONS = Path(__file__).with_name("stdlib_questions.jsonl")
MEASURES = ("nDCG@10", "RR@10")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reranker", default=DEFAULT_RERANKER)
    parser.add_argument("--candidates", type=int, default=50)
    parser.add_argument("--moves", type=int, default=0, help="questions helped and hurt to show")
    given = parser.parse_args()
    questions = [json.loads(line) for line in QUESTIONS.read_text("utf-8").splitlines()]
    with stdlib_searcher(candidates=given.candidates, reranker=given.reranker) as searcher:
        count = searcher.add(standard_library_documents(), progress=False)
        found = evaluate(
            searcher,
            {question["id"]: question["question"] for question in questions},
            {question["id"]: dict.fromkeys(question["answers"], 1) for question in questions},
            id_field="name",
            measures=MEASURES,
        )
    print(f"{count:,} documents of Python {platform.python_version()}, {given.reranker}")
    Console().print(found.table())
    show_moves(found, {q["id"]: set(q["answers"]) for q in questions}, given.moves)


def show_moves(found: Evaluation, answers: dict[str, set[str]], number: int) -> None:
    """The questions that gained and lost most, with what stands first before and after."""
    [configuration] = found.configurations
    values = configuration.values
    gains = values["after"][MEASURES[0]] - values["before"][MEASURES[0]]
    order = np.argsort(-gains, kind="stable").tolist()
    queries = list(found.queries)
    for row in [*order[:number], *order[len(order) - number :]]:
        query = queries[row]
        runs = configuration.before[query], configuration.after[query]
        ranks = [
            min((rank for rank, name in enumerate(run, 1) if name in answers[query]), default=None)
            for run in runs
        ]
        firsts = [next(iter(run)) for run in runs]
        print(
            f"{gains[row]:+.3f}  {found.queries[query]}\n"
            f"        answer at {ranks[0]} -> {ranks[1]}; first: {firsts[0]} -> {firsts[1]}"
        )


if __name__ == "__main__":
    main()
