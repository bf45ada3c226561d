"""Waits for turns at a model, in computed time.

    python benchmarks/turns.py [--requests 14000]

Two workers, batches of one document of 5 to 100 words, Poisson arrivals of requests of 20 documents
at 70 % load, without and beside a client that sends 1,000 documents again and again. Times are in
those of a short request that is alone. The last line tells how far the p99 of a short measurement
is from that of a long one.
"""

import argparse
import statistics

from qdrant_rerank.serving.turns import Turns
from tests.turns import Request, short_times

FEW, RUNS = 334, 400  # requests of a measurement of 100 seconds, and how many of these


class FewestLeft:
    """The fewest tokens left first, and every eighth turn to the oldest: the order before."""

    def __init__(self) -> None:
        self._turns = 0

    def next(self, able: list[Request], first: int) -> Request:
        """Choose whose turn it is."""
        self._turns += 1
        if self._turns % 8 == 0:
            return able[0]
        return min(able, key=lambda one: (sum(one.batches), one.number))

    def took(self, number: int, tokens: int) -> None:
        """Nothing to count."""


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100, method="inclusive")[98]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=14_000)
    requests = parser.parse_args().requests
    for turns in (FewestLeft, Turns):
        for beside_long in (False, True):
            times = short_times(turns(), requests, beside_long=beside_long, seed=1)
            where = "beside a long one" if beside_long else "alone"
            p50 = statistics.median(times)
            print(
                f"{turns.__name__} {where}: p50 {p50:.1f}, p99 {p99(times):.1f}, "
                f"most {times[-1]:.1f}",
                flush=True,
            )
    found = [p99(short_times(Turns(), FEW, beside_long=False, seed=seed)) for seed in range(RUNS)]
    found.sort()
    low, middle, high = (found[int(share * RUNS)] for share in (0.05, 0.5, 0.95))
    print(
        f"p99 of {FEW} requests in {RUNS} runs: median {middle:.1f}, 90 % of them {low:.1f} to "
        f"{high:.1f}, most {found[-1]:.1f}"
    )


if __name__ == "__main__":
    main()
