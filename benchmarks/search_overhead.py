"""What a whole search takes beside its reranking alone, with the embedded engine.

    python benchmarks/search_overhead.py [--points 10000] [--queries 20] [--candidates 100]
                                         [--reranker NAME_OR_PATH] [--out FILE]

Points with texts of 40 to 470 tokens (5th to 95th percentile), of random words. For each query, in
turn: ``search`` (embed, recall by BM25 and the static embedder, fuse, rerank, order), and
``rerank`` of the same candidates' texts. The ratio is taken query by query. QDRANT_URL is not
looked at; QDRANT_PATH, if set, is the directory of the engine.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import random
import time
from pathlib import Path
from statistics import median
from typing import Any

from peers.workloads import pair_lengths, read_words

from qdrant_rerank import DEFAULT_RERANKER, HybridSearcher, TextCrossEncoder
from qdrant_rerank.hub.specs import BUNDLED_DIRECTORY
from qdrant_rerank.utils.atomic_files import atomic_text

QUERY_WORDS = 8
WARM_UP = 2  # queries
PACKAGES = ("qdrant-rerank", "qdrant-client", "qdrant-edge-py", "onnxruntime", "tokenizers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--reranker", default=DEFAULT_RERANKER)
    parser.add_argument("--out", type=Path, help="JSON with the times of every query")
    given = parser.parse_args()
    os.environ.pop("QDRANT_URL", None)
    reranker = TextCrossEncoder(given.reranker)
    with HybridSearcher("overhead", reranker=reranker, candidates=given.candidates) as searcher:
        words = read_words(BUNDLED_DIRECTORY / DEFAULT_RERANKER / "tokenizer.json")
        rng = random.Random(0)
        began = time.perf_counter()
        searcher.add(texts(words, given.points, rng), progress=False)
        print(f"{given.points:,} points indexed in {time.perf_counter() - began:.1f} s")
        queries = [" ".join(rng.choices(words, k=QUERY_WORDS)) for _ in range(given.queries)]
        for query in queries[:WARM_UP]:
            searcher.search(query)
        rows = [measure(searcher, reranker, query, turn) for turn, query in enumerate(queries)]
        engine = type(searcher.client).__name__
    ratios = [row["search_s"] / row["rerank_s"] for row in rows]
    middle = {name: median(row[name] for row in rows) for name in rows[0]}
    print(f"{engine}, {given.candidates} candidates, {reranker!r}, medians of {len(rows)} queries")
    print("  ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in middle.items()))
    print(
        f"search takes {median(ratios) - 1:+.1%} beside rerank alone "
        f"({min(ratios) - 1:+.1%} to {max(ratios) - 1:+.1%})"
    )
    if given.out:
        found = {
            "engine": engine,
            "points": given.points,
            "candidates": given.candidates,
            "reranker": given.reranker,
            "versions": versions(),
            "ratios": ratios,
            "queries": rows,
        }
        with atomic_text(given.out) as file:
            json.dump(found, file, indent=1)


def versions() -> dict[str, str]:
    """Of what the search runs on."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def texts(words: list[str], count: int, rng: random.Random) -> list[str]:
    """Random documents of mixed lengths."""
    return [" ".join(rng.choices(words, k=length)) for length in pair_lengths("mixed", count)]


def measure(
    searcher: HybridSearcher, reranker: TextCrossEncoder, query: str, turn: int
) -> dict[str, Any]:
    """Seconds of a search, its stages, and of reranking the same texts; either first, in turn."""
    candidates = [
        str((point.payload or {})["text"])
        for point in searcher.search(query, limit=searcher.candidates)
    ]

    def search() -> dict[str, float]:
        began = time.perf_counter()
        trace = searcher.search(query).trace
        seconds = time.perf_counter() - began
        stages = {name: getattr(trace, name) for name in ("embed_s", "recall_s", "tokenize_s")}
        return {"search_s": seconds, **stages}

    def rerank() -> dict[str, float]:
        began = time.perf_counter()
        reranker.rerank(query, candidates)
        return {"rerank_s": time.perf_counter() - began}

    return search() | rerank() if turn % 2 else rerank() | search()


if __name__ == "__main__":
    main()
