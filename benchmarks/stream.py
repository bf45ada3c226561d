"""Memory along a long stream of pairs: it must not grow.

    python benchmarks/stream.py [--pairs N] [--model NAME_OR_PATH] [--report N] [--out FILE]

Pairs come from a generator, of 100,000 queries and documents of 5 to 300 made-up words, and are
scored by ``rerank_pairs`` under a progress bar. Printed every ``--report`` pairs: the resident
memory in MiB, how far the generator was read ahead, and pairs a second.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder

WORDS = [a + b + c for a in "bdfgklmnprst" for b in ("a", "ei", "o", "u") for c in ("l", "n", "")]
QUERIES = 100_000
MIB = 2**20


class Source:
    """A generator of pairs that counts how many were drawn.

    Attributes:
        drawn: pairs so far.
    """

    def __init__(self, pairs: int, seed: int = 0) -> None:
        self.drawn = 0
        self._pairs = pairs
        self._random = random.Random(seed)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for _ in range(self._pairs):
            self.drawn += 1
            yield (
                f"{self._words(6)} {self._random.randrange(QUERIES)}",
                self._words(self._random.randint(5, 300)),
            )

    def _words(self, count: int) -> str:
        return " ".join(self._random.choices(WORDS, k=count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--model", default=DEFAULT_RERANKER)
    parser.add_argument("--report", type=int, help="pairs from line to line; by default a tenth")
    parser.add_argument("--out", type=Path, help="JSON with the figures")
    given = parser.parse_args()
    every = given.report or max(1, given.pairs // 10)
    encoder = TextCrossEncoder(given.model)
    source = Source(given.pairs)
    loaded = resident()
    print(f"{given.model}: {loaded:.0f} MiB once loaded")
    print(f"{'pairs':>12}{'MiB':>8}{'ahead':>8}{'pairs/s':>10}")
    rows = []
    began = time.perf_counter()
    for done, _ in enumerate(encoder.rerank_pairs(iter(source), progress=True), start=1):
        if done % every == 0:
            row = {
                "pairs": done,
                "mib": round(resident(), 1),
                "ahead": source.drawn - done,
                "pairs_per_s": round(done / (time.perf_counter() - began), 1),
            }
            rows.append(row)
            print(
                f"{row['pairs']:>12,}{row['mib']:>8.0f}{row['ahead']:>8}{row['pairs_per_s']:>10.0f}"
            )
    if given.out:
        figures = {"model": given.model, "loaded_mib": round(loaded, 1), "stream": rows}
        given.out.write_text(json.dumps(figures, indent=1) + "\n")


def resident() -> float:
    """Memory of this process that is in use now, in MiB; Linux."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / MIB
    return float("nan")


if __name__ == "__main__":
    main()
