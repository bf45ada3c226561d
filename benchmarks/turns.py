"""Waits for turns at a model, in computed time.

    python benchmarks/turns.py [--requests 14000]

Two workers, batches of one document of 5 to 100 words, Poisson arrivals of requests of 20 documents
at 70 % load, without and beside a client that sends 1,000 documents again and again. Times are in
those of a short request that is alone.
"""

import argparse
import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from qdrant_rerank.serving.turns import Turns

WORKERS, SHORT, LONG, LOAD = 2, 20, 1000, 0.7


@dataclass
class Request:
    """A request; the next batch is the last one of its batches."""

    number: int
    arrival: float
    batches: list[int]
    size: int = field(init=False)
    running: int = 0

    def __post_init__(self) -> None:
        self.size = sum(self.batches)


class FewestLeft:
    """The fewest tokens left first, and every eighth turn to the oldest: the order before."""

    def __init__(self) -> None:
        self._turns = 0

    def next(self, able: Sequence[Request], first: int) -> Request:
        """Choose whose turn it is."""
        self._turns += 1
        if self._turns % 8 == 0:
            return able[0]
        return min(able, key=lambda one: (sum(one.batches), one.number))

    def took(self, number: int, tokens: int) -> None:
        """Nothing to count."""


def batches(rng: random.Random, documents: int) -> list[int]:
    """Return tokens of documents, the longest last."""
    return sorted(12 + int(1.35 * rng.randint(5, 100)) for _ in range(documents))


def simulate(turns: Turns | FewestLeft, requests: int, *, beside_long: bool) -> list[float]:
    """Return the times of the short requests."""
    rng = random.Random(1)
    bodies, long = [batches(rng, SHORT) for _ in range(50)], batches(rng, LONG)
    alone = sum(map(sum, bodies)) / len(bodies) / WORKERS
    waiting: dict[int, Request] = {}
    running: list[tuple[float, int]] = []
    numbers = count()
    times: list[float] = []
    now, arrival, idle = 0.0, rng.expovariate(LOAD / alone), WORKERS
    if beside_long:
        waiting[0] = Request(next(numbers), now, list(long))
    while len(times) < requests:
        while idle and (able := [one for one in waiting.values() if one.batches]):
            one = turns.next(able, next(iter(waiting)))
            tokens = one.batches.pop()
            turns.took(one.number, tokens)
            one.running += 1
            idle -= 1
            heapq.heappush(running, (now + tokens, one.number))
        if not running or arrival < running[0][0]:
            now, arrival = arrival, arrival + rng.expovariate(LOAD / alone)
            number = next(numbers)
            waiting[number] = Request(number, now, list(rng.choice(bodies)))
            continue
        now, number = heapq.heappop(running)
        one = waiting[number]
        one.running -= 1
        idle += 1
        if not (one.running or one.batches):
            del waiting[number]
            if one.size == sum(long):
                number = next(numbers)
                waiting[number] = Request(number, now, list(long))
            else:
                times.append((now - one.arrival) / alone)
    return sorted(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=14_000)
    requests = parser.parse_args().requests
    for turns in (FewestLeft, Turns):
        for beside_long in (False, True):
            times = simulate(turns(), requests, beside_long=beside_long)
            p50, p99 = times[requests // 2], times[int(0.99 * requests)]
            where = "beside a long one" if beside_long else "alone"
            print(f"{turns.__name__} {where}: p50 {p50:.1f}, p99 {p99:.1f}, most {times[-1]:.1f}")


if __name__ == "__main__":
    main()
