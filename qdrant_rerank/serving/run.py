"""The application on uvicorn: a bound socket, and a server for it."""

import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack

import uvicorn

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.serving.app import create_app
from qdrant_rerank.serving.protocol import timed_protocol
from qdrant_rerank.serving.settings import ServeSettings

__all__ = ["listening", "make_server"]

WAITING_CONNECTIONS = 2048
LONGEST_HEADER = 32 << 10  # bytes of a request's line and headers


def listening(settings: ServeSettings) -> socket.socket:
    """Bind the address: before the models are loaded, which takes longer.

    Raises:
        InvalidInputError: the address is refused or taken, the certificate cannot be used, or
            there are no keys where others can connect.
    """
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise InvalidInputError(
            f"Cannot listen on {settings.host}, which names no address: {error}. Pass another "
            "--host, such as 127.0.0.1, or 0.0.0.0 for all addresses of this machine."
        ) from error
    settings.require_safe()
    _require_certificate(settings)
    with ExitStack() as stack:
        try:
            family, kind, protocol, _, address = found[0]
            listener = stack.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            raise InvalidInputError(
                f"Cannot listen on {settings.host} port {settings.port}: "
                f"{error.strerror or error}. Pass another --host or --port; port 0 takes any free "
                "one."
            ) from error
        stack.pop_all()
    return listener


def make_server(
    settings: ServeSettings, listener: socket.socket, started: Callable[[str], None]
) -> uvicorn.Server:
    """Load the models, and make a server for a bound socket.

    Args:
        settings: what to serve.
        listener: from :func:`listening`.
        started: called with the URL once the server listens.

    Raises:
        ModelError: a model cannot be found or loaded.
    """
    config = uvicorn.Config(
        create_app(settings),
        http=timed_protocol(settings.client_timeout_s),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ssl_certfile=settings.certfile,
        ssl_keyfile=settings.keyfile,
        timeout_keep_alive=max(1, round(settings.keep_alive_s)),
        timeout_graceful_shutdown=max(1, round(settings.shutdown_s)),
        h11_max_incomplete_event_size=LONGEST_HEADER,
        backlog=WAITING_CONNECTIONS,
    )
    scheme = "http" if settings.certfile is None else "https"
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return _Server(config, lambda: started(f"{scheme}://{shown}:{port}"))


class _Server(uvicorn.Server):
    """A server that tells when it listens."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell()


def _require_certificate(settings: ServeSettings) -> None:
    if settings.certfile is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.certfile, settings.keyfile)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInputError(
            f"The certificate {settings.certfile} cannot be used: {error}. Pass the file of the "
            "certificate chain as --certfile and that of its key as --keyfile."
        ) from error
