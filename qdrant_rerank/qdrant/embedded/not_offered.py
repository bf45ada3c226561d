"""The calls of ``QdrantClient`` that need a server: each says what to do instead."""

import inspect
from collections.abc import Callable
from typing import Any, NoReturn

from qdrant_client.client_base import QdrantBase

__all__ = ["INSTEAD", "NotOffered"]

_ONE_PROCESS = "There is one process, and so no cluster."
#: What to do instead of a call, by a part of the call's name.
INSTEAD = {
    "snapshot": "Copy the directory of a closed client.",
    "shard_key": "There is one process, and so no shard to choose.",
    "cluster": _ONE_PROCESS,
    "peer": _ONE_PROCESS,
    "get_optimizations": "`EmbeddedClient.optimize` returns when it is done.",
}


class NotOffered(QdrantBase):
    """Calls that raise NotImplementedError, as qdrant-client's local mode does."""


def _refusing(name: str, instead: str) -> Callable[..., NoReturn]:
    def refuse(self: QdrantBase, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(f"The embedded engine does not offer {name}. {instead}")

    return refuse


for _name, _ in inspect.getmembers(QdrantBase, inspect.isfunction):
    for _part, _instead in INSTEAD.items():
        if _part in _name:
            setattr(NotOffered, _name, _refusing(_name, _instead))
