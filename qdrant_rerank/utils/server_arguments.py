"""Checks of the arguments that describe a server: its URL, the key, headers and further fields."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import httpx

from qdrant_rerank.errors import InvalidInputError, redact
from qdrant_rerank.utils.validation import a_type, clean_key, further_values

__all__ = ["further_fields", "read_headers", "read_key", "read_url"]

KEPT_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection"})


def further_fields(parameters: Any, own: Collection[str]) -> dict[str, Any]:
    """Return a caller's further fields of each request, checked.

    Args:
        parameters: what the caller passed as ``parameters=``.
        own: the fields that each request has already.

    Raises:
        InvalidInputError: they are not a dict, JSON cannot hold them, or they have one of these.
    """
    fields = further_values("parameters", parameters, own)
    try:
        json.dumps(fields, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"parameters cannot be sent as JSON: {error}.") from error
    return fields


def read_url(url: Any, path: str) -> httpx.URL:
    """Return a URL, checked; with the path if it has none.

    Raises:
        InvalidInputError: it is not one of HTTP or HTTPS, or has no path and needs one.
    """
    expected = "expected one such as 'https://api.cohere.com' or 'http://localhost:8080'."
    if not isinstance(url, str):
        raise InvalidInputError(f"url is {a_type(url)}; {expected}")
    try:
        read = httpx.URL(url.strip())
    except (httpx.InvalidURL, UnicodeError) as error:
        raise InvalidInputError(f"url is {redact(url)!r:.200}: {error}; {expected}") from error
    if read.scheme not in {"http", "https"} or not read.host:
        raise InvalidInputError(f"url is {redact(url)!r:.200}; {expected}")
    if read.path in {"", "/"}:
        if not path:
            raise InvalidInputError(
                f"url is {redact(url)!r:.200}, without a path; expected the whole address of the "
                "call."
            )
        read = read.copy_with(path=path)
    return read


def read_key(value: Any) -> str | None:
    """Return an API key without the white space around it; None if it is blank.

    Raises:
        InvalidInputError: it is not a str, or no HTTP header can hold it. No message shows it.
    """
    if value is not None and not isinstance(value, str):
        raise InvalidInputError(f"api_key is {a_type(value)}; expected a str or None.")
    return clean_key("api_key", value)


def read_headers(headers: Any) -> dict[str, str]:
    """Return a caller's headers, checked; no message shows a value.

    Raises:
        InvalidInputError: they are not a dict of texts that HTTP headers can hold, or have one
            that the connection sets itself.
    """
    if not isinstance(headers, Mapping | None):
        raise InvalidInputError(f"headers is {a_type(headers)}; expected a dict of texts.")
    return {name: _header(name, value) for name, value in (headers or {}).items()}


def _header(name: Any, value: Any) -> str:
    if str(name).lower() in KEPT_HEADERS:
        raise InvalidInputError(f"headers has {name!r}, which the connection sets itself.")
    if not isinstance(name, str) or not isinstance(value, str):
        raise InvalidInputError(f"headers has {name!r:.80} with {a_type(value)}; expected texts.")
    cleaned = value.strip()
    if not name.isascii() or not cleaned.isascii() or not cleaned.isprintable():
        raise InvalidInputError(
            f"headers: the value of {name!r} has a control character, or one that is not ASCII, "
            "which no HTTP header can hold."
        )
    return cleaned
