"""What a request adds to its line in the log."""

from typing import Any

from starlette.requests import Request

__all__ = ["note"]


def note(request: Request, **facts: Any) -> None:
    """Add facts to the request's line in the log: numbers and names, never a text or a key."""
    request.state.facts.update(facts)
