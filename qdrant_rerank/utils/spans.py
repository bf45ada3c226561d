"""Spans of OpenTelemetry, if the process has loaded its API; without it, nothing is done.

The application, or ``opentelemetry-instrument``, sets it up before, and chooses where spans go.
This package sets up no exporter, and does not load the API itself, which takes time.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from qdrant_rerank._version import __version__

__all__ = ["Span", "span", "span_of_request"]

NAME = "qdrant_rerank"


class Span:
    """A span that takes attributes: numbers and names, never a text."""

    def __init__(self, inner: Any = None) -> None:
        self._inner = inner

    def note(self, **attributes: Any) -> None:
        """Add attributes."""
        if self._inner is not None:
            for name, value in attributes.items():
                self._inner.set_attribute(name.replace("__", "."), value)


def _api() -> Any:
    """Return ``opentelemetry.trace``; None if nothing has imported it."""
    return sys.modules.get("opentelemetry.trace")


@contextmanager
def span_of_request(method: str, route: str, headers: Mapping[str, str]) -> Iterator[Span]:
    """Record a request as a part of what its client does, if its headers say so."""
    trace = _api()
    if trace is None:
        yield Span()
        return
    from opentelemetry import propagate

    tracer = trace.get_tracer(NAME, __version__)
    parent = propagate.extract(dict(headers))
    with tracer.start_as_current_span(
        f"{method} {route}",
        context=parent,
        kind=trace.SpanKind.SERVER,
        record_exception=False,  # its message may hold a text
        set_status_on_exception=False,
    ) as inner:
        yield Span(inner)


@contextmanager
def span(name: str) -> Iterator[Span]:
    """Record a part of what is done; what its caller does is its parent."""
    trace = _api()
    if trace is None:
        yield Span()
        return
    tracer = trace.get_tracer(NAME, __version__)
    with tracer.start_as_current_span(
        name, record_exception=False, set_status_on_exception=False
    ) as inner:
        yield Span(inner)
