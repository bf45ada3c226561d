"""nDCG@10 of the default first stage: BM25, the static embedder, and both fused.

    python benchmarks/first_stage.py DATA_DIR [SET ...] [--embedder DIRECTORY]

DATA_DIR/eval/SET holds corpus.jsonl.gz, queries.jsonl.gz and qrels.tsv.gz. Scores are computed
as Qdrant computes them (IDF as of ``Modifier.IDF``, cosine, RRF with k = 2 over 100 candidates a
branch), exactly, without an index.
"""

import argparse
import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
from ir_measures import nDCG
from numpy.typing import NDArray

from qdrant_rerank.embedders import Bm25Encoder, StaticEmbedder

CANDIDATES = 100
RRF_K = 2  # Qdrant's default
Run = dict[str, dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", nargs="*", default=["scifact", "cranfield", "med"])
    parser.add_argument("--embedder", type=Path, help="directory of another static embedder")
    given = parser.parse_args()
    embedder = (
        StaticEmbedder.from_directory(given.embedder)
        if given.embedder
        else StaticEmbedder.bundled()
    )
    print(f"{'set':<14}{'queries':>8}{'BM25':>8}{'static':>8}{'fused':>8}   nDCG@10")
    for name in given.sets:
        folder = given.data / "eval" / name
        queries = {record["_id"]: record["text"] for record in records(folder / "queries.jsonl.gz")}
        documents = {
            record["_id"]: f"{record.get('title') or ''}\n{record['text']}".strip()
            for record in records(folder / "corpus.jsonl.gz")
        }
        judged = qrels(folder / "qrels.tsv.gz")
        ids = list(documents)
        sparse = bm25_scores(list(queries.values()), list(documents.values()))
        dense = (
            embedder.embed_documents(list(queries.values()))
            @ embedder.embed_documents(list(documents.values())).T
        )
        runs = [to_run(list(queries), ids, scores) for scores in (sparse, dense)]
        runs.append(fuse(*runs))
        values = "".join(f"{ndcg(judged, run):8.4f}" for run in runs)
        print(f"{name:<14}{len(judged):>8}{values}", flush=True)


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a gzipped JSONL file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def qrels(path: Path) -> dict[str, dict[str, int]]:
    """Judgments by query and document."""
    judged: dict[str, dict[str, int]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(rows)
        for query, document, score in rows:
            judged.setdefault(query, {})[document] = int(score)
    return judged


def bm25_scores(queries: list[str], documents: list[str]) -> NDArray[np.float64]:
    """Shape (queries, documents)."""
    encoder = Bm25Encoder()
    postings: dict[int, list[tuple[int, float]]] = {}
    for row, vector in enumerate(encoder.embed_documents(documents)):
        for term, value in zip(vector.indices, vector.values, strict=True):
            postings.setdefault(term, []).append((row, value))
    scores = np.zeros((len(queries), len(documents)))
    for row, query in enumerate(queries):
        for term in encoder.embed_query(query).indices:
            found = postings.get(term, [])
            idf = np.log1p((len(documents) - len(found) + 0.5) / (len(found) + 0.5))
            for document, value in found:
                scores[row, document] += idf * value
    return scores


def to_run(queries: list[str], ids: list[str], scores: NDArray[Any]) -> Run:
    """The best candidates of each query; documents that score 0 or less are not found."""
    run: Run = {}
    for query, row in zip(queries, scores, strict=True):
        best = np.argsort(-row, kind="stable")[:CANDIDATES]
        run[query] = {ids[i]: float(row[i]) for i in best if row[i] > 0}
    return run


def fuse(*runs: Run) -> Run:
    """Reciprocal rank fusion as Qdrant computes it: 1 / (k + rank), rank from 0."""
    fused: Run = {}
    for run in runs:
        for query, found in run.items():
            into = fused.setdefault(query, {})
            for rank, document in enumerate(sorted(found, key=lambda d: -found[d])):
                into[document] = into.get(document, 0.0) + 1 / (RRF_K + rank)
    return fused


def ndcg(judged: dict[str, dict[str, int]], run: Run) -> float:
    """Mean nDCG@10 over the judged queries; one without hits counts 0."""
    found = ir_measures.iter_calc([nDCG @ 10], judged, run)
    values = {item.query_id: item.value for item in found}
    return float(np.mean([values.get(query, 0.0) for query in judged]))


if __name__ == "__main__":
    main()
