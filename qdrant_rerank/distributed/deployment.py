"""The server on Ray Serve: replicas on many machines, behind gateways.

A replica is a process with the models and the whole application of
:mod:`qdrant_rerank.serving`, so the calls and their answers are the same. A gateway has no model:
it takes a request from Ray's HTTP proxy, and hands it to a replica. If the replica dies before it
has answered, another one gets the request, once.
"""

import asyncio
import math
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError
from starlette.requests import Request
from starlette.responses import Response

from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
from qdrant_rerank.distributed.cluster import Pool, ensure_ray
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.serving.app import load_app
from qdrant_rerank.serving.http_errors import HttpError, error_answer
from qdrant_rerank.serving.settings import ServeSettings
from qdrant_rerank.utils.validation import require_positive, shown

__all__ = ["WaitingTokens", "deployment", "serve_until_interrupted"]

NAME = "qdrant-rerank"
WAITING_TOKENS = "waiting_tokens"
#: Tokens that may wait at each replica before another one is started: 5 to 10 seconds of work of
#: one core with the bundled model.
TOKENS_PER_REPLICA = 50_000
GATEWAYS = 2
#: Requests at a time. The replicas' own limit is of tokens, and they answer 429 beyond it.
ONGOING = 10_000
TRIES = 2


@dataclass(frozen=True, slots=True)
class Call:
    """A request on its way to a replica."""

    scope: dict[str, Any]
    body: bytes


class Replica:
    """The application in a process of its own.

    Args:
        settings: of the server.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._app, self._models = load_app(settings)

    async def answer(self, call: Call) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Return the status, the headers and the body of the answer."""
        unread = [{"type": "http.request", "body": call.body, "more_body": False}]
        status, headers, parts = 500, list[tuple[bytes, bytes]](), list[bytes]()

        async def receive() -> dict[str, Any]:
            if unread:
                return unread.pop()
            await asyncio.Event().wait()  # this task is cancelled when the client hangs up
            raise AssertionError("unreachable")

        async def send(message: Any) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message.get("headers", ()))
            else:
                parts.append(message.get("body", b""))

        await self._app({**call.scope, "state": {}}, receive, send)
        return status, headers, b"".join(parts)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Ray Serve how many tokens wait here."""
        waiting = sum(model.scheduler.waiting_tokens for model in self._models.served)
        return {WAITING_TOKENS: float(waiting)}


class Gateway:
    """Hands requests to replicas.

    Args:
        replicas: Ray Serve's handle of them.
        settings: have the limit of bytes.
    """

    def __init__(self, replicas: Any, settings: ServeSettings) -> None:
        self._replicas = replicas
        self._most = settings.max_body_bytes
        self._most_of_all = settings.max_total_bytes
        self._held = 0  # bytes of the bodies of requests without an answer

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        body = bytearray()
        taken = 0
        try:
            async for chunk in request.stream():
                taken += len(chunk)
                self._held += len(chunk)
                self._require_room(taken)
                body += chunk
            return await self._answer(Call(_plain(request.scope), bytes(body)))
        except HttpError as error:
            return error_answer(error)
        finally:
            self._held -= taken

    def _require_room(self, size: int) -> None:
        if size > self._most:
            raise HttpError(
                413,
                f"The body has more than {self._most:,} bytes, the limit of this server "
                "(max_body_bytes). Send fewer documents per request.",
            )
        if self._held > self._most_of_all:
            raise HttpError(
                429,
                f"The bodies of all requests take more than {self._most_of_all:,} bytes "
                "(max_total_bytes). Try again in 1 s.",
                headers={"Retry-After": "1"},
            )

    async def _answer(self, call: Call) -> Response:
        for _ in range(TRIES):
            try:
                status, headers, content = await self._replicas.answer.remote(call)
            except RayActorError:
                continue
            made = Response(content, status)
            made.raw_headers = headers
            return made
        raise HttpError(
            503,
            f"{TRIES} replicas died one after the other on this request. Try again in 1 s.",
            headers={"Retry-After": "1"},
        )


class WaitingTokens:
    """Ray Serve's policy for the number of replicas: by the tokens that wait at them.

    Args:
        tokens_per_replica: that may wait at each.
    """

    def __init__(self, tokens_per_replica: int = TOKENS_PER_REPLICA) -> None:
        self._tokens = tokens_per_replica

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return how many replicas there should be; Ray Serve applies limits and delays."""
        found = context.aggregated_metrics.get(WAITING_TOKENS, {})
        wanted = math.ceil(sum(found.values()) / self._tokens)
        return max(1, context.capacity_adjusted_min_replicas, wanted), {}


def deployment(
    settings: ServeSettings | None = None,
    *,
    replicas: int | tuple[int, int] = 1,
    cpus_per_replica: int | None = None,
    gpus_per_replica: float = 0,
    tokens_per_replica: int = TOKENS_PER_REPLICA,
    gateways: int = GATEWAYS,
) -> Any:
    """Make an application of Ray Serve: ``ray.serve.run(deployment(settings))``.

    It has the calls of :func:`~qdrant_rerank.serving.create_app`. Ray's own proxies listen, so
    ``host``, ``port``, TLS, ``client_timeout_s`` and ``keep_alive_s`` of the settings are not used
    here; pass Ray's ``HTTPOptions`` to ``ray.serve.start``.

    Args:
        settings: what to serve; None for the bundled model. They are kept in the state of the Ray
            cluster, the keys as well.
        replicas: number of processes with the models; or the fewest and the most, between which
            tokens that wait decide.
        cpus_per_replica: cores of each; None for ``settings.threads``, or else 1.
        gpus_per_replica: GPUs of each.
        tokens_per_replica: tokens that may wait at each before another one is started.
        gateways: processes that hand requests to replicas. They need few cores.

    Raises:
        InvalidInputError: a number is out of range, no machine is large enough for a replica, or
            collections are served of an embedded engine, which replicas cannot share.
        UnknownModelError: there is no such model.
    """
    settings = settings or ServeSettings()
    fewest, most = _range(replicas)
    require_positive("tokens_per_replica", tokens_per_replica, optional=False)
    require_positive("gateways", gateways, optional=False)
    require_positive("cpus_per_replica", cpus_per_replica)
    cores = cpus_per_replica or settings.threads or 1
    pool = Pool(fewest, cores, gpus_per_replica)
    if settings.collections and not (settings.url or os.environ.get("QDRANT_URL")):
        raise InvalidInputError(
            "Collections of an embedded Qdrant are open to one process alone, and replicas are "
            "several. Pass url= of a server, or set QDRANT_URL."
        )
    for model in settings.models:
        TextCrossEncoder(
            model.rpartition("=")[2].strip(),
            cache_dir=settings.cache_dir,
            local_files_only=settings.local_files_only,
            lazy_load=True,
        )
    pool.size()
    options: dict[str, Any] = {"num_replicas": fewest}
    if most > fewest:
        options = {
            "autoscaling_config": {
                "min_replicas": fewest,
                "max_replicas": most,
                "policy": {
                    "policy_function": f"{__name__}:{WaitingTokens.__name__}",
                    "policy_kwargs": {"tokens_per_replica": tokens_per_replica},
                },
            }
        }
    made = serve.deployment(
        Replica,
        name="replica",
        max_ongoing_requests=ONGOING,
        ray_actor_options=pool.resources(),
        graceful_shutdown_timeout_s=settings.shutdown_s,
        **options,
    )
    front = serve.deployment(
        Gateway,
        name="gateway",
        num_replicas=gateways,
        max_ongoing_requests=ONGOING,
        ray_actor_options={"num_cpus": 0},
    )
    return front.bind(made.bind(replace(settings, threads=cores)), settings)


def serve_until_interrupted(
    settings: ServeSettings,
    started: Callable[[str], None],
    *,
    replicas: int | tuple[int, int] = 1,
) -> None:
    """Serve on Ray until SIGINT or SIGTERM, then finish the requests that were accepted.

    Args:
        settings: what to serve.
        started: called with the URL when the replicas are ready.
        replicas: as for :func:`deployment`.

    Raises:
        InvalidInputError: as :func:`deployment`; there are no keys where others can connect; or the
            port is 0, which Ray does not take.
    """
    settings.require_safe()
    if settings.port == 0:
        raise InvalidInputError("port is 0; Ray's proxies need a port. Pass another --port.")
    own = not ray.is_initialized() and not os.environ.get("RAY_ADDRESS")
    ensure_ray()  # which has a handler of its own for SIGTERM
    ended = threading.Event()
    previous = {
        number: signal.signal(number, lambda *_: ended.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        app = deployment(settings, replicas=replicas)
        serve.start(
            http_options={
                "host": settings.host,
                "port": settings.port,
                "keep_alive_timeout_s": max(1, round(settings.keep_alive_s)),
                "ssl_certfile": settings.certfile,
                "ssl_keyfile": settings.keyfile,
            }
        )
        serve.run(app, name=NAME, route_prefix="/")
        scheme = "http" if settings.certfile is None else "https"
        started(f"{scheme}://{settings.host}:{settings.port}")
        ended.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if own:
            serve.shutdown()
            ray.shutdown()
        elif ray.is_initialized():
            serve.delete(NAME)


def _range(replicas: Any) -> tuple[int, int]:
    several = replicas if isinstance(replicas, tuple | list) else (replicas, replicas)
    if len(several) != 2:
        raise InvalidInputError(
            f"replicas is {shown(replicas)}; expected a number, or the fewest and the most."
        )
    fewest, most = several
    require_positive("replicas", fewest, optional=False)
    require_positive("replicas", most, optional=False)
    if most < fewest:
        raise InvalidInputError(
            f"replicas is {shown(replicas)}; expected the fewest first, and then the most."
        )
    return fewest, most


def _plain(scope: Any) -> dict[str, Any]:
    """Return the part of an ASGI scope that can be sent to another process."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": scope["method"],
        "scheme": scope.get("scheme", "http"),
        "path": scope["path"],
        "raw_path": scope["path"].encode(),
        "root_path": "",
        "query_string": bytes(scope.get("query_string", b"")),
        "headers": [(bytes(name), bytes(value)) for name, value in scope["headers"]],
        "client": tuple(scope["client"]) if scope.get("client") else None,
        "server": tuple(scope["server"]) if scope.get("server") else None,
    }
