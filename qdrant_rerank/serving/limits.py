"""Bodies are read within limits: of bytes, of memory for all requests together, and of time."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from qdrant_rerank.serving.http_errors import GONE, HttpError
from qdrant_rerank.serving.settings import ServeSettings
from qdrant_rerank.utils.deadline import Deadline
from qdrant_rerank.utils.json_object import uncollected

__all__ = ["BodyReader", "deadline_of", "require_room"]

#: A request's own limit of seconds.
TIMEOUT_HEADER = "x-request-timeout"
LEFT_FREE = 1 / 8  # of the bytes of all bodies, or as many as a new body has: for smaller ones
LARGE_BYTES = 256 << 10  # of a body that is parsed in a thread, in 2 ms and more


class BodyReader:
    """Reads the JSON of requests.

    Args:
        settings: have the limits.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._held = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of the bodies of requests that have no answer yet."""
        return self._held

    @asynccontextmanager
    async def json_of(self, request: Request) -> AsyncIterator[Any]:
        """Read a body and parse it; its bytes count until the request has its answer.

        Raises:
            HttpError: 400 if it is not JSON, 408 if it came too slowly, 413 if it is too large, 415
                if it is compressed, 429 if the bodies of all requests take too much memory.
        """
        taken = 0
        try:
            body = bytearray()
            self._require_plain(request)
            async for chunk in self._chunks(request):
                taken += len(chunk)
                self._held += len(chunk)
                require_room(taken, self._held - taken, self._settings)
                body += chunk
            if len(body) > LARGE_BYTES:
                yield await asyncio.to_thread(_parsed, body, object_hook=_same)
            else:
                yield _parsed(body)
        finally:
            self._held -= taken

    def _require_plain(self, request: Request) -> None:
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in {"", "identity"}:
            raise HttpError(415, "The body is compressed; expected plain JSON.")
        declared = request.headers.get("content-length", "")
        if declared.isascii() and declared.isdigit():
            require_size(int(declared), self._settings)

    async def _chunks(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the parts of a body, each of which has to come in time."""
        pause = self._settings.client_timeout_s
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                stream = aiter(request.stream())
                while True:
                    async with asyncio.timeout(pause):
                        chunk = await anext(stream, None)
                    if chunk is None:
                        return
                    yield chunk
        except TimeoutError:
            raise HttpError(
                408, f"The body came too slowly: nothing for {pause:g} s (client_timeout_s), or "
                f"not all within {self._settings.timeout_s:g} s (timeout_s).",
                headers={"Connection": "close"},
            ) from None  # fmt: skip
        except ClientDisconnect:
            raise HttpError(GONE, "The client has gone.") from None


def require_size(size: int, settings: ServeSettings) -> None:
    """Refuse a body of so many bytes, declared or read, if it is too large.

    Raises:
        HttpError: 413.
    """
    if size > settings.max_body_bytes:
        raise HttpError(
            413,
            f"The body has more than {settings.max_body_bytes:,} bytes, the limit of this server "
            "(max_body_bytes). Send fewer documents per request.",
        )


def require_room(read: int, others: int, settings: ServeSettings) -> None:
    """Refuse a body that is too large, or for which other bodies leave too little room.

    Args:
        read: bytes of the body that are there.
        others: bytes of the bodies of other requests without an answer. If there are none, the body
            is taken; else it leaves as many bytes free as it has, or ``LEFT_FREE``, so that large
            bodies do not keep small ones out.
        settings: have the limits.

    Raises:
        HttpError: 413 or 429.
    """
    require_size(read, settings)
    most = settings.max_total_bytes
    if read > most:
        raise HttpError(
            413,
            f"The body has more than {most:,} bytes, the limit of all requests together "
            "(max_total_bytes). Send fewer documents per request.",
        )
    free = min(read, int(LEFT_FREE * most)) if others else 0
    if others + read + free > most:
        raise HttpError(
            429,
            f"The bodies of all requests take {others + read:,} bytes or more. With {free:,} left "
            f"free for smaller ones, that is beyond the limit of {most:,} bytes (max_total_bytes). "
            "Try again in 1 s.",
            headers={"Retry-After": "1"},
        )


def deadline_of(request: Request, settings: ServeSettings) -> Deadline:
    """Return when a request must have its answer: the server's limit, or less if it says so.

    Raises:
        HttpError: its header X-Request-Timeout is not a number of seconds above 0.
    """
    given = request.headers.get(TIMEOUT_HEADER)
    seconds = settings.timeout_s
    if given is not None:
        try:
            own = float(given)
        except ValueError:
            own = math.nan
        if not own > 0:
            raise HttpError(
                422, "X-Request-Timeout is not a number of seconds above 0, such as 2.5."
            )
        seconds = min(seconds, own)
    return Deadline.after(seconds)


def _same(value: dict[str, Any]) -> dict[str, Any]:
    """Return an object as it is; a call of Python lets other threads run, which C does not."""
    return value


def _parsed(body: bytearray, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    try:
        with uncollected():
            return json.loads(
                body.decode("utf-8"),
                parse_constant=_refuse,
                parse_float=_finite,
                object_hook=object_hook,
            )
    except RecursionError:
        reason = "it is nested too deep"
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at byte {len(error.doc[: error.pos].encode('utf-8', 'replace'))}"
    except ValueError as error:
        reason = "a number is too large" if "digits" in str(error) else str(error)
    raise HttpError(400, f"The body is not JSON: {reason}.")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
