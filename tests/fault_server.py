"""An HTTP server on loopback that answers as a Qdrant in trouble does."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int, body: bytes, **headers: str) -> Answer:
    """A complete answer."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return send


def broken_off(handler: BaseHTTPRequestHandler) -> None:
    """The connection closes during the body."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"result":')
    handler.wfile.flush()
    handler.connection.close()


def reset(handler: BaseHTTPRequestHandler) -> None:
    """The connection is reset (RST) during the body."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"result":')
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.shutdown(socket.SHUT_RD)
    handler.connection.close()


def refused(handler: BaseHTTPRequestHandler) -> None:
    """The connection is closed without a word."""
    handler.connection.shutdown(socket.SHUT_RDWR)


def garbage(handler: BaseHTTPRequestHandler) -> None:
    """Not even HTTP."""
    handler.wfile.write(b"\x00\x01\x02 nonsense\r\n\r\n")


def dripping(handler: BaseHTTPRequestHandler) -> None:
    """A body that comes a character at a time, for two minutes or until nobody listens."""
    handler.send_response(200)
    handler.send_header("Content-Length", "2400")
    handler.end_headers()
    for _ in range(2400):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


def dripping_headers(handler: BaseHTTPRequestHandler) -> None:
    """Headers that come a character at a time, for two minutes or until nobody listens."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Padding: ")
    for _ in range(2400):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.05)


def hanging(handler: BaseHTTPRequestHandler) -> None:
    """No answer until the client gives up."""
    handler.connection.settimeout(60)
    with suppress(OSError):
        handler.connection.recv(1)


@dataclass
class Script:
    """Answers in turn, the last one for ever; one script per method, over HTTP or gRPC.

    Attributes:
        answers: by method, such as "GET" or "Points/Query"; "*" for those without their own.
        seen: (method, path, seconds on the monotonic clock) of each request.
    """

    answers: Mapping[str, Sequence[Callable[[Any], None]]]
    seen: list[tuple[str, str, float]] = field(default_factory=list)

    def __call__(self, handler: Any) -> None:
        method = handler.command
        key = method if method in self.answers else "*"
        done = self.requests(method) if key == method else len(self.seen)
        self.seen.append((method, handler.path, time.monotonic()))
        script = self.answers[key]
        script[min(done, len(script) - 1)](handler)

    def requests(self, method: str) -> int:
        """How many came."""
        return sum(seen == method for seen, _, _ in self.seen)


@contextmanager
def serving(respond: Answer, port: int = 0) -> Iterator[str]:
    """The URL of a server that gives this answer to every request; port 0 for any free one."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with suppress(OSError):
                respond(self)
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - names of http.server

        def finish(self) -> None:
            with suppress(OSError, ValueError):  # a client that gave up
                super().finish()

        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
