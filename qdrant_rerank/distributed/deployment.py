"""The server on Ray Serve: replicas on many machines, behind gateways.

A replica is a process with the models and the whole application of
:mod:`qdrant_rerank.serving`, so the calls and their answers are the same. A gateway has no model:
it takes a request from Ray's HTTP proxy, and hands it to a replica. If the replica dies before it
has answered, another one gets the request, once.
"""

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ray
from ray import serve

from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
from qdrant_rerank.distributed.cluster import Pool, ensure_ray
from qdrant_rerank.distributed.replicas import (
    TOKENS_PER_REPLICA,
    Gateway,
    Replica,
    WaitingTokens,
)
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.serving.settings import ServeSettings
from qdrant_rerank.utils.validation import require_positive, shown

__all__ = ["deployment", "serve_until_interrupted"]

NAME = "qdrant-rerank"
GATEWAYS = 2
#: Requests at a time. The replicas' own limit is of tokens, and they answer 429 beyond it.
ONGOING = 10_000


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
                    "policy_function": f"{WaitingTokens.__module__}:{WaitingTokens.__name__}",
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
