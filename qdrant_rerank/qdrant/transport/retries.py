"""Which failures of a request are transient, and how long to wait before it is sent again."""

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import grpc
import httpx
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from qdrant_rerank.qdrant.transport.advice import missing_replicas
from qdrant_rerank.qdrant.transport.client_errors import is_throttled, is_too_large
from qdrant_rerank.utils.deadline import Deadline

__all__ = ["is_transient", "seconds_to_wait"]

# Too many requests, a proxy that has no server behind it, a server that starts or is overloaded.
TRANSIENT_STATUSES = {429, 502, 503, 504}
# The same over gRPC; CANCELLED is a stream that the server or a proxy gave up.
TRANSIENT_CODES = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"}
# Seconds. Longer than this nobody waits for a page; a server that asks for more is not waited for.
LONGEST_WAIT = 30.0
# Seconds. 0.1, 0.2, 0.4 and so on to 5, each and up to 0.1 more, so that callers spread out.
FIRST_WAIT = JITTER = 0.1
LONGEST_BACKOFF = 5.0


def seconds_to_wait(
    error: Exception, failures: int, retries: int, deadline: Deadline
) -> float | None:
    """Seconds until a request is sent again: the backoff, or longer if the server asks for it.

    Args:
        error: the client's own exception.
        failures: times that the request failed, this one included.
        retries: times that it may be sent again.
        deadline: no wait is begun that would last beyond it.

    Returns:
        None where the request is not sent again.
    """
    if failures > retries or not is_transient(error):
        return None
    backoff = FIRST_WAIT * 2 ** min(failures - 1, 10) + random.uniform(0, JITTER)
    wait_s = max(min(backoff, LONGEST_BACKOFF), _retry_after(error))
    remaining = deadline.remaining
    too_late = remaining is not None and wait_s >= remaining
    return None if too_late or wait_s > LONGEST_WAIT else wait_s


def is_transient(error: BaseException | None) -> bool:
    """Whether the same request may succeed later.

    Args:
        error: the client's own exception, which is the cause of ours.
    """
    if isinstance(error, UnexpectedResponse):
        said = error.content.decode("utf-8", "replace")
        return error.status_code in TRANSIENT_STATUSES or bool(missing_replicas(said, None))
    if is_throttled(error) or isinstance(error, TimeoutError):
        return True
    if isinstance(error, ResponseHandlingException):
        source = error.source
        if isinstance(source, httpx.RemoteProtocolError):
            # The connection was closed early, which is transient; what is no HTTP is not.
            return "disconnected" in str(source) or "closed connection" in str(source)
        return isinstance(source, httpx.NetworkError | httpx.TimeoutException)
    if isinstance(error, grpc.RpcError):
        again = error.code().name in TRANSIENT_CODES or missing_replicas(str(error.details()), None)
        return bool(again) and not is_too_large(error)
    return False


def _retry_after(error: Exception) -> float:
    """Seconds that the server wants; 0 where it does not say."""
    if isinstance(error, ResourceExhaustedResponse):
        return float(error.retry_after_s)
    if isinstance(error, UnexpectedResponse):
        return _seconds(error.headers.get("Retry-After", ""))
    if isinstance(error, grpc.RpcError):
        return _seconds(str(dict(error.trailing_metadata() or ()).get("retry-after", "")))
    # qdrant-client quotes a header that it cannot read: "...: Wed, 21 Oct 2015 07:28:00 GMT".
    return _seconds(str(error).partition(": ")[2]) if is_throttled(error) else 0.0


def _seconds(retry_after: str) -> float:
    """Seconds of the header, which is a number or a date (RFC 9110, 10.2.3); 0 for neither."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a zone
        return 0.0
