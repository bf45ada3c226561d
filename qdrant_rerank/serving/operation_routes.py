"""The calls that tell how the server is: health, readiness, its models, its metrics."""

import logging

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from qdrant_rerank._version import __version__
from qdrant_rerank.serving.collections import Collections
from qdrant_rerank.serving.http_errors import HttpError, Json, answering
from qdrant_rerank.serving.metrics import Metrics
from qdrant_rerank.serving.models import Models
from qdrant_rerank.serving.settings import ServeSettings

__all__ = ["OperationRoutes"]

logger = logging.getLogger(__name__)

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class OperationRoutes:
    """The handlers, with what they share.

    Args:
        settings: have the limits.
        models: of the server.
        collections: of the server.
        metrics: of the server.
        started: seconds since 1970 at which the server started.
    """

    def __init__(
        self,
        settings: ServeSettings,
        models: Models,
        collections: Collections,
        metrics: Metrics,
        started: int,
    ) -> None:
        self._settings = settings
        self._models = models
        self._collections = collections
        self._metrics = metrics
        self._started = started

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/health", answering(self.health)),
            Route("/ready", answering(self.ready)),
            Route("/info", answering(self.info)),
            Route("/v1/models", answering(self.models)),
            Route("/metrics", answering(self.metrics)),
        ]

    async def health(self, request: Request) -> Response:
        """Answer that the process is alive."""
        return Json({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Answer whether requests can be answered now; without names, because it needs no key."""
        problem = await self._collections.problem()
        if problem is not None:
            logger.warning("Not ready: %s", problem)
            raise HttpError(503, "Qdrant cannot be searched now. The server's log says why.")
        return Json({"status": "ready"})

    async def info(self, request: Request) -> Response:
        """Answer what text-embeddings-inference answers, and the limits of this server."""
        first, settings = self._models.served[0], self._settings
        return Json(
            {
                "model_id": first.name,
                "model_sha": None,
                "model_dtype": first.encoder.precision,
                "model_type": {
                    "reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
                },
                "max_input_length": first.encoder.max_length,
                "max_client_batch_size": settings.max_documents,
                "max_batch_tokens": settings.queue_tokens,
                "max_concurrent_requests": None,
                "auto_truncate": True,
                "version": __version__,
                "models": [
                    {
                        "name": one.name,
                        "precision": one.encoder.precision,
                        "engine": one.encoder.provider,
                        "activation": one.encoder.activation,
                        "max_length": one.encoder.max_length,
                    }
                    for one in self._models.served
                ],
                "collections": self._collections.names,
                "limits": {
                    "max_documents": settings.max_documents,
                    "max_body_bytes": settings.max_body_bytes,
                    "queue_tokens": settings.queue_tokens,
                    "timeout_s": settings.timeout_s,
                },
            }
        )

    async def models(self, request: Request) -> Response:
        """List the models as OpenAI's API does."""
        return Json(
            {
                "object": "list",
                "data": [
                    {
                        "id": one.name,
                        "object": "model",
                        "created": self._started,
                        "owned_by": "qdrant-rerank",
                    }
                    for one in self._models.served
                ],
            }
        )

    async def metrics(self, request: Request) -> Response:
        """Write the metrics for Prometheus."""
        return Response(self._metrics.text(), headers={"content-type": PROMETHEUS})
