"""What reranking does to the order, and how sure that is: before and after on every evaluation set.

    python benchmarks/second_stage.py DATA_DIR [SET ...] [--reranker NAME_OR_PATH ...]
                                      [--candidates N] [--queries N] [--out FILE]

``dl19`` reorders BM25's published 100 candidates, ``wikiqa_test`` its pools; the other sets the
best candidates of the default recall, BM25 and the static embedder, fused. All queries of a set
count, unless ``--queries`` says how many. 95 % intervals by paired bootstrap, p by a paired
randomisation test over queries.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from arguments import existing_path
from qdrant_client import QdrantClient
from qdrant_client.models import PointStruct

from qdrant_rerank import DEFAULT_RERANKER, HybridSearcher, TextCrossEncoder
from qdrant_rerank.evaluation import Evaluation, evaluate, evaluate_run
from qdrant_rerank.evaluation.compare import with_reranker
from qdrant_rerank.evaluation.corpus import read_corpus, read_queries
from qdrant_rerank.evaluation.trec import read_qrels, read_run

CANDIDATES = 100
SETS = ("dl19", "wikiqa_test", "scifact", "cranfield", "med", "musique_mini", "cacm")
GIVEN_RUNS = {"dl19": "candidates_bm25_top100.tsv.gz", "wikiqa_test": "candidates.tsv.gz"}
GIVEN_QRELS = {"dl19": "qrels_full.tsv.gz"}
MEASURE = {"wikiqa_test": "RR"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=existing_path)
    parser.add_argument("sets", nargs="*", default=SETS)
    parser.add_argument("--reranker", action="append", help="may be repeated")
    parser.add_argument("--candidates", type=int, default=CANDIDATES, help="of the default recall")
    parser.add_argument("--queries", type=int, help="of a set, the first so many; all by default")
    parser.add_argument("--out", type=Path, help="JSON with the figures")
    given = parser.parse_args()
    rerankers = given.reranker or [DEFAULT_RERANKER]
    loaded = {name: TextCrossEncoder(name) for name in rerankers}
    print(f"{'set':<14}{'measure':<9}{'queries':>8}{'before':>8}{'after':>8}{'gain':>9}   95 %")
    figures: dict[str, Any] = {}
    for name in given.sets:
        found = measure(given.data / "eval" / name, loaded, given.candidates, given.queries)
        for reranker in loaded:
            row = figures_of(found, reranker, MEASURE.get(name, "nDCG@10"))
            figures.setdefault(reranker, {})[name] = row
            print(
                f"{name:<14}{row['measure']:<9}{row['queries']:>8}{row['before']:8.4f}"
                f"{row['after']:8.4f}{row['gain']:+9.4f}   {row['low']:+.4f} to {row['high']:+.4f}"
                f"   p {row['p']:.4f}" + (f"   {reranker}" if len(loaded) > 1 else ""),
                flush=True,
            )
            if given.out:
                given.out.write_text(json.dumps(figures, indent=1) + "\n")


def measure(
    folder: Path,
    rerankers: dict[str, TextCrossEncoder],
    candidates: int = CANDIDATES,
    most: int | None = None,
) -> Evaluation:
    """One set, all rerankers."""
    queries = read_queries(folder / "queries.jsonl.gz")
    corpus = read_corpus(folder / "corpus.jsonl.gz")
    qrels = read_qrels(folder / GIVEN_QRELS.get(folder.name, "qrels.tsv.gz"))
    queries = {query: queries[query] for query in list(qrels)[:most]}
    if folder.name in GIVEN_RUNS:
        run = read_run(folder / GIVEN_RUNS[folder.name])
        return evaluate_run(run, corpus, queries, qrels, reranker=rerankers)
    searcher = HybridSearcher(
        folder.name,
        client=QdrantClient(":memory:"),
        reranker=None,
        text=["title", "text"],
        candidates=candidates,
    )
    searcher.add(
        PointStruct(
            id=row,
            vector={},
            payload={"_id": document.id, "title": document.title, "text": document.text},
        )
        for row, document in enumerate(corpus.values())
        if document.content
    )
    return evaluate(
        {name: with_reranker(searcher, encoder) for name, encoder in rerankers.items()},
        queries,
        qrels,
    )


def figures_of(found: Evaluation, reranker: str, measure: str) -> dict[str, Any]:
    """The figures of one reranker on one set."""
    configuration = found[reranker]
    gain = configuration.gains[measure]
    return {
        "measure": measure,
        "queries": len(found.queries),
        "before": float(configuration.values["before"][measure].mean()),
        "after": float(configuration.values["after"][measure].mean()),
        "best": float(configuration.values["best"][measure].mean()),
        "gain": gain.mean,
        "low": gain.low,
        "high": gain.high,
        "p": gain.p,
        "ms": configuration.ms("total"),
    }


if __name__ == "__main__":
    main()
