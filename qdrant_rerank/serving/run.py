"""The application on uvicorn: a bound socket, and a server for it."""

import asyncio
import gc
import logging
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import uvicorn

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.serving.app import create_app
from qdrant_rerank.serving.protocol import timed_protocol
from qdrant_rerank.serving.reload import Reloadable
from qdrant_rerank.serving.settings import ServeSettings

__all__ = ["ReloadingServer", "listening", "make_server"]

logger = logging.getLogger(__name__)

WAITING_CONNECTIONS = 2048
# Settings of the listener and its connections, which a reload does not change.
FIXED = ("host", "port", "client_timeout_s", "keep_alive_s", "shutdown_s")
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
    settings: ServeSettings,
    listener: socket.socket,
    started: Callable[[str], None],
    reread: Callable[[], ServeSettings] | None = None,
) -> "ReloadingServer":
    """Load the models, and make a server for a bound socket.

    Args:
        settings: what to serve.
        listener: from :func:`listening`.
        started: called with the URL once the server listens.
        reread: reads the settings again, at :meth:`ReloadingServer.reload` and SIGHUP; None to
            take the same ones.

    Raises:
        ModelError: a model cannot be found or loaded.
    """
    app = Reloadable(create_app(settings))
    config = uvicorn.Config(
        app,
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
    return ReloadingServer(
        config,
        app,
        lambda: started(f"{scheme}://{shown}:{port}"),
        settings,
        reread or (lambda: settings),
    )


class ReloadingServer(uvicorn.Server):
    """A server that tells when it listens, and reloads at SIGHUP.

    Args:
        config: of uvicorn.
        app: the application that it runs.
        started: called once the server listens.
        settings: of the application.
        reread: reads them again.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        app: Reloadable,
        started: Callable[[], None],
        settings: ServeSettings,
        reread: Callable[[], ServeSettings],
    ) -> None:
        super().__init__(config)
        self._app = app
        self._tell = started
        self._settings = settings
        self._reread = reread
        self._reloads = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and wait for SIGHUP."""
        await super().startup(sockets)
        if not self.started:
            return
        # With all that is loaded by now, a full collection would stop every thread for 0.1 s or
        # more: from here on it looks at what came later.
        gc.freeze()
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._start_reload)
        self._tell()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the requests that were accepted."""
        await super().shutdown(sockets)
        gc.unfreeze()

    async def reload(self) -> None:
        """Read the settings, keys and certificate again, load the models, and then switch.

        Requests go on all the while. What cannot be used is logged, and nothing changes.
        """
        async with self._reloads:
            try:
                settings = await asyncio.to_thread(self._reread)
                settings.require_safe()
                # The listener stays where it is, whatever host they name.
                replace(settings, host=self._settings.host).require_safe()
                certified = _require_certificate(settings)
                ending = await self._app.replace(lambda: create_app(settings))
                ending.add_done_callback(_let_go)
                if isinstance(self.config.ssl, ssl.SSLContext) and certified is not None:
                    self._use(self.config.ssl, certified)
            except Exception as error:
                logger.error("Not reloaded, and nothing is changed: %s", error)
                return
            fixed = [
                name for name in FIXED if getattr(settings, name) != getattr(self._settings, name)
            ]
            if (settings.certfile is None) != (self._settings.certfile is None):
                fixed.append("certfile")  # another certificate is taken; http stays http
            if fixed:
                logger.warning("Reloaded, but a restart alone changes %s.", ", ".join(fixed))
            else:
                logger.info("Reloaded.")

    @staticmethod
    def _use(listening: ssl.SSLContext, certified: ssl.SSLContext) -> None:
        """Let new connections have a certificate that was read before the models were loaded.

        Its files may have changed since then, and half of a new pair would end all handshakes.
        """

        def choose(connection: ssl.SSLObject, *_: object) -> None:
            connection.context = certified

        listening.sni_callback = choose  # which is called for clients that name no server, too

    def _start_reload(self) -> None:
        task = asyncio.create_task(self.reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _let_go(_: asyncio.Task[None]) -> None:
    """Collect an application that has ended, and what else was frozen with it."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _require_certificate(settings: ServeSettings) -> ssl.SSLContext | None:
    """Read the certificate and its key; returns None if there is none to be used."""
    if settings.certfile is None:
        return None
    certified = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        certified.load_cert_chain(settings.certfile, settings.keyfile)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInputError(
            f"The certificate {settings.certfile} cannot be used: {error}. Pass the file of the "
            "certificate chain as --certfile and that of its key as --keyfile."
        ) from error
    return certified
