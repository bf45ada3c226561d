"""Scores on a card against those of a CPU, on BM25's candidates of TREC DL 2019."""

from pathlib import Path
from typing import Any

import numpy as np

from qdrant_rerank import TextCrossEncoder
from qdrant_rerank.evaluation.corpus import read_corpus, read_queries
from qdrant_rerank.evaluation.runs import read_qrels, read_run
from qdrant_rerank.models import RunPrecision

__all__ = ["parity"]

TOP = 10
MEASURE = "nDCG@10"


def parity(
    data: Path, model: Path, device: str, *, queries: int | None = None, candidates: int = 100
) -> dict[str, Any]:
    """fp32 and fp16 on the device against fp32 on a CPU.

    Args:
        data: folder with ``eval/dl19``.
        model: a directory with an fp32 file.
        device: "cuda"; "cpu" in a trial.
        queries: the first so many; None for all.
        candidates: a query, the first so many.

    Returns:
        For each precision the largest difference of logits, the share of queries with the same
        first ten, and nDCG@10 beside the CPU's.
    """
    import ir_measures

    folder = data / "eval" / "dl19"
    texts = {name: found.text for name, found in read_corpus(folder / "corpus.jsonl.gz").items()}
    asked = read_queries(folder / "queries.jsonl.gz")
    qrels = read_qrels(folder / "qrels_full.tsv.gz")
    run = read_run(folder / "candidates_bm25_top100.tsv.gz")
    chosen = [query for query in run if query in qrels][:queries]
    places = {
        query: sorted(run[query], key=lambda d: -run[query][d])[:candidates] for query in chosen
    }
    pairs = [(asked[query], texts[document]) for query in chosen for document in places[query]]

    def scored(where: str, precision: RunPrecision) -> np.ndarray[Any, Any]:
        encoder = TextCrossEncoder(model, device=where, precision=precision, engine="onnxruntime")
        return encoder.score_pairs(pairs).scores

    def by_query(scores: np.ndarray[Any, Any]) -> dict[str, dict[str, float]]:
        left = iter(scores.tolist())
        return {query: {document: next(left) for document in places[query]} for query in chosen}

    def quality(ranked: dict[str, dict[str, float]]) -> float:
        measure = ir_measures.parse_measure(MEASURE)
        known = {query: qrels[query] for query in chosen}
        return float(ir_measures.calc_aggregate([measure], known, ranked)[measure])

    def first(ranked: dict[str, float]) -> set[str]:
        return set(sorted(ranked, key=lambda document: -ranked[document])[:TOP])

    reference = scored("cpu", "fp32")
    expected = by_query(reference)
    found: dict[str, Any] = {
        "queries": len(chosen),
        "pairs": len(pairs),
        MEASURE: quality(expected),
    }
    for precision in ("fp32", "fp16"):
        scores = scored(device, precision)
        ranked = by_query(scores)
        same = [first(ranked[query]) == first(expected[query]) for query in chosen]
        found[precision] = {
            "largest_difference": float(np.abs(scores - reference).max()),
            "same_top_10": float(np.mean(same)),
            MEASURE: quality(ranked),
        }
    return found
