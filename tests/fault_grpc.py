"""A gRPC server on loopback that answers as a Qdrant in trouble does, down to single frames.

It speaks HTTP/2 by itself, since a gRPC library would not let it break off, drip or send garbage.
Its answers are scripted as those of :mod:`tests.fault_server`.
"""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError

Headers = dict[str, str]
OK = {":status": "200", "content-type": "application/grpc"}


class Call:
    """One call that came.

    Attributes:
        command: such as "Points/Query".
        path: such as "/qdrant.Points/Query".
        accepts: names of the ways to compress an answer that the caller can read.
        gone: set once the caller has given it up.
    """

    def __init__(self, connection: "Connection", stream: int, given: Headers) -> None:
        self.connection = connection
        self.path = given[":path"]
        self.command = self.path.removeprefix("/qdrant.")
        self.accepts = given.get("grpc-accept-encoding", "identity").replace(" ", "").split(",")
        self.gone = threading.Event()
        self._stream = stream

    def headers(self, *parts: Headers, end: bool = False) -> None:
        """Send headers, or trailers."""
        given = [pair for part in parts for pair in part.items()]
        self.connection.send(lambda http: http.send_headers(self._stream, given, end_stream=end))

    def data(self, body: bytes, *, end: bool = False) -> None:
        """Send a piece of the body."""
        self.connection.send(lambda http: http.send_data(self._stream, body, end_stream=end))

    def cancel(self) -> None:
        """Reset the stream, and leave the connection as it is."""
        self.connection.send(lambda http: http.reset_stream(self._stream, 8))


Answer = Callable[[Call], None]


class Connection:
    """One connection; calls are answered side by side, each in a thread."""

    def __init__(self, link: socket.socket, respond: Answer) -> None:
        self.link = link
        self._respond = respond
        self._lock = threading.Lock()
        self._calls: dict[int, Call] = {}
        self._threads: list[threading.Thread] = []
        config = H2Configuration(client_side=False, header_encoding="utf-8")
        self._http = H2Connection(config)

    def serve(self) -> None:
        """Until either side closes it."""
        with self.link, suppress(OSError, ProtocolError):
            self.send(lambda http: http.initiate_connection())
            while received := self.link.recv(65536):
                with self._lock:
                    happened = self._http.receive_data(received)
                for event in happened:
                    self._on(event)
                self.send(lambda http: None)  # what HTTP/2 itself has to say
        for call in self._calls.values():
            call.gone.set()
        for thread in self._threads:
            thread.join()

    def send(self, frames: Callable[[H2Connection], None]) -> None:
        """Make frames and send them."""
        with self._lock:
            frames(self._http)
            self.link.sendall(self._http.data_to_send())

    def _on(self, event: events.Event) -> None:
        match event:
            case events.RequestReceived():
                given = {str(name): str(value) for name, value in event.headers}
                self._calls[event.stream_id] = Call(self, event.stream_id, given)
            case events.DataReceived():
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case events.StreamReset():
                self._calls[event.stream_id].gone.set()
            case events.StreamEnded():
                thread = threading.Thread(target=self._answer, args=(self._calls[event.stream_id],))
                self._threads.append(thread)
                thread.start()

    def _answer(self, call: Call) -> None:
        with suppress(OSError, ProtocolError):  # a caller who gave up
            self._respond(call)


def framed(message: bytes) -> bytes:
    """As gRPC sends a message: uncompressed, and how long it is."""
    return struct.pack(">BI", 0, len(message)) + message


def reply(message: bytes) -> Answer:
    """A complete answer."""

    def send(call: Call) -> None:
        call.headers(OK)
        call.data(framed(message))
        call.headers({"grpc-status": "0"}, end=True)

    return send


def status(code: grpc.StatusCode, said: str, **metadata: str) -> Answer:
    """A call that fails, as a server says so."""
    trailers = {"grpc-status": str(code.value[0]), "grpc-message": said}
    more = {name.replace("_", "-"): value for name, value in metadata.items()}
    return lambda call: call.headers(OK, trailers, more, end=True)


def http_status(number: int, body: bytes) -> Answer:
    """A proxy's answer, which is no gRPC."""

    def send(call: Call) -> None:
        call.headers({":status": str(number), "content-type": "text/html"})
        call.data(body, end=True)

    return send


def hanging(call: Call) -> None:
    """No answer."""


def dripping(call: Call) -> None:
    """An answer that comes a byte at a time, for two minutes or until nobody listens."""
    call.headers(OK)
    call.data(struct.pack(">BI", 0, 2400))
    until = time.monotonic() + 120
    while not call.gone.wait(0.05) and time.monotonic() < until:
        call.data(b" ")


def cancelled(call: Call) -> None:
    """The stream is reset; the connection stays."""
    call.cancel()


def refused(call: Call) -> None:
    """The connection is closed without a word."""
    call.connection.link.shutdown(socket.SHUT_RDWR)


def broken_off(call: Call) -> None:
    """The connection closes during the answer."""
    call.headers(OK)
    call.data(struct.pack(">BI", 0, 1000) + b"half")
    call.connection.link.shutdown(socket.SHUT_RDWR)


def reset(call: Call) -> None:
    """The connection is reset (RST) during the answer."""
    call.headers(OK)
    call.data(struct.pack(">BI", 0, 1000) + b"half")
    link = call.connection.link
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.shutdown(socket.SHUT_RD)  # whoever reads it closes it


def cut_short(call: Call) -> None:
    """The answer ends well, before the message does."""
    call.headers(OK)
    call.data(struct.pack(">BI", 0, 1000) + b"half")
    call.headers({"grpc-status": "0"}, end=True)


def garbage(call: Call) -> None:
    """Not even HTTP/2."""
    call.connection.link.sendall(b"\xff\x00 nonsense " * 20)


@contextmanager
def serving_grpc(respond: Answer) -> Iterator[int]:
    """The port of a server that gives this answer to every call."""
    connections: list[tuple[socket.socket, threading.Thread]] = []

    def accept() -> None:
        with suppress(OSError):  # no more, once it is closed
            while True:
                link, _ = listener.accept()
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                thread = threading.Thread(target=Connection(link, respond).serve)
                connections.append((link, thread))
                thread.start()

    listener = socket.create_server(("127.0.0.1", 0))
    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        port: Any = listener.getsockname()[1]
        yield int(port)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for link, _ in connections:
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        for _, thread in connections:
            thread.join()
