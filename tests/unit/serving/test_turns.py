"""The order of turns, in a time that is computed: who waits for whom, and how long."""

import heapq
import random
from dataclasses import dataclass, field
from itertools import accumulate, count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdrant_rerank.serving.turns import SIMILAR, Turns, in_order

SHARE = 8  # the first request has one token of so many


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


LARGEST = 9  # tokens of a batch
BATCH = st.integers(1, LARGEST)
SHORT, LONG = st.lists(BATCH, min_size=1, max_size=5), st.lists(BATCH, min_size=20, max_size=40)
PAUSES = st.sampled_from([0, 0, 1, 5, 50])
ARRIVALS = st.lists(st.tuples(PAUSES, SHORT | LONG), min_size=1, max_size=50)


@pytest.mark.parametrize("workers", [1, 2, 5])
@settings(max_examples=40, deadline=None)
@given(arrivals=ARRIVALS)
def test_nobody_waits_for_a_longer_request_and_the_first_has_its_share(workers, arrivals):
    """Both at once: the first request has an eighth, and only this is taken out of turn."""
    made = Simulation(Turns(), workers)
    for pause, batches in arrivals:
        made.run_until(made.now + pause)
        made.submit(batches)
    made.run_until(float("inf"))
    assert len(made.done) == len(arrivals)
    first_before, of_first, of_all, out_of_turn = -1, 0, 0, 0
    for chosen, tokens, first, able in made.log:
        if first != first_before:
            first_before, of_first, of_all, out_of_turn = first, 0, 0, 0
        if able[0].number == first and chosen.number != first:
            assert of_first >= of_all / SHARE
        of_all += tokens
        of_first += tokens if chosen.number == first else 0
        if any(goes_before(one, chosen) for one in able):
            assert chosen.number == first
            out_of_turn += tokens
        assert out_of_turn <= of_all / SHARE + LARGEST


def goes_before(one, other):
    """Whether a request does not wait for another one: it is much shorter, or shorter and older."""
    if other.size > SIMILAR * one.size:
        return True
    return one.number < other.number and one.size <= other.size


@given(st.lists(st.integers(0, 20), max_size=30))
def test_the_order_that_is_foretold_is_that_of_the_turns(sizes):
    """Of requests of one batch each, of which the first is owed nothing."""
    left = [Request(number, 0.0, [size]) for number, size in enumerate(sizes)]
    foretold = list(in_order(left[::-1]))
    turns = Turns()
    for one in foretold:
        assert turns.next(left, first=-1) is one
        left.remove(one)
    assert not left


def short_bodies(rng):
    """Tokens of the batches of requests of 20 documents of 5 to 100 words."""
    return [document_batches(rng, 20) for _ in range(50)]


def document_batches(rng, documents):
    """Tokens of batches of one document each; the longest comes first."""
    return sorted(12 + int(1.35 * rng.randint(5, 100)) for _ in range(documents))


def p99_at_70_percent(turns, *, beside_long):
    """The time that one of a hundred short requests exceeds, by that of one that is alone.

    Arrivals are Poisson's, on two workers. A client of 1,000 documents asks again as soon as it has
    its answer.
    """
    rng = random.Random(3)
    bodies = short_bodies(rng)
    long = document_batches(rng, 1000)
    alone = sum(map(sum, bodies)) / len(bodies) / 2
    made = Simulation(turns, 2)
    at_work = made.submit(long) if beside_long else None
    arrivals = list(accumulate(rng.expovariate(0.7 / alone) for _ in range(2000)))
    for arrival in arrivals:
        while made.running and made.running[0][0] <= arrival:
            if at_work in made.run_until(made.running[0][0]):
                at_work = made.submit(long)
        made.run_until(arrival)
        made.submit(rng.choice(bodies))
    times = sorted(one.end - one.arrival for one in made.done if one.size < sum(long) / 2)
    assert len(times) > 1900
    return times[int(0.99 * len(times))] / alone


class FirstComeFirstServed:
    """The order of arrival, in which the slowest of requests of one length are fastest."""

    def next(self, able, first):
        """The oldest."""
        return able[0]

    def took(self, number, tokens=None):
        """Nothing to count."""


def test_a_client_of_long_requests_costs_the_short_ones_little():
    """Without it they are as fast as first come, first served; with it p99 is at most 20 % more."""
    floor = p99_at_70_percent(FirstComeFirstServed(), beside_long=False)
    assert 6 < floor < 9  # so that no order reaches 4
    assert p99_at_70_percent(Turns(), beside_long=False) <= 1.01 * floor
    assert p99_at_70_percent(Turns(), beside_long=True) <= 1.2 * floor
