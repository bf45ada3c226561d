"""Real servers on loopback, and connections to them that do as they please."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from qdrant_rerank.serving import ServeSettings
from qdrant_rerank.serving.run import listening, make_server


@contextmanager
def served(**settings: Any) -> Iterator[str]:
    """The URL of a server with these settings, in a thread of its own."""
    chosen = ServeSettings(**{"port": 0, **settings})
    urls: list[str] = []
    told = threading.Event()

    def started(url: str) -> None:
        urls.append(url)
        told.set()

    with listening(chosen) as listener:
        server = make_server(chosen, listener, started)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert told.wait(600), "the server did not start"
            yield urls[0]
        finally:
            server.should_exit = True
            thread.join()


def until(true: Callable[[], Any]) -> None:
    """Wait until something is so; ten minutes are more than it ever takes."""
    end = time.monotonic() + 600
    while not true():
        assert time.monotonic() < end, "it never was so"
        time.sleep(0.02)


def connect(url: str) -> socket.socket:
    """A plain connection."""
    place = urlsplit(url)
    made = socket.create_connection((place.hostname, place.port))
    made.settimeout(600)
    return made


def request_bytes(path: str, body: Any, **headers: str) -> bytes:
    """A POST request as it is on the wire."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {len(content)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def read_all(connection: socket.socket) -> bytes:
    """Everything that comes until the server closes the connection."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)
