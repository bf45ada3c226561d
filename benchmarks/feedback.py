"""Whether relevance feedback finds more than one recall does: nDCG@10, and R@N of what it returns.

    python benchmarks/feedback.py DATA_DIR [SET ...] [--candidates N] [--queries N] [--page N ...]
                                  [--beta B] [--gamma G] [--c C] [--reranker NAME] [--out FILE]

Each set is searched once with N candidates; with feedback from the first hits, by Rocchio on the
dense vector and by Qdrant's own query; and once with as many candidates as feedback made pairs,
since a deeper recall is the other way to spend them. A gain is against that one, paired by query:
95 % by bootstrap, p by a randomisation test. The engine is Qdrant's local mode.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient
from qdrant_client.models import PointStruct

from qdrant_rerank import (
    DEFAULT_RERANKER,
    Feedback,
    HybridSearcher,
    SearchOptions,
    TextCrossEncoder,
)
from qdrant_rerank.evaluation import evaluate
from qdrant_rerank.evaluation.corpus import iter_corpus, read_queries
from qdrant_rerank.evaluation.runs import read_qrels

MEASURE = "nDCG@10"
SETS = ("scifact", "cranfield", "med", "cacm", "musique_mini")
CACHE_BYTES = 256 * 1024 * 1024  # the same pairs come in every configuration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", nargs="*", default=SETS)
    parser.add_argument("--candidates", type=int, default=50)
    parser.add_argument("--queries", type=int, help="of a set, the first so many; all by default")
    parser.add_argument("--page", type=int, action="append", help="may be repeated; 5 and 10")
    parser.add_argument("--beta", type=float, default=Feedback().beta)
    parser.add_argument("--gamma", type=float, default=Feedback().gamma)
    parser.add_argument("--c", type=float, default=Feedback().c)
    parser.add_argument("--reranker", default=DEFAULT_RERANKER)
    parser.add_argument("--out", type=Path, help="JSON with the figures")
    given = parser.parse_args()
    ways = {
        f"{method} {page}": Feedback(
            page=page, method=method, beta=given.beta, gamma=given.gamma, c=given.c
        )
        for page in given.page or (5, 10)
        for method in ("rocchio", "qdrant")
    }
    reranker = TextCrossEncoder(given.reranker, score_cache=CACHE_BYTES)
    print(
        f"{'set':<14}{'recall':<12}{'pairs':>7}{MEASURE:>10}"
        f"{f'R@{given.candidates}':>8}{'gain':>9}   95 %"
    )
    figures = {}
    for name in given.sets:
        folder = given.data / "eval" / name
        figures[name] = measure(folder, reranker, ways, given.candidates, given.queries)
        for way, row in figures[name].items():
            print(
                f"{name:<14}{way:<12}{row['pairs']:7.1f}{row['value']:10.4f}{row['found']:8.4f}"
                + (
                    f"{row['gain']:+9.4f}   {row['low']:+.4f} to {row['high']:+.4f}   p "
                    f"{row['p']:.4f}"
                    if "gain" in row
                    else ""
                ),
                flush=True,
            )
        if given.out:
            given.out.write_text(json.dumps(figures, indent=1) + "\n")


def measure(
    folder: Path,
    reranker: TextCrossEncoder,
    ways: dict[str, Feedback],
    candidates: int,
    most: int | None,
) -> dict[str, dict[str, Any]]:
    """The figures of one set, by the way of recall."""
    qrels = read_qrels(folder / "qrels.tsv.gz")
    texts = read_queries(folder / "queries.jsonl.gz")
    queries = {query: texts[query] for query in list(qrels)[:most]}
    once = HybridSearcher(
        folder.name,
        client=QdrantClient(":memory:"),
        reranker=reranker,
        text=["title", "text"],
        candidates=candidates,
    )
    once.add(
        PointStruct(
            id=row,
            vector={},
            payload={"_id": document.id, "title": document.title, "text": document.text},
        )
        for row, document in enumerate(iter_corpus(folder))
        if document.content
    )
    searchers = {"once": once} | {
        way: _like(once, candidates, replace(once.options, feedback=feedback))
        for way, feedback in ways.items()
    }
    pairs = {name: _pairs(one, queries) for name, one in searchers.items()}
    deeper = max(round(count) for count in pairs.values())
    searchers["deeper"] = _like(once, deeper, once.options)
    pairs["deeper"] = _pairs(searchers["deeper"], queries)
    found = evaluate(searchers, queries, qrels, measures=[MEASURE, f"R@{candidates}"])
    rows = {}
    for name in searchers:
        values = found[name].values["after"]
        rows[name] = {
            "pairs": pairs[name],
            "value": float(values[MEASURE].mean()),
            "found": float(values[f"R@{candidates}"].mean()),
        }
        if name in ways:
            gain = found.difference(name, "deeper", MEASURE)
            rows[name] |= {"gain": gain.mean, "low": gain.low, "high": gain.high, "p": gain.p}
    return rows


def _like(searcher: HybridSearcher, candidates: int, options: SearchOptions) -> HybridSearcher:
    return HybridSearcher(
        searcher.collection,
        client=searcher.client,
        reranker=searcher.reranker,
        text=searcher.text.source,
        candidates=candidates,
        options=options,
    )


def _pairs(searcher: HybridSearcher, queries: dict[str, str]) -> float:
    """Pairs that a query costs on average, those of the page included, which are scored twice."""
    traces = [searcher.search(query, limit=1).trace for query in queries.values()]
    page = searcher.options.feedback.page if searcher.options.feedback else 0
    return sum(trace.pairs + page for trace in traces) / len(traces)


if __name__ == "__main__":
    main()
