"""One enumeration's member for another's of the same name."""

from enum import Enum
from typing import Any

__all__ = ["same_name"]


def same_name(wanted: Any, given: Enum | str | None) -> Any:
    """The member of ``wanted`` that is called as ``given``; None for None.

    qdrant-client writes ``max_sim`` where qdrant-edge writes ``MaxSim``.

    Raises:
        ValueError: it has none.
    """
    if given is None:
        return None
    said = given.value if isinstance(given, Enum) else given
    for name in dir(wanted):
        if not name.startswith("_") and _plain(name) == _plain(said):
            return getattr(wanted, name)
    raise ValueError(f"{wanted.__name__} has no {said!r}")


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
