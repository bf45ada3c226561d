"""What reranking does to the order: nDCG@10 (MRR for WikiQA) before and after.

    python benchmarks/second_stage.py DATA_DIR [SET ...] [--reranker NAME_OR_PATH] [--queries 100]

``dl19`` reorders BM25's published 100 candidates, ``wikiqa_test`` its pools; the other sets the
best 50 of the default recall (BM25 and the static embedder, fused; see ``first_stage.py``), of
which the first ``--queries`` queries are taken. Differences with a bootstrap 95 % interval.
"""

import argparse
import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
from first_stage import Run, bm25_scores, fuse, qrels, records, to_run
from ir_measures import RR, iter_calc, nDCG

from qdrant_rerank import DEFAULT_RERANKER, StaticEmbedder, TextCrossEncoder

DEPTH = 50
RESAMPLES = 10_000
SETS = ["dl19", "wikiqa_test", "scifact", "cranfield", "med", "musique_mini"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", nargs="*", default=SETS)
    parser.add_argument("--reranker", default=DEFAULT_RERANKER)
    parser.add_argument("--queries", type=int, default=100)
    given = parser.parse_args()
    encoder = TextCrossEncoder(given.reranker)
    print(given.reranker)
    print(f"{'set':<14}{'measure':<9}{'queries':>8}{'before':>8}{'after':>8}{'gain':>9}   95 %")
    for name in given.sets:
        folder = given.data / "eval" / name
        queries = {r["_id"]: r["text"] for r in records(folder / "queries.jsonl.gz")}
        documents = {
            r["_id"]: f"{r.get('title') or ''}\n{r['text']}".strip()
            for r in records(folder / "corpus.jsonl.gz")
        }
        full = folder / "qrels_full.tsv.gz"
        judged = qrels(full if full.is_file() else folder / "qrels.tsv.gz")
        before = first_run(folder, queries, documents, list(judged)[: given.queries])
        judged = {query: judged[query] for query in before if query in judged}
        pairs = [(queries[q], documents[d]) for q, found in before.items() for d in found]
        scores = iter(encoder.score_pairs(pairs).scores.tolist())
        after = {q: {d: next(scores) for d in found} for q, found in before.items()}
        measure: Any = RR if name == "wikiqa_test" else nDCG @ 10
        values = []
        for run in (before, after):
            found = {item.query_id: item.value for item in iter_calc([measure], judged, run)}
            values.append(np.array([found.get(query, 0.0) for query in judged]))
        gains = values[1] - values[0]
        means = np.random.default_rng(0).choice(gains, (RESAMPLES, len(gains))).mean(axis=1)
        low, high = np.quantile(means, [0.025, 0.975])
        print(
            f"{name:<14}{measure!s:<9}{len(judged):>8}{values[0].mean():8.4f}"
            f"{values[1].mean():8.4f}{gains.mean():+9.4f}   {low:+.4f} to {high:+.4f}",
            flush=True,
        )


def first_run(
    folder: Path, queries: dict[str, str], documents: dict[str, str], chosen: list[str]
) -> Run:
    """The candidates of each query, with scores that fall with the rank."""
    for file in ("candidates_bm25_top100.tsv.gz", "candidates.tsv.gz"):
        if (folder / file).is_file():
            run: Run = {}
            with gzip.open(folder / file, "rt", encoding="utf-8") as lines:
                rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
                next(rows)
                for query, document, *_ in rows:
                    found = run.setdefault(query, {})
                    found[document] = -float(len(found))
            return run
    ids, texts = list(documents), list(documents.values())
    asked = [queries[query] for query in chosen]
    embedder = StaticEmbedder.bundled()
    dense = embedder.embed_documents(asked) @ embedder.embed_documents(texts).T
    runs = [to_run(chosen, ids, scores) for scores in (bm25_scores(asked, texts), dense)]
    return {
        query: dict(sorted(found.items(), key=lambda item: -item[1])[:DEPTH])
        for query, found in fuse(*runs).items()
    }


if __name__ == "__main__":
    main()
