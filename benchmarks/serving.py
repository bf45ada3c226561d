"""The server beside the library, fastembed in FastAPI and Infinity; and under load.

    INFINITY=path/to/infinity_emb python benchmarks/serving.py [--scale 1] [--out FILE]

All servers run the bundled model's file on loopback, one at a time, and get the same requests from
the same load generator, which shares the cores with them. Without INFINITY it is left out.

- closed loop: 8 clients with 100 documents each, against the library in one process;
- latency: requests of 20 documents, unloaded, then with Poisson arrivals at 70 % of the measured
  pairs per second, then the same while one client sends 1,000 documents at a time;
- overload: five times the measured pairs per second, with two seconds for each request;
- soak: clients that hang up, send malformed bodies or read slowly among others. Scores have to be
  the library's to the bit.

Documents are made-up words, 5 to 300 of them.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from serving_load import Load, Soak, body, client, closed_loop, long_requests, one_by_one, open_loop
from serving_servers import Running, running

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder

CLIENTS, MIXED, SHORT, LONG = 8, 100, 20, 1000
LIMIT_S = 2  # of a request during the overload


def library(seconds: float, seed: int) -> float:
    """Return pairs per second of the library."""
    load, encoder = Load(seed), TextCrossEncoder(DEFAULT_RERANKER)
    requests = [load.request(MIXED) for _ in range(10)]
    encoder.rerank(*requests[0])
    pairs = turn = 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        pairs += len(encoder.rerank(*requests[turn % len(requests)]))
        turn += 1
    return pairs / (time.perf_counter() - began)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return how many there are, and percentiles in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {
        "requests": len(seconds),
        "p50_ms": round(cuts[49] * 1e3, 1),
        "p99_ms": round(cuts[98] * 1e3, 1),
        "max_ms": round(max(seconds) * 1e3, 1),
    }


async def latency(url: str, pairs_per_s: float, seconds: float) -> dict[str, Any]:
    """Measure short requests: unloaded, at 70 % load, and beside long ones."""
    rate = 0.7 * pairs_per_s / SHORT
    found: dict[str, Any] = {"arrivals_per_s": round(rate, 2)}
    found["unloaded"] = percentiles(await one_by_one(url, seconds / 2, SHORT, 1))
    loaded = await open_loop(url, rate, seconds, SHORT, 2)
    found["at_70_percent"] = percentiles([one for _, one in loaded])
    beside = asyncio.create_task(long_requests(url, LONG, 3))
    await asyncio.sleep(0.5)
    loaded = await open_loop(url, rate, seconds, SHORT, 4)
    beside.cancel()
    found["at_70_percent_beside_long"] = percentiles([one for _, one in loaded])
    return found


async def overload(server: Running, pairs_per_s: float, seconds: float) -> dict[str, Any]:
    """Measure five times what the server can do, and the second after it."""
    memory = [server.memory_mib()]

    async def watch() -> None:
        while True:
            await asyncio.sleep(0.5)
            memory.append(server.memory_mib())

    watching = asyncio.create_task(watch())
    rate = 5 * pairs_per_s / SHORT
    found = await open_loop(server.url, rate, seconds, SHORT, 5, X_Request_Timeout=str(LIMIT_S))
    # The last answer came at most LIMIT_S after the last request; this one comes a second later.
    await asyncio.sleep(1)
    content = body(Load(6).request(SHORT))
    async with client(server.url) as session:
        await session.get("/health")
        began = time.perf_counter()
        after = await session.post("/rerank", content=content)
    after_ms = (time.perf_counter() - began) * 1e3
    watching.cancel()
    by_status: dict[int, list[float]] = {}
    for status, taken in found:
        by_status.setdefault(status, []).append(taken)
    return {
        "arrivals_per_s": round(rate, 1),
        "limit_s": LIMIT_S,
        "by_status": {status: percentiles(taken) for status, taken in sorted(by_status.items())},
        "memory_mib": {"before": memory[0], "most": max(memory), "after": memory[-1]},
        "a_second_after": {"status": after.status_code, "ms": round(after_ms, 1)},
    }


async def soak(server: Running, seconds: float) -> dict[str, Any]:
    """Measure what comes of all kinds of requests, and what is left of them."""
    load, encoder = Load(7, words=40), TextCrossEncoder(DEFAULT_RERANKER, activation="sigmoid")
    requests = [load.request(1 + number % 4) for number in range(100)]
    expected = [(one, encoder.rerank(*one)) for one in requests]
    work = Soak(server, expected, 8)
    await work.run(seconds / 6, CLIENTS)
    before = {"memory_mib": server.memory_mib(), **server.handles()}
    await work.run(seconds * 5 / 6, CLIENTS)
    await asyncio.sleep(1)
    after = {"memory_mib": server.memory_mib(), **server.handles()}
    counts = dict(sorted(work.counts.items()))
    return {"counts": counts, "after_a_sixth": before, "at_the_end": after}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1, help="of all durations")
    parser.add_argument("--out", type=Path, help="JSON with the figures")
    given = parser.parse_args()
    unit = 10 * given.scale  # seconds

    record: dict[str, Any] = {"cores": os.cpu_count(), "machine": platform.machine()}

    def keep(**found: Any) -> None:
        record.update(found)
        print(json.dumps(found), flush=True)
        if given.out:
            given.out.write_text(json.dumps(record, indent=1) + "\n")

    keep(load_average_before=os.getloadavg()[0])
    rates: dict[str, float] = {"library": library(unit, 100)}
    starts: dict[str, float] = {}
    for name in ("ours", "fastembed", *(["infinity"] if "INFINITY" in os.environ else [])):
        with running(name) as server:
            rates[name] = asyncio.run(closed_loop(server.url, CLIENTS, MIXED, unit, 100))
            starts[name] = server.start_s
    rates["library_again"] = library(unit, 100)
    keep(pairs_per_s={name: round(rate, 1) for name, rate in rates.items()})
    keep(start_to_first_answer_s=starts)
    with running("ours") as server:
        keep(second_start_s=server.start_s)
        keep(latency=asyncio.run(latency(server.url, rates["ours"], 4 * unit)))
        keep(overload=asyncio.run(overload(server, rates["ours"], 2 * unit)))
    with running("ours") as server:
        keep(soak=asyncio.run(soak(server, 18 * unit)))
    keep(load_average_after=os.getloadavg()[0])


if __name__ == "__main__":
    main()
