"""Waits for turns at a model, in a time that is computed."""

import heapq
import random
from dataclasses import dataclass, field
from itertools import accumulate, count
from typing import Any

LOAD = 0.7


@dataclass
class Request:
    """A request whose batches are taken from the end."""

    number: int
    arrival: float
    batches: list[int]
    size: int = field(init=False)
    running: int = 0
    end: float = 0.0

    def __post_init__(self):
        self.size = sum(self.batches)


class Simulation:
    """Workers that read one token per second each, and the turns that they gave.

    Args:
        turns: the order; an object with ``next`` and ``took``.
        workers: batches at the same time.
    """

    def __init__(self, turns, workers):
        self.turns, self.idle = turns, workers
        self.now = 0.0
        self.waiting = {}
        self.done = []
        self.log = []  # (request, tokens, first request, those that wanted the turn)
        self.running = []
        self.numbers = count()

    def submit(self, batches):
        """Let a request come now."""
        made = Request(next(self.numbers), self.now, list(batches))
        self.waiting[made.number] = made
        self.give_turns()
        return made

    def give_turns(self):
        while self.idle and (able := [one for one in self.waiting.values() if one.batches]):
            first = next(iter(self.waiting))
            chosen = self.turns.next(able, first)
            tokens = chosen.batches.pop()
            self.turns.took(chosen.number, tokens)
            self.log.append((chosen, tokens, first, able))
            chosen.running += 1
            self.idle -= 1
            heapq.heappush(self.running, (self.now + tokens, chosen.number))

    def run_until(self, time):
        """Let the time pass; returns the requests that got their answer."""
        ended = []
        while self.running and self.running[0][0] <= time:
            self.now, number = heapq.heappop(self.running)
            one = self.waiting[number]
            one.running -= 1
            self.idle += 1
            if not (one.running or one.batches):
                one.end = self.now
                del self.waiting[number]
                ended.append(one)
            self.give_turns()
        self.now = max(self.now, time)
        self.done += ended
        return ended


def document_batches(rng, documents):
    """Tokens of batches of one document of 5 to 100 words each; the longest comes first."""
    return sorted(12 + int(1.35 * rng.randint(5, 100)) for _ in range(documents))


def short_times(turns: Any, requests: int, *, beside_long: bool, seed: int) -> list[float]:
    """Times of requests of 20 documents by that of one that is alone, sorted.

    Arrivals are Poisson's, at 70 % load on two workers. Beside them a client of 1,000 documents may
    ask again as soon as it has its answer.
    """
    rng = random.Random(seed)
    bodies = [document_batches(rng, 20) for _ in range(50)]
    long = document_batches(rng, 1000)
    alone = sum(map(sum, bodies)) / len(bodies) / 2
    made = Simulation(turns, 2)
    at_work = made.submit(long) if beside_long else None
    for arrival in accumulate(rng.expovariate(LOAD / alone) for _ in range(requests)):
        while made.running and made.running[0][0] <= arrival:
            if at_work in made.run_until(made.running[0][0]):
                at_work = made.submit(long)
        made.run_until(arrival)
        made.submit(rng.choice(bodies))
    return sorted((one.end - one.arrival) / alone for one in made.done if one.size < sum(long) / 2)
