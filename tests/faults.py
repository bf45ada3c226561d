"""The ways a Qdrant can be in trouble: what the caller sees, and whether asking again may help.

Over REST and over gRPC; :func:`in_trouble` starts the server of either.
"""

import gc
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpc import StatusCode
from qdrant_client import grpc as pb
from qdrant_client import models
from qdrant_client.conversions.conversion import RestToGrpc

from qdrant_rerank.errors import (
    CollectionNotFoundError,
    QdrantConnectionError,
    QdrantRequestError,
    QdrantRerankError,
)
from tests import fault_grpc
from tests.fault_grpc import http_status, reply, serving_grpc, status
from tests.fault_server import (
    Answer,
    Script,
    answer,
    broken_off,
    dripping,
    dripping_headers,
    garbage,
    hanging,
    refused,
    reset,
    serving,
)


def refusal(text: str) -> bytes:
    """As Qdrant says no."""
    return json.dumps({"status": {"error": text}, "time": 0.0}).encode()


def _result(result: Any) -> Answer:
    return answer(200, json.dumps({"result": result, "status": "ok", "time": 0.0}).encode())


COLLECTION: dict[str, Any] = {
    "status": "green",
    "optimizer_status": "ok",
    "segments_count": 1,
    "config": {
        "params": {"vectors": {"size": 256, "distance": "Cosine"}},
        "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
        "optimizer_config": {
            "deleted_threshold": 0.2,
            "vacuum_min_vector_number": 1000,
            "default_segment_number": 0,
            "flush_interval_sec": 5,
        },
        "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
    },
    "payload_schema": {},
}
SCHEMA = _result(COLLECTION)
HIT = {"id": 1, "version": 0, "score": 0.5, "payload": {"text": "a"}}
FOUND = _result({"points": [HIT]})
STORED = _result({"operation_id": 1, "status": "completed"})


@dataclass(frozen=True)
class Fault:
    """One way to fail.

    Attributes:
        name: a few words.
        answer: what the server does; None where there is no server.
        error: what the caller sees.
        again: whether asking again may help.
        grpc: whether it is a gRPC server.
    """

    name: str
    answer: Callable[[Any], None] | None
    error: type[QdrantRerankError]
    again: bool
    grpc: bool = False


FAULTS = [
    Fault("refuses the connection", None, QdrantConnectionError, True),
    Fault("closes without a word", refused, QdrantConnectionError, True),
    Fault("hangs", hanging, QdrantConnectionError, True),
    Fault("drips", dripping, QdrantConnectionError, True),
    Fault("drips headers", dripping_headers, QdrantConnectionError, True),
    Fault("closes during the body", broken_off, QdrantConnectionError, True),
    Fault("resets during the body", reset, QdrantConnectionError, True),
    Fault("no HTTP", garbage, QdrantConnectionError, False),
    Fault("200 with HTML", answer(200, b"<html>login</html>"), QdrantConnectionError, False),
    Fault("200 with nothing", answer(200, b""), QdrantConnectionError, False),
    Fault("200 with null", _result(None), QdrantConnectionError, False),
    Fault(
        "200 with a wrong schema",
        _result({"points": [{"id": []}], "status": 1}),
        QdrantConnectionError,
        False,
    ),
    Fault("400", answer(400, refusal("bad filter")), QdrantRequestError, False),
    Fault("401", answer(401, b"key?"), QdrantRequestError, False),
    Fault("403", answer(403, refusal("no")), QdrantRequestError, False),
    Fault("404", answer(404, refusal("Collection `docs`")), CollectionNotFoundError, False),
    Fault("422", answer(422, refusal("what")), QdrantRequestError, False),
    Fault("429", answer(429, refusal("slow down")), QdrantRequestError, True),
    Fault(
        "429, Retry-After in seconds",
        answer(429, refusal("slow down"), Retry_After="0"),
        QdrantRequestError,
        True,
    ),
    Fault(
        "429, Retry-After a date",
        answer(429, refusal("slow down"), Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
        QdrantRequestError,
        True,
    ),
    Fault("500", answer(500, refusal("panic")), QdrantConnectionError, False),
    Fault("502", answer(502, b"bad gateway"), QdrantConnectionError, True),
    Fault("503", answer(503, b""), QdrantConnectionError, True),
    Fault("504", answer(504, b""), QdrantConnectionError, True),
]


def _over_grpc(
    name: str,
    answer: fault_grpc.Answer | None,
    error: type[QdrantRerankError],
    again: bool,
) -> Fault:
    return Fault(f"gRPC: {name}", answer, error, again, grpc=True)


FAULTS_OVER_GRPC = [
    _over_grpc("refuses the connection", None, QdrantConnectionError, True),
    _over_grpc("closes without a word", fault_grpc.refused, QdrantConnectionError, True),
    _over_grpc("hangs", fault_grpc.hanging, QdrantConnectionError, True),
    _over_grpc("drips", fault_grpc.dripping, QdrantConnectionError, True),
    _over_grpc("closes during the answer", fault_grpc.broken_off, QdrantConnectionError, True),
    _over_grpc("resets during the answer", fault_grpc.reset, QdrantConnectionError, True),
    _over_grpc("resets the stream", fault_grpc.cancelled, QdrantConnectionError, True),
    _over_grpc("no HTTP/2", fault_grpc.garbage, QdrantConnectionError, False),
    _over_grpc("200 with HTML", http_status(200, b"<html>"), QdrantConnectionError, False),
    _over_grpc("a proxy's 404", http_status(404, b"<html>"), QdrantConnectionError, False),
    _over_grpc("a proxy's 503", http_status(503, b"<html>"), QdrantConnectionError, True),
    _over_grpc("half a message", fault_grpc.cut_short, QdrantConnectionError, False),
    _over_grpc("wrong bytes", reply(b"\xff" * 20), QdrantConnectionError, False),
    _over_grpc(
        "a hit without an id",
        reply(pb.QueryResponse(result=[pb.ScoredPoint(score=1)]).SerializeToString()),
        QdrantConnectionError,
        False,
    ),
    _over_grpc(
        "INVALID_ARGUMENT",
        status(StatusCode.INVALID_ARGUMENT, "Wrong input: bad filter"),
        QdrantRequestError,
        False,
    ),
    _over_grpc(
        "UNAUTHENTICATED",
        status(StatusCode.UNAUTHENTICATED, "Invalid API key or JWT"),
        QdrantRequestError,
        False,
    ),
    _over_grpc(
        "PERMISSION_DENIED",
        status(StatusCode.PERMISSION_DENIED, "Global read access is required"),
        QdrantRequestError,
        False,
    ),
    _over_grpc(
        "NOT_FOUND",
        status(StatusCode.NOT_FOUND, "Not found: Collection `docs` doesn't exist!"),
        CollectionNotFoundError,
        False,
    ),
    _over_grpc(
        "NOT_FOUND, a point",
        status(StatusCode.NOT_FOUND, "Not found: No point with id 7 found"),
        QdrantRequestError,
        False,
    ),
    _over_grpc(
        "RESOURCE_EXHAUSTED",
        status(StatusCode.RESOURCE_EXHAUSTED, "Rate limiting exceeded"),
        QdrantRequestError,
        True,
    ),
    _over_grpc(
        "RESOURCE_EXHAUSTED, retry-after",
        status(StatusCode.RESOURCE_EXHAUSTED, "Rate limiting exceeded", retry_after="1"),
        QdrantRequestError,
        True,
    ),
    _over_grpc(
        "UNAVAILABLE", status(StatusCode.UNAVAILABLE, "starting"), QdrantConnectionError, True
    ),
    _over_grpc(
        "DEADLINE_EXCEEDED",
        status(StatusCode.DEADLINE_EXCEEDED, "Timeout error: 1 s"),
        QdrantConnectionError,
        True,
    ),
    _over_grpc("UNIMPLEMENTED", status(StatusCode.UNIMPLEMENTED, ""), QdrantConnectionError, False),
    _over_grpc(
        "INTERNAL",
        status(StatusCode.INTERNAL, "Service internal error: panic"),
        QdrantConnectionError,
        False,
    ),
]
EVERY_FAULT = FAULTS + FAULTS_OVER_GRPC

# The gRPC calls of a search, and good answers to them.
QUERY = "Points/Query"
_INFO = RestToGrpc.convert_collection_info(models.CollectionInfo.model_validate(COLLECTION))
_HIT = RestToGrpc.convert_scored_point(models.ScoredPoint.model_validate(HIT))
GOOD = {
    "Collections/Get": [reply(pb.GetCollectionInfoResponse(result=_INFO).SerializeToString())],
    "Collections/List": [reply(pb.ListCollectionsResponse().SerializeToString())],
    QUERY: [reply(pb.QueryResponse(result=[_HIT]).SerializeToString())],
}


@dataclass(frozen=True)
class Trouble:
    """A server in trouble.

    Attributes:
        address: arguments of a client of it.
        queries: says how many queries came.
    """

    address: Mapping[str, Any]
    queries: Callable[[], int]


@contextmanager
def in_trouble(fault: Fault, times: int | None = None) -> Iterator[Trouble]:
    """A server that knows its schema and then fails, for ever or so many times."""
    port = free_port()
    if fault.answer is None:  # nobody listens
        address = {"url": f"http://127.0.0.1:{port}", "grpc_port": port, "prefer_grpc": fault.grpc}
        yield Trouble(address, lambda: 0)
        return
    query: str = QUERY if fault.grpc else "POST"
    good: Mapping[str, Any] = GOOD if fault.grpc else {"GET": [SCHEMA], "POST": [FOUND]}
    trouble = [fault.answer] * (times or 1)
    script = Script({**good, query: trouble if times is None else trouble + good[query]})
    if fault.grpc:
        with serving_grpc(script) as bound:
            yield Trouble(grpc_address(bound), lambda: script.requests(query))
    else:
        with serving(script) as url:
            yield Trouble({"url": url}, lambda: script.requests(query))


def grpc_address(port: int) -> dict[str, Any]:
    """Arguments of a client of a gRPC server at this port; nobody listens at its REST port."""
    return {"url": f"http://127.0.0.1:{free_port()}", "grpc_port": port, "prefer_grpc": True}


@dataclass(frozen=True)
class Held:
    """What this process holds that a fault could leave behind.

    Attributes:
        threads: that run.
        descriptors: open files, sockets and pipes, as the kernel names them.
    """

    threads: frozenset[threading.Thread]
    descriptors: frozenset[str]

    @classmethod
    def now(cls) -> "Held":
        """Look."""
        descriptors = set()
        for link in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # the one that lists them
                descriptors.add(f"{link.name} -> {link.readlink()}")
        # tqdm's monitor is for the whole process, and ends with it.
        threads = {thread for thread in threading.enumerate() if thread.name != "tqdm_monitor"}
        return cls(frozenset(threads), frozenset(descriptors))

    def left_since(self, before: "Held") -> list[str]:
        """What was not held before."""
        threads = [thread.name for thread in self.threads - before.threads]
        return threads + sorted(self.descriptors - before.descriptors)


def left_behind(before: Held, patience_s: float = 5) -> list[str]:
    """What is still held that was not before, once those who are about to end had their time."""
    give_up = time.monotonic() + patience_s  # a server's threads end after their clients
    while left := Held.now().left_since(before):
        if time.monotonic() > give_up:
            break
        time.sleep(0.01)
        gc.collect()  # objects of gRPC's asyncio refer to each other, and hold its threads
    return left


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port
