"""Requests for benchmarks/serving.py: closed loop, open loop, and clients that misbehave."""

import asyncio
import json
import random
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import httpx
from serving_servers import MODEL, Running
from stream import WORDS

Request = tuple[str, list[str]]
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64)


class Load:
    """Requests of made-up words.

    Args:
        seed: of the words.
        words: of a document, at most; it has 5 at least.
    """

    def __init__(self, seed: int, words: int = 100) -> None:
        self._random = random.Random(seed)
        self._most = words

    def request(self, documents: int) -> Request:
        """Return a query and documents."""
        lengths = [self._random.randint(5, self._most) for _ in range(documents)]
        return self._words(6), [self._words(length) for length in lengths]

    def _words(self, count: int) -> str:
        return " ".join(self._random.choices(WORDS, k=count))


def body(request: Request) -> bytes:
    """Return a request as all of the servers read it."""
    query, documents = request
    fields = {"query": query, "documents": documents, "model": MODEL.name}
    return json.dumps(fields | {"return_documents": False}).encode()


def client(url: str) -> httpx.AsyncClient:
    """Return a client of a server."""
    headers = {"Content-Type": "application/json"}
    return httpx.AsyncClient(base_url=url, timeout=600, limits=LIMITS, headers=headers)


async def closed_loop(url: str, clients: int, documents: int, seconds: float, seed: int) -> float:
    """Return pairs per second; each client sends its next request when it has its answer."""
    done = 0
    began = time.perf_counter()

    async def ask(number: int) -> None:
        nonlocal done
        load = Load(seed + number)
        bodies = [body(load.request(documents)) for _ in range(10)]
        async with client(url) as session:
            turn = 0
            while time.perf_counter() - began < seconds:
                answer = await session.post("/rerank", content=bodies[turn % len(bodies)])
                done += len(answer.raise_for_status().json()["results"])
                turn += 1

    await asyncio.gather(*map(ask, range(clients)))
    return done / (time.perf_counter() - began)


async def open_loop(
    url: str, rate: float, seconds: float, documents: int, seed: int, **headers: str
) -> list[tuple[int, float, float]]:
    """Return (status, seconds from arrival to answer, and to sending), with Poisson arrivals."""
    rng, load = random.Random(seed), Load(seed)
    bodies = [body(load.request(documents)) for _ in range(50)]
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    found: list[tuple[int, float, float]] = []

    async def ask(session: httpx.AsyncClient, arrival: float) -> None:
        late = time.perf_counter() - arrival
        answer = await session.post("/rerank", content=rng.choice(bodies), headers=named)
        found.append((answer.status_code, time.perf_counter() - arrival, late))

    async with client(url) as session, asyncio.TaskGroup() as tasks:
        arrival = began = time.perf_counter()
        while (arrival := arrival + rng.expovariate(rate)) - began < seconds:
            await asyncio.sleep(max(0.0, arrival - time.perf_counter()))
            tasks.create_task(ask(session, arrival))
    return found


async def one_by_one(url: str, seconds: float, documents: int, seed: int) -> list[float]:
    """Return the seconds of requests that find nobody else."""
    load, found = Load(seed), []
    async with client(url) as session:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            content = body(load.request(documents))
            began = time.perf_counter()
            (await session.post("/rerank", content=content)).raise_for_status()
            found.append(time.perf_counter() - began)
    return found


async def long_requests(url: str, documents: int, seed: int) -> None:
    """Ask for so many documents again and again, until cancelled."""
    load = Load(seed)
    async with client(url) as session:
        while True:
            await session.post("/rerank", content=body(load.request(documents)))


class Soak:
    """Clients of all kinds, and what came of their requests.

    Args:
        server: is asked.
        expected: requests, and the score of each document.
        seed: of the choices.
    """

    def __init__(
        self, server: Running, expected: list[tuple[Request, list[float]]], seed: int
    ) -> None:
        self._server = server
        self._expected = expected
        self._random = random.Random(seed)
        self.counts: Counter[str] = Counter()

    async def run(self, requests: int, clients: int) -> None:
        """Send so many requests, each client one at a time."""
        end = self.counts["requests"] + requests

        async def ask() -> None:
            async with client(self._server.url) as session:
                while self.counts["requests"] < end:
                    self.counts["requests"] += 1
                    draw = self._random.random()
                    if draw < 0.80:
                        await self._plain(session)
                    elif draw < 0.88:
                        await self._hang_up()
                    elif draw < 0.95:
                        await self._malformed(session)
                    else:
                        await self._slow()

        await asyncio.gather(*(ask() for _ in range(clients)))

    async def _plain(self, session: httpx.AsyncClient) -> None:
        request, scores = self._random.choice(self._expected)
        answer = await session.post("/rerank", content=body(request))
        self._count("plain", answer.status_code)
        self._compare(answer.json(), scores)

    async def _malformed(self, session: httpx.AsyncClient) -> None:
        content = bytearray(body(self._random.choice(self._expected)[0]))
        match self._random.randrange(3):
            case 0:
                content = content[: self._random.randrange(len(content))]
            case 1:
                content[self._random.randrange(len(content))] = self._random.randrange(256)
            case 2:
                content = bytearray(json.dumps({"query": 1, "documents": [[], None]}).encode())
        answer = await session.post("/rerank", content=bytes(content))
        self._count("malformed", answer.status_code)

    async def _hang_up(self) -> None:
        _, writer = await self._send(self._random.choice(self._expected)[0])
        await asyncio.sleep(self._random.random() * 0.05)
        writer.transport.abort()
        self._count("hang up", 0)

    async def _slow(self) -> None:
        request, scores = self._random.choice(self._expected)
        reader, writer = await self._send(request)
        parts = []
        while part := await reader.read(64):
            parts.append(part)
            await asyncio.sleep(0.02)
        writer.close()
        head, _, content = b"".join(parts).partition(b"\r\n\r\n")
        self._count("slow", int(head.split()[1]))
        self._compare(json.loads(content), scores)

    async def _send(self, request: Request) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        place = urlsplit(self._server.url)
        reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=1024)
        content = body(request)
        head = "POST /rerank HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        await writer.drain()
        return reader, writer

    def _compare(self, answer: dict[str, Any], scores: list[float]) -> None:
        results = answer.get("results", [])
        got = {one["index"]: one["relevance_score"] for one in results}
        self.counts["right" if got == dict(enumerate(scores)) else "wrong"] += 1

    def _count(self, kind: str, status: int) -> None:
        self.counts[f"{kind} {status}" if status else kind] += 1
