"""qdrant-edge behind the interface that qdrant-client's own engines implement.

The calls are in three parts: those about collections, those that change points and those that read
points. Calls that need a server (snapshots, clusters, shard keys) raise NotImplementedError with
what to do instead.
"""

import importlib.metadata
from pathlib import Path
from typing import Any

from qdrant_client import models

from qdrant_rerank.qdrant.embedded.collections import CollectionCalls
from qdrant_rerank.qdrant.embedded.not_offered import NotOffered
from qdrant_rerank.qdrant.embedded.reads import ReadCalls
from qdrant_rerank.qdrant.embedded.recovery import Recovery
from qdrant_rerank.qdrant.embedded.search import PointSearch
from qdrant_rerank.qdrant.embedded.shards import Shards
from qdrant_rerank.qdrant.embedded.writes import WriteCalls

__all__ = ["EmbeddedEngine"]


class EmbeddedEngine(CollectionCalls, WriteCalls, ReadCalls, NotOffered):
    """The engine of an :class:`~qdrant_rerank.qdrant.embedded.client.EmbeddedClient`.

    The arguments are those of ``QdrantClient``. Timeouts, consistency and shard keys are ignored.

    Args:
        folder: directory of the collections.
        durable: whether every write is logged, so that it survives a crash.
    """

    def __init__(self, folder: Path, *, durable: bool) -> None:
        super().__init__()
        self._shards = Shards(folder, durable=durable)
        self._search = PointSearch(self._shards)

    def close(self, **kwargs: Any) -> None:
        """Write everything to disk and let other processes open the directory."""
        self._shards.close()

    def info(self) -> models.VersionInfo:
        """Return the engine's name, and the version of the client whose calls it answers."""
        return models.VersionInfo(
            title=f"qdrant-edge-py {importlib.metadata.version('qdrant-edge-py')}",
            version=importlib.metadata.version("qdrant-client"),
            commit=None,
        )

    def recover(self, collection_name: str) -> Recovery | None:
        """Open a collection without the part of its log that cannot be replayed."""
        return self._shards.recover(collection_name)

    def optimize(self, collection_name: str) -> bool:
        """Build the graphs; return whether there was anything to do."""
        return self._shards.optimize(collection_name)
