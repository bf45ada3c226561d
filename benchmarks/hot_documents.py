"""What caches save for documents that are read again and again.

    python benchmarks/hot_documents.py [DATA_DIR] [--model NAME ...] [--documents N] [--out FILE]

For made-up documents of three lengths, milliseconds of processor time a pair, best of three: the
whole model; tokenising, which is all that a cache of token ids could spare; both halves of the
split model, for documents that are new and that are hot (``document_cache``); and a pair whose
score is kept (``score_cache``). Beside it the bytes that a hot document takes. With DATA_DIR also
what the split costs: nDCG@10 on ``dl19`` of the whole and of the halves, and the difference of
their scores.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from arguments import existing_path
from stream import WORDS

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from qdrant_rerank.cross_encoder.document_cache import TwoPartRuntime
from qdrant_rerank.evaluation import evaluate_run
from qdrant_rerank.evaluation.corpus import read_corpus, read_queries
from qdrant_rerank.evaluation.trec import read_qrels, read_run

LENGTHS = {"short": (15, 35), "mixed": (15, 250), "long": (200, 300)}  # words of a document
QUERIES = ("which bread rises", "the melting point of iron", "how deep is the sea")
ROOM = 2_000_000_000  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=existing_path, nargs="?")
    parser.add_argument("--model", action="append", help="may be repeated")
    parser.add_argument("--documents", type=int, default=50)
    parser.add_argument("--out", type=Path, help="JSON with the figures")
    given = parser.parse_args()
    figures: dict[str, Any] = {}
    columns = ("whole", "tokens", "new", "hot", "kept", "hot x", "tokens %", "kB")
    print(f"{'model':<22}{'documents':<11}" + "".join(f"{name:>9}" for name in columns))
    for model in given.model or [DEFAULT_RERANKER]:
        for length, words in LENGTHS.items():
            row = measure(model, words, given.documents)
            figures.setdefault(model, {})[length] = row
            print(f"{model:<22}{length:<11}" + "".join(f"{row[name]:>9.2f}" for name in columns))
        if given.data:
            loss = figures[model]["dl19"] = quality(model, given.data / "eval" / "dl19")
            print(f"{model:<22}{'dl19':<11}" + ", ".join(f"{k} {v:.4f}" for k, v in loss.items()))
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1) + "\n")


def measure(model: str, words: tuple[int, int], count: int) -> dict[str, float]:
    """Milliseconds of processor time a pair, and what follows from them."""
    rng = random.Random(0)
    documents = [" ".join(rng.choices(WORDS, k=rng.randint(*words))) for _ in range(count)]
    pairs = [(query, document) for query in QUERIES for document in documents]
    whole = TextCrossEncoder(model, threads=1)
    halves = TextCrossEncoder(model, threads=1, document_cache=ROOM)
    kept = TextCrossEncoder(model, threads=1, score_cache=ROOM)

    def first_time() -> float:
        encoder = TextCrossEncoder(model, threads=1, document_cache=ROOM)
        return best(lambda: encoder.rerank(QUERIES[0], documents), count, times=1)

    took = {
        "whole": best(lambda: whole.score_pairs(pairs), len(pairs)),
        "tokens": best(lambda: whole.token_count(pairs), len(pairs)),
        "new": min(first_time() for _ in range(3)),
    }
    halves.score_pairs(pairs)
    took["hot"] = best(lambda: halves.score_pairs(pairs), len(pairs))
    kept.score_pairs(pairs)
    took["kept"] = best(lambda: kept.score_pairs(pairs), len(pairs))
    runtime = halves._model.scorer().runtime
    assert isinstance(runtime, TwoPartRuntime)
    return took | {
        "hot x": took["whole"] / took["hot"],
        "tokens %": 100 * took["tokens"] / took["whole"],
        "kB": runtime.used_bytes / 1000 / (count + len(QUERIES)),
    }


def best(work: Callable[[], object], pairs: int, times: int = 3) -> float:
    """Milliseconds of processor time a pair: not wall time, so a busy machine disturbs less."""
    took = []
    for _ in range(times):
        began = time.process_time()
        work()
        took.append(time.process_time() - began)
    return 1000 * min(took) / pairs


def quality(model: str, folder: Path) -> dict[str, float]:
    """nDCG@10 of the whole and of the halves, and by how much their scores differ."""
    queries, corpus = (
        read_queries(folder / "queries.jsonl.gz"),
        read_corpus(folder / "corpus.jsonl.gz"),
    )
    qrels, run = (
        read_qrels(folder / "qrels_full.tsv.gz"),
        read_run(folder / "candidates_bm25_top100.tsv.gz"),
    )
    rerankers = {
        "whole": TextCrossEncoder(model),
        "halves": TextCrossEncoder(model, document_cache=ROOM // 10),
    }
    found = evaluate_run(run, corpus, {q: queries[q] for q in qrels}, qrels, reranker=rerankers)
    pairs = [(queries[q], corpus[d].content) for q in list(qrels)[:5] for d in run[q]]
    scores = [encoder.score_pairs(pairs).scores for encoder in rerankers.values()]
    return {name: float(found[name].values["after"]["nDCG@10"].mean()) for name in rerankers} | {
        "median difference": float(np.median(np.abs(scores[0] - scores[1]))),
        "largest": float(np.abs(scores[0] - scores[1]).max()),
        "spread of scores": float(scores[0].std()),
    }


if __name__ == "__main__":
    main()
