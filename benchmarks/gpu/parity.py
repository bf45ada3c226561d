"""Scores of one model run in several ways, on BM25's candidates of TREC DL 2019."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank import TextCrossEncoder
from qdrant_rerank.evaluation.corpus import read_corpus, read_queries
from qdrant_rerank.evaluation.trec import read_qrels, read_run

__all__ = ["Judged", "compared", "parity"]

TOP = 10
MEASURE = "nDCG@10"

Pairs = list[tuple[str, str]]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judged:
    """Queries, the candidates of each, and what was judged of them.

    Attributes:
        places: query -> its candidates, best first.
        qrels: query -> document -> grade.
        pairs: (query, document) texts, query after query.
    """

    places: Mapping[str, list[str]]
    qrels: dict[str, dict[str, int]]
    pairs: Pairs

    @classmethod
    def read(cls, data: Path, *, queries: int | None = None, candidates: int = 100) -> "Judged":
        """From a folder with ``eval/dl19``: the first so many of each; None for all."""
        folder = data / "eval" / "dl19"
        texts = {name: one.text for name, one in read_corpus(folder / "corpus.jsonl.gz").items()}
        asked = read_queries(folder / "queries.jsonl.gz")
        qrels = read_qrels(folder / "qrels_full.tsv.gz")
        run = read_run(folder / "candidates_bm25_top100.tsv.gz")
        chosen = [query for query in run if query in qrels][:queries]
        places = {q: sorted(run[q], key=lambda d: -run[q][d])[:candidates] for q in chosen}
        pairs = [(asked[query], texts[document]) for query in chosen for document in places[query]]
        return cls(places, {query: qrels[query] for query in chosen}, pairs)

    def by_query(self, scores: Scores) -> dict[str, dict[str, float]]:
        """Query -> document -> score."""
        left = iter(scores.tolist())
        return {query: {one: next(left) for one in names} for query, names in self.places.items()}

    def quality(self, scores: Scores) -> float:
        """nDCG@10."""
        import ir_measures

        measure = ir_measures.parse_measure(MEASURE)
        found = ir_measures.calc_aggregate([measure], self.qrels, self.by_query(scores))
        return float(found[measure])


def compared(
    judged: Judged, reference: Scores, others: Mapping[str, Callable[[], Scores]]
) -> dict[str, Any]:
    """Changes by each other way.

    Args:
        judged: what is scored.
        reference: a score a pair.
        others: label -> what scores the pairs.

    Returns:
        For each the largest difference of logits, the share of queries with the same first ten, and
        nDCG@10 beside the reference's.
    """

    def first(ranked: Mapping[str, float]) -> set[str]:
        return set(sorted(ranked, key=lambda document: -ranked[document])[:TOP])

    expected = judged.by_query(reference)
    found: dict[str, Any] = {
        "queries": len(judged.places),
        "pairs": len(judged.pairs),
        MEASURE: judged.quality(reference),
    }
    for label, score in others.items():
        scores = score()
        ranked = judged.by_query(scores)
        same = [first(ranked[query]) == first(expected[query]) for query in ranked]
        found[label] = {
            "largest_difference": float(np.abs(scores - reference).max()),
            "same_top_10": float(np.mean(same)),
            MEASURE: judged.quality(scores),
        }
    return found


def parity(
    data: Path, model: str | Path, device: str, *, queries: int | None = None, candidates: int = 100
) -> dict[str, Any]:
    """fp32 and fp16 on the device against fp32 on a CPU; see :func:`compared`.

    Args:
        data: folder with ``eval/dl19``.
        model: a name or a directory; of a model in int8 its weights are run in fp32 and fp16.
        device: "cuda"; "cpu" in a trial.
        queries: the first so many; None for all.
        candidates: a query, the first so many.
    """
    judged = Judged.read(data, queries=queries, candidates=candidates)

    def fp32(where: str) -> Scores:
        encoder = TextCrossEncoder(model, device=where, precision="fp32", engine="onnxruntime")
        return encoder.score_pairs(judged.pairs).scores

    def fp16() -> Scores:
        encoder = TextCrossEncoder(model, device=device, precision="fp16", engine="onnxruntime")
        return encoder.score_pairs(judged.pairs).scores

    return compared(judged, fp32("cpu"), {"fp32": lambda: fp32(device), "fp16": fp16})
