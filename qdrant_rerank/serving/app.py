"""The ASGI application."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from qdrant_rerank.serving.collections import Collections
from qdrant_rerank.serving.front import Front
from qdrant_rerank.serving.http_errors import answer_error
from qdrant_rerank.serving.keys import Keys
from qdrant_rerank.serving.limits import BodyReader
from qdrant_rerank.serving.metrics import Metrics
from qdrant_rerank.serving.models import Models
from qdrant_rerank.serving.operation_routes import OperationRoutes
from qdrant_rerank.serving.pages import PageRoutes
from qdrant_rerank.serving.rerank_routes import RerankRoutes
from qdrant_rerank.serving.search_routes import SearchRoutes
from qdrant_rerank.serving.settings import ServeSettings

__all__ = ["create_app", "load_app"]


def create_app(settings: ServeSettings | None = None) -> ASGIApp:
    """Load the models, and make an ASGI application that answers reranking and search requests.

    Any ASGI server can run it, in one process: each process that imports it loads the models. At
    the end of its lifespan it finishes what it has taken.

    Args:
        settings: what to serve; None for the bundled model.

    Raises:
        InvalidInputError: an option does not fit a model.
        ModelError: a model cannot be found or loaded.

    Examples:
        >>> import asyncio, httpx
        >>> async def main(body):
        ...     transport = httpx.ASGITransport(create_app())
        ...     async with httpx.AsyncClient(transport=transport, base_url="http://it") as client:
        ...         return (await client.post("/rerank", json=body)).json()
        >>> body = {"query": "melting iron", "texts": ["Bread is baked.", "Iron melts hot."]}
        >>> asyncio.run(main(body))[0]["index"]
        1
    """
    return load_app(settings or ServeSettings())[0]


def load_app(settings: ServeSettings) -> tuple[ASGIApp, Models]:
    """Load the models, and make the application; returns both."""
    metrics = Metrics()
    models = Models.load(settings, metrics)
    try:
        collections = Collections(settings, models.served[0], metrics)
    except BaseException:
        models.close()
        raise
    bodies = BodyReader(settings)
    metrics.watch("body_bytes", "Bytes of requests without an answer.", lambda: bodies.held_bytes)
    metrics.watch(
        "waiting_tokens",
        "Tokens that wait at the models.",
        lambda: sum(one.scheduler.waiting_tokens for one in models.served),
    )
    metrics.watch(
        "waiting_requests",
        "Requests that wait at the models, or are scored.",
        lambda: sum(one.scheduler.waiting_requests for one in models.served),
    )
    routes = [
        *RerankRoutes(settings, models, bodies, metrics).routes(),
        *SearchRoutes(settings, collections, bodies).routes(),
        *OperationRoutes(settings, models, collections, metrics, int(time.time())).routes(),
        *PageRoutes().routes(),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await collections.close()
        await asyncio.to_thread(models.close)

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={HTTPException: answer_error},
    )
    front = Front(app, Keys(settings.api_keys), metrics, frozenset(one.path for one in routes))
    return front, models
