"""Errors as answers: one shape, which every client finds its message in."""

import json
import logging
import math
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from qdrant_rerank.errors import (
    CollectionNotFoundError,
    DeadlineError,
    InvalidInputError,
    QdrantError,
    QdrantRequestError,
    QdrantRerankError,
)
from qdrant_rerank.serving.not_served import NotServedError
from qdrant_rerank.serving.qdrant_refusals import is_clients_mistake, without_address
from qdrant_rerank.serving.scheduler import QueueFullError
from qdrant_rerank.serving.wire import BodyError

__all__ = ["GONE", "HttpError", "Json", "answer_error", "answering", "error_answer"]

logger = logging.getLogger(__name__)

# The words of text-embeddings-inference for kinds of errors, and others where it has none.
KINDS = {
    400: "Validation",
    401: "Unauthorized",
    404: "NotFound",
    405: "Validation",
    408: "Timeout",
    413: "Validation",
    415: "Validation",
    422: "Validation",
    429: "Overloaded",
    503: "Unhealthy",
    504: "Timeout",
}


#: Nobody waits for the answer any more; the word of nginx's logs.
GONE = 499

Handler = Callable[[Request], Awaitable[Response]]


class HttpError(Exception):
    """A request is answered with an error.

    Args:
        status: of HTTP; ``GONE`` if nobody waits for an answer.
        message: for the client; it has no text of a document, and no key.
        headers: further headers.

    Attributes:
        kind: a word for programs, by the status.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})
        self.kind = KINDS.get(status, "Backend")


class Json(Response):
    """JSON in UTF-8; lone surrogates, which UTF-8 cannot hold, are escaped."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Write JSON."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        try:
            return text.encode("utf-8")
        except UnicodeEncodeError:
            return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def _as_http_error(error: Exception) -> HttpError:
    """Return what is answered for an error of the work; it is logged if it is not expected."""
    match error:
        case HttpError():
            return error
        case HTTPException(status_code=404):
            return HttpError(404, "There is no such call here; expected one that GET /docs lists.")
        case HTTPException():
            return HttpError(error.status_code, str(error.detail), headers=error.headers)
        case BodyError() | InvalidInputError():
            return HttpError(422, str(error))
        case NotServedError():
            return HttpError(404, str(error.args[0]))
        case CollectionNotFoundError():  # which names Qdrant's address and all its collections
            logger.error("%s: %s", type(error).__name__, error)
            return HttpError(
                404, "The collection is served here, but Qdrant has none of that name now."
            )
        case QueueFullError():
            seconds = str(math.ceil(error.retry_after_s))
            return HttpError(429, str(error), headers={"Retry-After": seconds})
        case DeadlineError() | TimeoutError():
            return HttpError(
                504,
                "The time was up before the last document: X-Request-Timeout, or the server's "
                "timeout_s. Send fewer documents, or ask for more time.",
            )
        case QdrantRequestError() if is_clients_mistake(error):
            return HttpError(422, f"Qdrant refused the search: {without_address(error)}")
        case QdrantError():
            logger.error("%s: %s", type(error).__name__, error)
            return HttpError(502, "Qdrant cannot be searched now. The server's log says why.")
        case QdrantRerankError():
            logger.error("%s: %s", type(error).__name__, error)
            return HttpError(
                500, "The server cannot do this as it is set up. Its log says what is wrong."
            )
    # Its message may hold a text; where it was raised does not.
    frames = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s in\n%s", type(error).__name__, frames)
    return HttpError(500, "The server failed on this request; its log says where.")


def answering(handler: Handler) -> Handler:
    """Return a handler that answers errors, too."""

    @wraps(handler)
    async def answered(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as error:
            return await answer_error(request, error)

    return answered


async def answer_error(request: Request, error: Exception) -> Response:
    """Answer an error in the shape of :func:`error_answer`."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        # Starlette names the methods of one route; a path may have several.
        routes = [one for one in request.app.routes if one.path == request.url.path]
        allowed = ", ".join(sorted({method for one in routes for method in one.methods}))
        error = HttpError(
            405,
            f"The call does not take the method {request.method:.20}; expected {allowed}.",
            headers={"Allow": allowed},
        )
    return error_answer(_as_http_error(error))


def error_answer(error: HttpError) -> Response:
    """Answer with a message where clients of TEI, of Cohere and of Jina read it."""
    if error.status == GONE:
        return Response(status_code=GONE)
    content = dict.fromkeys(("error", "message", "detail"), error.message)
    return Json({**content, "error_type": error.kind}, error.status, error.headers)
