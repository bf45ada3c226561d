"""Which failures of a request to Qdrant may pass, and how long to wait before asking again."""

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import grpc
import httpx
import tenacity
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from qdrant_rerank.qdrant.transport.client_errors import is_throttled, is_too_large
from qdrant_rerank.utils.deadline import Deadline

__all__ = ["async_retrying_within", "is_transient", "retrying_within"]

# Too many requests, a proxy that has no server behind it, a server that starts or is overloaded.
PASSING_STATUSES = {429, 502, 503, 504}
# The same over gRPC; CANCELLED is a stream that the server or a proxy gave up.
PASSING_GRPC = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"}
# Seconds. Longer than this nobody waits for a page; a server that asks for more is not waited for.
LONGEST_WAIT = 30.0
# 0.1 s, 0.2 s, 0.4 s and so on to 5 s, each and up to 0.1 s more, so that callers spread out.
BACKOFF = tenacity.wait_exponential_jitter(multiplier=0.1, max=5, jitter=0.1)


def retrying_within(retries: int, deadline: Deadline) -> tenacity.Retrying:
    """Calls a function again while its failure may pass; the last failure is raised as it is.

    Args:
        retries: calls after the first one.
        deadline: no wait is begun that would last beyond it.
    """
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_transient),
        wait=_wait,
        stop=_stop(retries, deadline),
        reraise=True,
    )


def async_retrying_within(retries: int, deadline: Deadline) -> tenacity.AsyncRetrying:
    """The same for a coroutine function; it waits without blocking the event loop."""
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(is_transient),
        wait=_wait,
        stop=_stop(retries, deadline),
        reraise=True,
    )


def _stop(retries: int, deadline: Deadline) -> Callable[[tenacity.RetryCallState], bool]:
    def stop(state: tenacity.RetryCallState) -> bool:
        left = deadline.remaining
        too_late = left is not None and state.upcoming_sleep >= left
        return state.attempt_number > retries or too_late or state.upcoming_sleep > LONGEST_WAIT

    return stop


def is_transient(error: BaseException) -> bool:
    """Whether asking again may succeed: of our errors, the cause decides."""
    cause = error.__cause__
    if isinstance(cause, UnexpectedResponse):
        return cause.status_code in PASSING_STATUSES
    if isinstance(cause, Exception) and (is_throttled(cause) or isinstance(cause, TimeoutError)):
        return True
    if isinstance(cause, ResponseHandlingException):
        source = cause.source
        if isinstance(source, httpx.RemoteProtocolError):
            # The connection was closed early, which may pass; what is no HTTP will not.
            return "disconnected" in str(source) or "closed connection" in str(source)
        return isinstance(source, httpx.NetworkError | httpx.TimeoutException)
    if isinstance(cause, grpc.RpcError):
        return cause.code().name in PASSING_GRPC and not is_too_large(cause)
    return False


def _wait(state: tenacity.RetryCallState) -> float:
    """Seconds: the backoff, or longer if the server asks for it."""
    outcome = state.outcome
    error = None if outcome is None else outcome.exception()
    return max(BACKOFF(state), _retry_after(error))


def _retry_after(error: BaseException | None) -> float:
    """Seconds that the server wants; 0 where it does not say."""
    cause: Any = getattr(error, "__cause__", None)
    if isinstance(cause, ResourceExhaustedResponse):
        return float(cause.retry_after_s)
    if isinstance(cause, UnexpectedResponse):
        return _seconds(cause.headers.get("Retry-After", ""))
    if isinstance(cause, grpc.RpcError):
        return _seconds(str(dict(cause.trailing_metadata() or ()).get("retry-after", "")))
    if isinstance(cause, Exception) and is_throttled(cause):
        return _seconds(str(cause).partition(": ")[2])
    return 0.0


def _seconds(retry_after: str) -> float:
    """Of the header, which is seconds or a date (RFC 9110, 10.2.3); 0 for what is neither."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a zone
        return 0.0
