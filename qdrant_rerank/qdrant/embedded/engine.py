"""qdrant-edge behind the interface that qdrant-client's own engines implement.

The calls are in three parts: about collections, that change points, that read points. Those that
only make sense of a server (snapshots, clusters, shard keys) raise NotImplementedError, as in
qdrant-client's base.
"""

import importlib.metadata
from pathlib import Path
from typing import Any

from qdrant_client import models
from qdrant_client.client_base import QdrantBase

from qdrant_rerank.qdrant.embedded.collections import CollectionCalls
from qdrant_rerank.qdrant.embedded.reads import ReadCalls
from qdrant_rerank.qdrant.embedded.search import EdgeSearch
from qdrant_rerank.qdrant.embedded.shards import KEPT_FREE, Shards
from qdrant_rerank.qdrant.embedded.writes import WriteCalls

__all__ = ["EdgeEngine"]


class EdgeEngine(CollectionCalls, WriteCalls, ReadCalls, QdrantBase):
    """The engine of an :class:`~qdrant_rerank.qdrant.embedded.client.EdgeClient`.

    Arguments are those of ``QdrantClient``; timeouts, consistency and shard keys mean nothing here.

    Args:
        folder: of the collections.
        durable: whether every write is logged, to survive a crash.
    """

    def __init__(self, folder: Path, *, durable: bool) -> None:
        super().__init__()
        self._shards = Shards(folder, durable=durable)
        self._search = EdgeSearch(self._shards)

    def close(self, **kwargs: Any) -> None:
        """Write everything out and let others open the directory."""
        self._shards.close()

    def info(self) -> models.VersionInfo:
        """Which engine this is; the version is that of the client, whose calls it answers."""
        return models.VersionInfo(
            title=f"qdrant-edge-py {importlib.metadata.version('qdrant-edge-py')}",
            version=importlib.metadata.version("qdrant-client"),
            commit=None,
        )

    def optimize(self, collection_name: str) -> bool:
        """Build the graphs of what was added; whether there was anything to do."""
        with self._shards.writing, self._shards.errors(collection_name):
            self._shards.require_room(KEPT_FREE + self._shards.used(collection_name))  # a copy
            return self._shards.shard(collection_name).optimize()
