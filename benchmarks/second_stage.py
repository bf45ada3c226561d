"""What reranking does to the order, and how sure that is: before and after on every evaluation set.

    python benchmarks/second_stage.py DATA_DIR [SET ...] [--reranker NAME_OR_PATH ...]
                                      [--candidates N] [--queries N] [--baseline] [--out FILE]

``dl19`` reorders BM25's published 100 candidates, ``wikiqa_test`` its pools, whose "before" is the
order of the file; the other sets the best candidates of the default recall, BM25 and the static
embedder, fused. All queries of a set count, unless ``--queries`` says how many. 95 % intervals by
paired bootstrap, p by a paired randomisation test over queries.

``--baseline`` adds a second line per set, and the mean of its gains over all sets: the same
candidates in the order of the bi-encoder inside the reranker, which is the cosine of its own
vectors, and what the whole model gains over that; BM25 with the statistics of these candidates.
"""

import argparse
import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arguments import existing_path
from qdrant_client import QdrantClient
from qdrant_client.models import PointStruct

from qdrant_rerank import DEFAULT_RERANKER, HybridSearcher, TextCrossEncoder
from qdrant_rerank.evaluation import Evaluation, evaluate, evaluate_run
from qdrant_rerank.evaluation.baselines import BM25_NAME, inside_name
from qdrant_rerank.evaluation.compare import with_reranker
from qdrant_rerank.evaluation.corpus import read_corpus, read_queries
from qdrant_rerank.evaluation.trec import read_qrels, read_run
from qdrant_rerank.hub.catalog import BUILT_IN

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
    parser.add_argument("--baseline", action="store_true", help="measure the bi-encoder inside")
    parser.add_argument("--out", type=Path, help="JSON with the figures")
    given = parser.parse_args()
    rerankers = given.reranker or [DEFAULT_RERANKER]
    loaded = {name: TextCrossEncoder(name) for name in rerankers}
    print(f"{'set':<14}{'measure':<9}{'queries':>8}{'before':>8}{'after':>8}{'gain':>9}   95 %")
    figures: dict[str, Any] = {}
    for name in given.sets:
        found = measure(
            given.data / "eval" / name,
            loaded,
            given.candidates,
            given.queries,
            baseline=given.baseline,
        )
        for reranker in loaded:
            row = figures_of(found, reranker, MEASURE.get(name, "nDCG@10"))
            figures.setdefault(reranker, {})[name] = row
            print(
                f"{name:<14}{row['measure']:<9}{row['queries']:>8}{row['before']:8.4f}"
                f"{row['after']:8.4f}{row['gain']:+9.4f}   {row['low']:+.4f} to {row['high']:+.4f}"
                f"   p {row['p']:.4f}" + (f"   {reranker}" if len(loaded) > 1 else ""),
                flush=True,
            )
            if over := row.get("over bi-encoder"):
                print(
                    f"  {'bi-encoder':<29}{row['bi-encoder']:8.4f}{row['after']:8.4f}"
                    f"{over['mean']:+9.4f}   {over['low']:+.4f} to {over['high']:+.4f}"
                    f"   p {over['p']:.4f}   BM25 {row['BM25']:.4f}",
                    flush=True,
                )
            if given.out:
                given.out.write_text(json.dumps(figures, indent=1) + "\n")
    for reranker, rows in figures.items():
        gains = [row["over bi-encoder"]["mean"] for row in rows.values() if "bi-encoder" in row]
        if gains:
            print(
                f"{reranker}: {statistics.mean(gains):+.4f} over the bi-encoder inside, "
                f"mean of {len(gains)} sets"
            )


def measure(
    folder: Path,
    rerankers: dict[str, TextCrossEncoder],
    candidates: int = CANDIDATES,
    most: int | None = None,
    *,
    baseline: bool = False,
) -> Evaluation:
    """One set, all rerankers."""
    queries = read_queries(folder / "queries.jsonl.gz")
    corpus = read_corpus(folder / "corpus.jsonl.gz")
    qrels = read_qrels(folder / GIVEN_QRELS.get(folder.name, "qrels.tsv.gz"))
    queries = {query: queries[query] for query in list(qrels)[:most]}
    if folder.name in GIVEN_RUNS:
        run = read_run(folder / GIVEN_RUNS[folder.name])
        return evaluate_run(run, corpus, queries, qrels, reranker=rerankers, baseline=baseline)
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
        baseline=baseline,
    )


def figures_of(found: Evaluation, reranker: str, measure: str) -> dict[str, Any]:
    """The figures of one reranker on one set."""
    configuration = found[reranker]
    gain = configuration.gains[measure]
    row = {
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
    if inside := inside_of(found, reranker):
        row |= {
            "bi-encoder": float(found[inside].values["after"][measure].mean()),
            "over bi-encoder": asdict(found.difference(reranker, inside, measure)),
            "BM25": float(found[BM25_NAME].values["after"][measure].mean()),
        }
    return row


def inside_of(found: Evaluation, reranker: str) -> str | None:
    """Name of the bi-encoder inside a reranker; models that share one have it measured once."""
    spec = BUILT_IN.get(reranker)
    if spec is None:
        return None
    sharing = [
        inside_name(other.model)
        for other in BUILT_IN.values()
        if (other.trunk or other.model) == (spec.trunk or spec.model)
    ]
    measured = {each.name for each in found.configurations}
    return next((name for name in sharing if name in measured), None)


if __name__ == "__main__":
    main()
