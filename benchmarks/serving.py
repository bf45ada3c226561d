"""The server beside the library, fastembed in FastAPI and Infinity; and under load.

    INFINITY=path/to/infinity_emb python benchmarks/serving.py [--scale 1] [--out FILE]
        [--only speed --only latency --only overload --only soak] [--requests 100000]

All servers run the bundled model's file on loopback, one at a time, and get the same requests from
the same load generator, which shares the cores with them. Without INFINITY it is left out.

- closed loop: 8 clients with 100 documents each, against the library in one process;
- latency: requests of 20 documents, unloaded, then with Poisson arrivals at 70 % of the measured
  pairs per second, then the same while one client sends 1,000 documents at a time;
- overload: five times the measured pairs per second, with two seconds for each request;
- soak, with the smaller bundled model: clients that hang up, send malformed bodies or read slowly
  among others, however long it takes. Scores have to be the library's to the bit.

Documents are made-up words, 5 to 100 of them, and 6 at most in the soak.
"""

import argparse
import asyncio
import gc
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from serving_load import Load, Soak, body, client, closed_loop, long_requests, one_by_one, open_loop
from serving_servers import SMALL, Running, running

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder

CLIENTS, MIXED, SHORT, LONG = 8, 100, 20, 1000
LIMIT_S = 2  # of a request during the overload


def library(seconds: float, seed: int) -> float:
    """Return pairs per second of the library."""
    made, encoder = Load(seed), TextCrossEncoder(DEFAULT_RERANKER)
    requests = [made.request(MIXED) for _ in range(10)]
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
    found["at_70_percent"] = percentiles([one for _, one, _ in loaded])
    beside = asyncio.create_task(long_requests(url, LONG, 3))
    await asyncio.sleep(0.5)
    loaded = await open_loop(url, rate, seconds, SHORT, 4)
    beside.cancel()
    found["at_70_percent_beside_long"] = percentiles([one for _, one, _ in loaded])
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
    for status, taken, _ in found:
        by_status.setdefault(status, []).append(taken)
    return {
        "arrivals_per_s": round(rate, 1),
        "limit_s": LIMIT_S,
        "by_status": {status: percentiles(taken) for status, taken in sorted(by_status.items())},
        "sent_late": percentiles([late for _, _, late in found]),  # the load generator's own part
        "memory_mib": {"before": memory[0], "most": max(memory), "after": memory[-1]},
        "a_second_after": {"status": after.status_code, "ms": round(after_ms, 1)},
    }


async def soak(server: Running, requests: int) -> dict[str, Any]:
    """Measure what comes of all kinds of requests, and what is left of them."""
    made, encoder = Load(7, words=6), TextCrossEncoder(SMALL, activation="sigmoid")
    asked = [made.request(1 + number % 2) for number in range(200)]
    work = Soak(server, [(one, encoder.rerank(*one)) for one in asked], 8)
    began = time.perf_counter()
    await work.run(requests // 10, CLIENTS)
    before = {"memory_mib": server.memory_mib(), **server.handles()}
    await work.run(requests - requests // 10, CLIENTS)
    seconds = time.perf_counter() - began
    await asyncio.sleep(1)
    after = {"memory_mib": server.memory_mib(), **server.handles()}
    counts = dict(sorted(work.counts.items()))
    left = {"after_a_tenth": before, "at_the_end": after}
    return {"seconds": round(seconds), "counts": counts, **left}


def speed(seconds: float) -> dict[str, Any]:
    """Measure pairs per second of the library and of each server, and how long servers start."""
    rates: dict[str, float] = {"library": library(seconds, 100)}
    starts: dict[str, float] = {}
    for name in ("ours", "fastembed", *(["infinity"] if "INFINITY" in os.environ else [])):
        with running(name) as server:
            rates[name] = asyncio.run(closed_loop(server.url, CLIENTS, MIXED, seconds, 100))
            starts[name] = server.start_s
    rates["library again"] = library(seconds, 100)
    return {
        "pairs_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "start_to_first_answer_s": starts,
    }


def latencies(seconds: float) -> dict[str, Any]:
    """Measure latency."""
    with running("ours") as server:
        rate = asyncio.run(closed_loop(server.url, 2, SHORT, seconds, 100))
        found = asyncio.run(latency(server.url, rate, 10 * seconds))
        return {"pairs_per_s": round(rate, 1), **found}


def overloaded(seconds: float) -> dict[str, Any]:
    """Measure an overload."""
    with running("ours") as server:
        rate = asyncio.run(closed_loop(server.url, 2, SHORT, seconds, 100))
        found = asyncio.run(overload(server, rate, 6 * seconds))
        return {"pairs_per_s": round(rate, 1), **found}


def soaked(requests: int) -> dict[str, Any]:
    """Measure a soak."""
    with running("ours, small") as server:
        return asyncio.run(soak(server, requests))


PARTS = {"speed": speed, "latency": latencies, "overload": overloaded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1, help="of all durations")
    parser.add_argument("--only", action="append", choices=[*PARTS, "soak"], help="default: all")
    parser.add_argument("--requests", type=int, default=100_000, help="of the soak")
    parser.add_argument("--out", type=Path, help="JSON with the figures, added to what it has")
    given = parser.parse_args()
    gc.freeze()  # a full collection of all that is loaded would make the load generator late
    record: dict[str, Any] = {}
    if given.out and given.out.exists():
        record = json.loads(given.out.read_text())
    for name in given.only or [*PARTS, "soak"]:
        busy = os.getloadavg()[0]
        found = PARTS[name](10 * given.scale) if name in PARTS else soaked(given.requests)
        # What else the machine did: the load before includes nothing of this measurement.
        found |= {"cores": os.cpu_count(), "load_average_before": round(busy, 1)}
        record[name] = found
        print(json.dumps({name: found}), flush=True)
        if given.out:
            given.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
