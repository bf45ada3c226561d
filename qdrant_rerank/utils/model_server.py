"""JSON calls of a server that runs a model: timeouts, retries, and errors of ours.

Every call runs on the background loop, so that threads and event loops share the connections.
"""

import asyncio
import base64
import json
import math
import os
import random
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

import httpx

from qdrant_rerank.errors import (
    InvalidInputError,
    ModelConnectionError,
    ModelRequestError,
    QdrantRerankError,
    redact,
)
from qdrant_rerank.utils.deadline import Deadline
from qdrant_rerank.utils.json_object import parse_json
from qdrant_rerank.utils.server_arguments import read_headers, read_key, read_url
from qdrant_rerank.utils.validation import require_count, require_number

__all__ = ["ModelServer", "Wording"]

# Too many requests, a proxy that has no server behind it, a server that starts or is overloaded.
TRANSIENT_STATUSES = frozenset({429, 502, 503, 504})
# Seconds: 0.25, 0.5, 1 and so on to 8, each and up to half of it more, so that callers spread out.
FIRST_WAIT = 0.25
LONGEST_BACKOFF = 8.0
LONGEST_WAIT = 60.0  # seconds; a server that asks for more is not waited for
LONGEST_ANSWER = 300  # characters of a server's answer quoted in an error
MOST_BYTES = 64 << 20  # of an answer; 10,000 scores take less than 1 MB
#: Error codes of a 429 that no waiting helps.
NO_QUOTA = (b"insufficient_quota", b"billing_hard_limit_reached")


@dataclass(frozen=True, slots=True)
class Wording:
    """The words of a client in the errors of its server.

    Attributes:
        call: name of the call, such as "reranking".
        answer: name of its results, such as "scores".
        not_found: what to check if the server knows no such call or model.
        too_large: what to do if a request or a text is too large.
    """

    call: str
    answer: str
    not_found: str
    too_large: str


class ModelServer:
    """A server that answers JSON to JSON.

    Args:
        url: where requests are sent.
        wording: the words of the client.
        path: added to a URL that has no path; "" if the URL must have one.
        api_key: sent in the header Authorization; None for none.
        scheme: what stands before the key there.
        headers: further headers of each request.
        timeout_s: seconds that one request may take, from the connection to the last byte.
        retries: how often a request is sent again after a failure that may be temporary.
        at_once: requests at the same time, at most.

    Raises:
        InvalidInputError: an argument is wrong. No message shows the key or a header's value.
    """

    def __init__(
        self,
        url: str,
        wording: Wording,
        *,
        path: str = "",
        api_key: str | None = None,
        scheme: str = "Bearer",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
        retries: int = 2,
        at_once: int = 4,
    ) -> None:
        read = read_url(url, path)
        login = read.userinfo
        # Kept out of the address, which httpx logs.
        self.url = read.copy_with(userinfo=b"")
        self._wording = wording
        require_number("timeout_s", timeout_s, "seconds above 0")
        if not 0 < timeout_s < math.inf:
            raise InvalidInputError(f"timeout_s is {timeout_s}; expected seconds above 0.")
        require_count("retries", retries)
        self._timeout_s = float(timeout_s)
        self._retries = int(retries)
        self._at_once = at_once
        key = read_key(api_key)
        self._headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"{scheme} {key}"
        secrets = [key, read.password or None]
        if login:
            if key is not None:
                raise InvalidInputError(
                    "url has a user and a password, and api_key is given; a request has one "
                    "Authorization. Expected one of them."
                )
            user = f"{read.username}:{read.password}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(user).decode()}"
            secrets.append(self._headers["Authorization"].partition(" ")[2])
        for name, value in read_headers(headers).items():
            self._headers = {k: v for k, v in self._headers.items() if k.lower() != name.lower()}
            self._headers[name] = value
            secrets += [value, value.rpartition(" ")[2]]
        self._secrets = tuple(secrets)
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turns = asyncio.Semaphore(at_once)

    @property
    def shown(self) -> str:
        """The address without its secrets."""
        return self.hidden(str(self.url))

    def hidden(self, text: str) -> str:
        """Return a text without the secrets that are sent."""
        return redact(text, *self._secrets)

    async def post(self, body: Mapping[str, Any], deadline: Deadline) -> Any:
        """Send one request on the background loop, and again if its failure is transient.

        Args:
            body: what is sent as JSON.
            deadline: no wait before a retry is begun that would last beyond it. The caller stops
                the call itself at the deadline.

        Returns:
            The answer, read as JSON.

        Raises:
            ModelConnectionError: no answer, too late, or not one in JSON.
            ModelRequestError: the server refused: its status is 4xx.
        """
        client = self._connections()
        content = json.dumps(body).encode()
        failures = 0
        while True:
            async with self._turns:
                outcome = await self._once(client, content)
            if not isinstance(outcome, _Failure):
                return outcome
            failures += 1
            wait_s = max(_backoff(failures), outcome.wanted_s)
            remaining = deadline.remaining
            if (
                failures > self._retries
                or not outcome.transient
                or wait_s > LONGEST_WAIT
                or (remaining is not None and wait_s >= remaining)
            ):
                self._raise(outcome, failures)
            await asyncio.sleep(wait_s)

    async def _once(self, client: httpx.AsyncClient, content: bytes) -> "Any | _Failure":
        """Return the answer to one request, or why there is none."""
        try:
            async with asyncio.timeout(self._timeout_s):
                status, headers, answer = await _exchange(client, self.url, self._headers, content)
        except TimeoutError:
            return _Failure(
                f"did not answer within {self._timeout_s:g} s. Pass a longer timeout_s, or a "
                "smaller batch_size."
            )
        except _TooLongError:
            most = f"{MOST_BYTES >> 20} MB; expected {self._wording.answer} alone."
            return _Failure(f"answered more than {most}")
        except httpx.DecodingError as error:
            return _Failure(f"sent an answer that cannot be unpacked: {error}.", cause=error)
        except (httpx.HTTPError, httpx.StreamError, OSError, UnicodeError) as error:
            said = str(error).rstrip(".") or type(error).__name__
            transient = isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError)
            return _Failure(f"cannot be reached: {said}.", transient=transient, cause=error)
        if status == 200:
            return self._read(answer)
        return self._refusal(status, headers, answer)

    def _read(self, answer: bytes) -> Any:
        try:
            found = parse_json(answer)
        except ValueError as error:
            said = _quoted(answer)
            return _Failure(
                f"sent an answer that is not JSON: {said}. Check the url: is that its "
                f"{self._wording.call} call, and not a web page or a proxy?",
                cause=error,
            )
        return found

    def _refusal(self, status: int, headers: httpx.Headers, answer: bytes) -> "_Failure":
        said = _quoted(answer)
        transient = status in TRANSIENT_STATUSES
        if 300 <= status < 400:
            target = headers.get("Location", "")
            return _Failure(
                f"answered {status}: it points to {target!r:.300}, and redirects are not followed, "
                "since the key would go along. Pass the url that it points to."
            )
        wanted = _retry_after(headers.get("Retry-After", ""))
        if status in {401, 403}:
            text = f"refused access ({status}): {said}. Check api_key and its rights."
        elif status == 429 and any(code in answer for code in NO_QUOTA):
            transient = False
            text = f"has no quota left for this key (429): {said}. Check its account."
        elif status == 429:
            when = f"in {wanted:.0f} s" if wanted else "later"
            text = f"is asked too often (429): {said}. Try again {when}."
        elif status in {404, 405}:
            text = f"knows no such call or model ({status}): {said}. {self._wording.not_found}"
        elif status in {413, 422, 400}:
            text = f"refused the request ({status}): {said}. {self._wording.too_large}"
        else:
            text = f"answered {status}: {said}. See the server's log."
        return _Failure(text, transient=transient, refused=400 <= status < 500, wanted_s=wanted)

    def _raise(self, failure: "_Failure", failures: int) -> NoReturn:
        kind: type[QdrantRerankError] = (
            ModelRequestError if failure.refused else ModelConnectionError
        )
        sent = f" It was asked {failures} times." if failures > 1 else ""
        raise kind(self.hidden(f"{self.shown} {failure.text}{sent}")) from failure.cause

    def _connections(self) -> httpx.AsyncClient:
        """Return the connections; new ones in a forked child, whose loop is another."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            self._client = httpx.AsyncClient(
                timeout=self._timeout_s,
                follow_redirects=False,
                limits=httpx.Limits(max_keepalive_connections=self._at_once),
            )
            self._loop = loop
            self._turns = asyncio.Semaphore(self._at_once)
            weakref.finalize(self, _close, self._client, loop, os.getpid()).atexit = False
        return self._client

    async def close(self) -> None:
        """Close the connections; a later call opens others. Runs on the background loop."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()


class _Failure:
    """Why a request has no answer.

    Attributes:
        text: what the server did, after its address.
        transient: whether the same request may succeed later.
        refused: whether the server refused the request, and did not only fail.
        wanted_s: seconds that the server wants to pass before the next request.
        cause: the exception behind it.
    """

    def __init__(
        self,
        text: str,
        *,
        transient: bool = False,
        refused: bool = False,
        wanted_s: float = 0.0,
        cause: BaseException | None = None,
    ) -> None:
        self.text = text
        self.transient = transient
        self.refused = refused
        self.wanted_s = wanted_s
        self.cause = cause


class _TooLongError(Exception):
    """An answer is longer than any list of scores."""


async def _exchange(
    client: httpx.AsyncClient, url: httpx.URL, headers: Mapping[str, str], content: bytes
) -> tuple[int, httpx.Headers, bytes]:
    """Send a request, and return status, headers and body of the answer."""
    async with client.stream("POST", url, headers=dict(headers), content=content) as response:
        parts, size = [], 0
        async for part in response.aiter_bytes():
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                raise _TooLongError
        return response.status_code, response.headers, b"".join(parts)


def _quoted(answer: bytes) -> str:
    """Return the words of a server's answer, or its beginning."""
    said = answer.decode("utf-8", "replace").strip()
    try:
        found = parse_json(said)
        for name in ("message", "error", "detail", "message"):
            if isinstance(found, Mapping) and name in found:
                found = found[name]
        said = found if isinstance(found, str) else json.dumps(found)
    except (ValueError, RecursionError):
        pass
    return " ".join(said.split())[:LONGEST_ANSWER].rstrip(".") or "nothing"


def _backoff(failures: int) -> float:
    wait_s: float = min(FIRST_WAIT * 2 ** min(failures - 1, 10), LONGEST_BACKOFF)
    return wait_s * random.uniform(1.0, 1.5)


def _retry_after(header: str) -> float:
    """Seconds of the header, which is a number or a date (RFC 9110, 10.2.3); 0 for neither."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):  # no date, or one without a zone
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _close(client: httpx.AsyncClient, loop: asyncio.AbstractEventLoop, process: int) -> None:
    """Close connections that nobody uses any more, in the process that made them."""
    if process == os.getpid():
        asyncio.run_coroutine_threadsafe(client.aclose(), loop)
