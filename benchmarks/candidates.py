"""How many candidates to rerank: quality against time, on the questions of stdlib.py.

    python benchmarks/candidates.py

Writes ``results/candidates.json``: each bundled reranker at several depths, and the first stage,
with milliseconds per query and nDCG@10 over all questions.
"""

import json
import os
from pathlib import Path

from peers.machine import machine
from stdlib import QUESTIONS

from qdrant_rerank.cli.demo import stdlib_searcher
from qdrant_rerank.cli.stdlib_docs import standard_library_documents
from qdrant_rerank.evaluation import tune

OUT = Path(__file__).with_name("results") / "candidates.json"
RERANKERS = ("grown-e5-small-v1", "grown-e5-small-cross-v1", "grown-e5-small-l6-v1")
DEPTHS = (5, 10, 20, 50, 100)


def main() -> None:
    questions = [json.loads(line) for line in QUESTIONS.read_text("utf-8").splitlines()]
    about = machine(len(os.sched_getaffinity(0)))
    with stdlib_searcher(candidates=max(DEPTHS)) as searcher:
        searcher.add(standard_library_documents(), progress=False)
        found = tune(
            searcher,
            {question["id"]: question["question"] for question in questions},
            {question["id"]: dict.fromkeys(question["answers"], 1) for question in questions},
            rerankers=RERANKERS,
            candidates=DEPTHS,
            blends=(0.0,),
            fusions=("rrf",),
            id_field="name",
        )
    rows = [
        {
            "reranker": point.reranker,
            "candidates": point.candidates,
            "ms": round(point.ms, 1),
            "nDCG@10": round(float(point.values.mean()), 4),
        }
        for point in found.points
    ]
    record = {"machine": about, "queries": len(found.queries), "points": rows}
    OUT.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    for row in rows:
        print(*row.values())


if __name__ == "__main__":
    main()
