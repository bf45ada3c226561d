"""A soak: searches by 8 callers while points are added, changed and deleted, with faults.

    python -m benchmarks.soak                       # 20,000 searches
    python -m benchmarks.soak --seconds 60 --reranker tests/models/tiny-bert

Four threads share a ``HybridSearcher``, four tasks an ``AsyncHybridSearcher``, and two writers
change the collection through them, all over HTTP. There is no Qdrant server in it: the embedded
engine answers from another process, and 1 % of its answers are replaced by a fault on the socket
(what was asked for is done, the answer is lost). What is checked:

- every score is the score of the text that it comes with, computed again for that pair alone;
- every text is one that its point had while the search ran: none from before, none deleted;
- whatever is raised is an error of ours;
- memory is flat, and at the end no thread, descriptor or task is left.

The exit code is 1 if one of them fails.
"""

import argparse
import asyncio
import gc
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from qdrant_client import AsyncQdrantClient, QdrantClient, models

from qdrant_rerank import (
    DEFAULT_RERANKER,
    AsyncHybridSearcher,
    HybridSearcher,
    SearchOptions,
    TextCrossEncoder,
)
from qdrant_rerank.errors import QdrantRerankError
from qdrant_rerank.types import SearchResults
from tests.fault_server import Answer
from tests.faults import FAULTS, Held
from tests.loopback_qdrant import loopback_qdrant

THREADS, TASKS, DOCUMENTS, LIMIT = 4, 4, 200, 5
SAMPLED = 20  # searches from one look at the memory to the next, at most
FLAT_MB = 20  # growth that is no leak: the allocator's, after the first quarter
WORDS = "iron ore melts in a hot furnace bread rises copper wire river stone slow fire oven".split()
OPTIONS = SearchOptions(retries=3, timeout_s=2)
CANCELLED = 0.01  # share of the tasks' searches that are cancelled on the way
# An embedded engine on a loopback socket cannot be refused, nor is it worth waiting for a drip.
SOCKET_FAULTS = [fault for fault in FAULTS if fault.answer and fault.name not in {"drips", "404"}]


@dataclass
class Version:
    """A text of a point, or None where it was deleted, and when it was written."""

    text: str | None
    begun: float
    done: float = float("inf")


@dataclass
class Library:
    """What each point held, and when."""

    points: dict[int, list[Version]] = field(default_factory=dict)

    def begin(self, point: int, text: str | None) -> Version:
        """A write is about to be sent."""
        version = Version(text, time.monotonic())
        # The last ones are enough: a search sees none that was replaced before it began.
        self.points[point] = [*self.points.get(point, [])[-50:], version]
        return version

    def could_be_seen(self, point: int, text: str, begun: float) -> bool:
        """Whether a search that began then, and has just ended, may have found this text."""
        versions = self.points[point]
        for place, version in enumerate(versions):
            replaced = versions[place + 1].done if place + 1 < len(versions) else float("inf")
            if version.text == text and replaced >= begun:
                return True
        return False


@dataclass
class Soak:
    """The state of one run; what was counted is its report."""

    encoder: TextCrossEncoder
    searches: int
    until: float
    shelf: Library = field(default_factory=Library)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def another(self) -> bool:
        """Whether one more search is to be done, and count it."""
        with self.lock:
            if self.counts["searches"] >= self.searches or time.monotonic() > self.until:
                return False
            self.counts["searches"] += 1
            if self.counts["searches"] % min(SAMPLED, max(1, self.searches // 100)) == 0:
                self.memory.append(resident_mb())
            return True

    def over(self) -> bool:
        """Whether the writers may stop."""
        return self.counts["searches"] >= self.searches or time.monotonic() > self.until

    def check(self, results: SearchResults, began: float) -> None:
        """Every score is its text's, every text one that the point had."""
        self.seconds.append(time.monotonic() - began)
        self.counts[f"trace.status {results.trace.status}"] += 1
        self.counts["requests sent again"] += results.trace.retries
        for hit in results:
            if hit.payload is None:
                self.counts["hits deleted between the requests of a search"] += 1
                continue
            text = hit.payload["text"]
            [expected] = self.encoder.rerank(results.query, [text])
            if hit.rerank_score is None or abs(hit.rerank_score - expected) > 1e-4:
                self.wrong.append(f"point {hit.id}: {hit.rerank_score}, expected {expected}")
            if not self.shelf.could_be_seen(int(hit.id), text, began):
                self.wrong.append(f"point {hit.id} is back from the past: {text}")
        self.counts["hits checked"] += len(results)

    def failed(self, error: Exception) -> None:
        """An error of ours is counted, any other is wrong."""
        if isinstance(error, QdrantRerankError):
            self.counts[type(error).__name__] += 1
        else:
            self.wrong.append(f"{type(error).__name__}: {error}")


def some_words(chance: random.Random, count: int) -> str:
    return " ".join(chance.choice(WORDS) for _ in range(count))


def search_for(chance: random.Random) -> dict[str, Any]:
    """A query, and every other time a selection of the payload, which takes a second request."""
    selected = ["text"] if chance.random() < 0.5 else True
    return {"query": some_words(chance, 4), "limit": LIMIT, "with_payload": selected}


def sync_caller(soak: Soak, searcher: HybridSearcher, seed: int) -> None:
    chance = random.Random(seed)
    while soak.another():
        began = time.monotonic()
        try:
            soak.check(searcher.search(**search_for(chance)), began)
        except Exception as error:
            soak.failed(error)


async def async_caller(soak: Soak, searcher: AsyncHybridSearcher, seed: int) -> None:
    chance = random.Random(seed)
    while soak.another():
        began = time.monotonic()
        patience = 0.005 if chance.random() < CANCELLED else None
        try:
            async with asyncio.timeout(patience):
                found = await searcher.search(**search_for(chance))
            await asyncio.to_thread(soak.check, found, began)
        except TimeoutError as error:
            if patience is None or isinstance(error, QdrantRerankError):
                soak.failed(error)
            else:
                soak.counts["cancelled"] += 1
        except Exception as error:
            soak.failed(error)


def write(soak: Soak, searcher: HybridSearcher, chance: random.Random, points: range) -> None:
    """Add, change or delete one point, again and again until Qdrant has confirmed it."""
    point = chance.choice(points)
    versions = soak.shelf.points.get(point, [])
    present = bool(versions) and versions[-1].text is not None
    delete = present and chance.random() < 0.3
    text = None if delete else f"{some_words(chance, 8)} {point} {len(versions)} {chance.random()}"
    version = soak.shelf.begin(point, text)
    while True:
        try:
            if text is None:
                searcher.client.delete(searcher.collection, models.PointIdsList(points=[point]))
            else:
                searcher.add([text], ids=[point], progress=False)
            break
        except Exception as error:
            # The client's own call raises the client's own errors.
            if text is not None:
                soak.failed(error)
    version.done = time.monotonic()
    soak.counts["deleted" if delete else "changed" if present else "added"] += 1


def writer(soak: Soak, searcher: HybridSearcher, seed: int, points: range) -> None:
    chance = random.Random(seed)
    while not soak.over():
        write(soak, searcher, chance, points)
        time.sleep(0.02)


async def soak_it(soak: Soak, url: str) -> None:
    client = QdrantClient(url=url, check_compatibility=False, timeout=2)
    aclient = AsyncQdrantClient(url=url, check_compatibility=False, timeout=2)
    make = {"reranker": soak.encoder, "candidates": 8, "options": OPTIONS}
    searcher = HybridSearcher("soak", client=client, **make)  # type: ignore[arg-type]
    chance = random.Random(0)
    for point in range(0, DOCUMENTS, 2):
        write(soak, searcher, chance, range(point, point + 1))
    half = DOCUMENTS // 2
    jobs = [partial(sync_caller, soak, searcher, seed) for seed in range(THREADS)]
    jobs += [partial(writer, soak, searcher, 100, range(half))]
    jobs += [partial(writer, soak, searcher, 101, range(half, DOCUMENTS))]
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    async with AsyncHybridSearcher("soak", client=aclient, **make) as other:  # type: ignore[arg-type]
        await asyncio.gather(*(async_caller(soak, other, 10 + task) for task in range(TASKS)))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await aclient.close()
    client.close()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    soak.wrong += [f"a task is left: {task}" for task in left]


def resident_mb() -> float:
    """Resident memory of this process, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def serve(faults: float) -> None:
    """The other process: an engine on a socket, until stdin ends; then what it answered."""
    chance, seen = random.Random(1), Counter[str]()

    def sabotage(method: str, path: str) -> Answer | None:
        seen["requests"] += 1
        if chance.random() >= faults:
            return None
        fault = chance.choice(SOCKET_FAULTS)
        seen[fault.name] += 1
        return fault.answer

    with loopback_qdrant(sabotage) as (url, _):
        print(url, flush=True)
        sys.stdin.read()
    print(json.dumps(seen), flush=True)


def growth_mb(memory: Sequence[float]) -> float:
    """The median of the last quarter less that of the second, MB."""
    quarter = len(memory) // 4
    if not quarter:
        return 0.0
    return statistics.median(memory[-quarter:]) - statistics.median(memory[quarter : 2 * quarter])


def report(soak: Soak, answered: Mapping[str, int], took: float) -> None:
    counts, times = soak.counts, sorted(soak.seconds)
    faults = sum(answered.values()) - answered["requests"]
    print(f"{counts['searches']:,} searches by {THREADS} threads and {TASKS} tasks, {took:.0f} s")
    if times:
        half, most = times[len(times) // 2], times[int(len(times) * 0.99)]
        print(f"a search takes {half * 1e3:.0f} ms, 1 in 100 more than {most * 1e3:.0f} ms")
    print(f"{answered['requests']:,} requests, {faults} of them answered by a fault:")
    for name, count in sorted(answered.items()):
        if name != "requests":
            print(f"  {name:<40}{count:>8,}")
    print("counted:")
    for name, count in sorted(counts.items()):
        print(f"  {name:<40}{count:>8,}")
    if soak.memory:
        print(
            f"memory: {soak.memory[0]:.0f} MB at first, {max(soak.memory):.0f} at most, "
            f"{soak.memory[-1]:.0f} at the end; the last quarter {growth_mb(soak.memory):+.1f} MB "
            "against the second"
        )
    print(f"wrong: {len(soak.wrong)}")
    for line in soak.wrong[:20]:
        print(f"  {line}")


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--searches", type=int, default=20_000, help="at most")
    parser.add_argument("--seconds", type=float, help="stop after so many, if that is earlier")
    parser.add_argument("--faults", type=float, default=0.01, help="share of faulty answers")
    parser.add_argument("--reranker", default=DEFAULT_RERANKER, help="a name, or a directory")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.faults)
        return 0
    encoder = TextCrossEncoder(given.reranker)
    encoder.score_pairs([(WORDS[0], " ".join(WORDS))] * 64)  # starts the process's own threads
    before, began = Held.now(), time.monotonic()
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.soak", "--serve", "--faults", str(given.faults)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    until = began + (given.seconds or float("inf"))
    soak = Soak(encoder, given.searches, until)
    asyncio.run(soak_it(soak, server.stdout.readline().strip()))
    answered = json.loads(server.communicate()[0])
    gc.collect()
    give_up = time.monotonic() + 5
    while (left := Held.now().left_since(before)) and time.monotonic() < give_up:
        time.sleep(0.01)
    soak.wrong += [f"left behind: {name}" for name in left]
    if growth_mb(soak.memory) > FLAT_MB:
        soak.wrong.append(f"memory grew by {growth_mb(soak.memory):.1f} MB")
    report(soak, answered, time.monotonic() - began)
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
