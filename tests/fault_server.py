"""An HTTP server on loopback that answers as a Qdrant in trouble does."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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
    """The connection closes amid the body."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"result":')
    handler.wfile.flush()
    handler.connection.close()


def garbage(handler: BaseHTTPRequestHandler) -> None:
    """Not even HTTP."""
    handler.wfile.write(b"\x00\x01\x02 nonsense\r\n\r\n")


@contextmanager
def serving(respond: Answer) -> Iterator[str]:
    """The URL of a server that gives this answer to every request."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with suppress(OSError):
                respond(self)
            self.close_connection = True

        do_GET = do_POST = do_PUT = handle_any  # noqa: N815 - names of http.server

        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
