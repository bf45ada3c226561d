"""The server against the library: pairs per second, and short requests beside long ones.

    python benchmarks/serving.py [--model NAME_OR_PATH] [--clients 8] [--documents 100]
        [--seconds 10] [--rounds 3] [--out FILE]

Each round measures one after the other, with the same documents and the same model file:

- the library in this process: ``rerank`` of one query after the other;
- a server on loopback, in a process of its own, in a closed loop: each client sends its next
  request when it has its answer;
- requests of 20 documents, one at a time, alone and while one client sends 1,000 documents.

Documents are made-up words, 5 to 300 of them.
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from stream import WORDS

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder

SHORT, LONG = 20, 1000  # documents per request


class Load:
    """Requests of made-up words.

    Args:
        seed: of the words.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def request(self, documents: int) -> tuple[str, list[str]]:
        """Return a query and documents."""
        return self._words(6), [self._words(self._random.randint(5, 300)) for _ in range(documents)]

    def _words(self, count: int) -> str:
        return " ".join(self._random.choices(WORDS, k=count))


@contextmanager
def server(model: str) -> Iterator[str]:
    """Start a server; yields its URL."""
    command = [sys.executable, "-m", "qdrant_rerank", "serve", "--port", "0", "--model", model]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.match(r"Listening on (\S+)", line):
                # Nobody reads the log, and a full pipe would stop the server.
                threading.Thread(target=process.stderr.read, daemon=True).start()
                yield found[1]
                return
        raise SystemExit("The server did not start.")
    finally:
        process.terminate()
        process.wait()


def library(encoder: TextCrossEncoder, documents: int, seconds: float, seed: int) -> float:
    """Return pairs per second of the library."""
    load = Load(seed)
    requests = [load.request(documents) for _ in range(20)]
    pairs = 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        query, texts = requests[pairs // documents % len(requests)]
        pairs += len(encoder.rerank(query, texts))
    return pairs / (time.perf_counter() - began)


def closed_loop(url: str, clients: int, documents: int, seconds: float, seed: int) -> float:
    """Return pairs per second of the server."""
    done: list[int] = []
    end = time.perf_counter() + seconds

    def ask(client: int) -> None:
        load = Load(seed + client)
        requests = [load.request(documents) for _ in range(20)]
        with httpx.Client(timeout=600) as session:
            number = 0
            while time.perf_counter() < end:
                query, texts = requests[number % len(requests)]
                number += 1
                answer = session.post(url + "/rerank", json={"query": query, "texts": texts})
                done.append(len(answer.raise_for_status().json()))

    began = time.perf_counter()
    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - began)


def latencies(url: str, seconds: float, seed: int, *, beside: bool) -> list[float]:
    """Return the seconds of short requests, alone or beside a client of long ones."""
    stop = threading.Event()

    def ask_long() -> None:
        load = Load(seed + 1)
        with httpx.Client(timeout=600) as session:
            while not stop.is_set():
                query, texts = load.request(LONG)
                session.post(url + "/rerank", json={"query": query, "texts": texts})

    thread = threading.Thread(target=ask_long, daemon=True)
    load = Load(seed)
    found = []
    with httpx.Client(timeout=600) as session:
        if beside:
            thread.start()
            time.sleep(1)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            query, texts = load.request(SHORT)
            began = time.perf_counter()
            answer = session.post(url + "/rerank", json={"query": query, "texts": texts})
            answer.raise_for_status()
            found.append(time.perf_counter() - began)
    stop.set()
    return found


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return the 50th and the 99th percentile, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50_ms": round(cuts[49] * 1e3, 1), "p99_ms": round(cuts[98] * 1e3, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_RERANKER)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON with the figures")
    given = parser.parse_args()
    encoder = TextCrossEncoder(given.model)
    encoder.rerank(*Load(0).request(given.documents))
    rounds: list[dict[str, Any]] = []
    with server(given.model) as url:
        for number in range(given.rounds):
            seed = 1000 * number
            own = library(encoder, given.documents, given.seconds, seed)
            served = closed_loop(url, given.clients, given.documents, given.seconds, seed)
            alone = percentiles(latencies(url, given.seconds, seed, beside=False))
            beside = percentiles(latencies(url, given.seconds, seed, beside=True))
            rounds.append(
                {
                    "library_pairs_per_s": round(own, 1),
                    "server_pairs_per_s": round(served, 1),
                    "share": round(served / own, 3),
                    "short_alone": alone,
                    "short_beside_long": beside,
                }
            )
            print(json.dumps(rounds[-1]))
    share = statistics.median(one["share"] for one in rounds)
    print(f"The server reaches {share:.0%} of the library's pairs per second.")
    if given.out:
        given.out.write_text(json.dumps(vars(given) | {"out": None, "rounds": rounds}, indent=1))


if __name__ == "__main__":
    main()
