"""Which failures of a request to Qdrant may pass, and how long to wait before asking again."""

import httpx
import tenacity
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from qdrant_rerank.deadline import Deadline

__all__ = ["may_pass", "retrying_within"]

# Too many requests, a proxy that has no server behind it, a server that starts or is overloaded.
PASSING_STATUSES = {429, 502, 503, 504}
PASSING_GRPC = {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
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

    def too_late(state: tenacity.RetryCallState) -> bool:
        left = deadline.left
        return state.upcoming_sleep > LONGEST_WAIT or (
            left is not None and state.upcoming_sleep >= left
        )

    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_pass),
        wait=_wait,
        stop=lambda state: state.attempt_number > retries or too_late(state),
        reraise=True,
    )


def may_pass(error: BaseException) -> bool:
    """Whether asking again may succeed: of our errors, the cause decides."""
    cause = error.__cause__
    if isinstance(cause, UnexpectedResponse):
        return cause.status_code in PASSING_STATUSES
    if isinstance(cause, ResourceExhaustedResponse):
        return True
    if isinstance(cause, ResponseHandlingException):
        source = cause.source
        if isinstance(source, httpx.RemoteProtocolError):
            # The connection was closed early, which may pass; what is no HTTP will not.
            return "disconnected" in str(source) or "closed connection" in str(source)
        return isinstance(source, httpx.NetworkError | httpx.TimeoutException)
    code = getattr(cause, "code", None)
    if type(cause).__module__.split(".")[0] == "grpc" and callable(code):
        return code().name in PASSING_GRPC
    return False


def _wait(state: tenacity.RetryCallState) -> float:
    """Seconds: the backoff, or longer if the server asks for it."""
    outcome = state.outcome
    error = None if outcome is None else outcome.exception()
    return max(BACKOFF(state), _retry_after(error))


def _retry_after(error: BaseException | None) -> float:
    cause = getattr(error, "__cause__", None)
    if isinstance(cause, ResourceExhaustedResponse):
        return float(cause.retry_after_s)
    if isinstance(cause, UnexpectedResponse):
        try:
            return float(cause.headers.get("Retry-After", 0))
        except ValueError:  # a date: the backoff will do
            return 0.0
    return 0.0
