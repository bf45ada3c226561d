"""The ways a Qdrant can be in trouble: what the caller sees, and whether asking again may help."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qdrant_rerank.errors import (
    CollectionNotFoundError,
    QdrantConnectionError,
    QdrantRequestError,
    QdrantRerankError,
)
from tests.fault_server import (
    Answer,
    Script,
    answer,
    broken_off,
    dripping,
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


SCHEMA = _result(
    {
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
        },
        "payload_schema": {},
    }
)
FOUND = _result({"points": [{"id": 1, "version": 0, "score": 0.5, "payload": {"text": "a"}}]})
STORED = _result({"operation_id": 1, "status": "completed"})


@dataclass(frozen=True)
class Fault:
    """One way to fail.

    Attributes:
        name: a few words.
        answer: what the server does; None where there is no server.
        error: what the caller sees.
        again: whether asking again may help.
    """

    name: str
    answer: Answer | None
    error: type[QdrantRerankError]
    again: bool


FAULTS = [
    Fault("refuses the connection", None, QdrantConnectionError, True),
    Fault("closes without a word", refused, QdrantConnectionError, True),
    Fault("hangs", hanging, QdrantConnectionError, True),
    Fault("drips", dripping, QdrantConnectionError, True),
    Fault("closes amid the body", broken_off, QdrantConnectionError, True),
    Fault("resets amid the body", reset, QdrantConnectionError, True),
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


@contextmanager
def in_trouble(fault: Fault, times: int | None = None) -> Iterator[tuple[str, Script]]:
    """The URL of a server that knows its schema and then fails, for ever or so many times."""
    trouble = [fault.answer or refused]
    rest = [] if times is None else [FOUND]
    script = Script({"GET": [SCHEMA], "POST": trouble * (times or 1) + rest})
    with serving(script) as url:
        if fault.answer is not None:
            yield url, script
            return
    yield url, Script({})  # the port is closed now


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


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port
