"""The embedded engine: qdrant-edge, which is Qdrant in this process, as a ``QdrantClient``.

``EmbeddedClient`` takes and returns qdrant-client's models, so a searcher uses it like a server. It
gives the answers of qdrant-client's local mode in a fraction of the time. Points of equal score
come in the order of their ids. Searches run side by side, writes one after the other.
"""

import os
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient

from qdrant_rerank.qdrant.embedded.engine import EmbeddedEngine
from qdrant_rerank.qdrant.embedded.places import IN_MEMORY, at, temporary_folder
from qdrant_rerank.qdrant.embedded.recovery import Recovery

__all__ = ["EdgeClient", "EmbeddedClient"]


class EmbeddedClient(QdrantClient):
    """A ``QdrantClient`` whose Qdrant is in this process.

    Args:
        path: directory of the collections. A write that has returned survives a crash of the
            process. Clients of one process share an open directory. None, or ":memory:" as for
            ``QdrantClient``, makes a temporary directory, which is removed when the client is
            closed or the process ends. The next client in memory removes those of processes that
            were killed.

    Attributes:
        concurrent: True, since many threads may call at once.

    Raises:
        QdrantConnectionError: the directory holds something else, cannot be used, or another
            process has it open.

    Examples:
        >>> from qdrant_client import models
        >>> client = EmbeddedClient()
        >>> size_2 = models.VectorParams(size=2, distance=models.Distance.DOT)
        >>> client.create_collection("points", vectors_config=size_2)
        True
        >>> rows = [models.PointStruct(id=n, vector=[n, 0.0]) for n in (1, 2)]
        >>> _ = client.upsert("points", rows)
        >>> [(hit.id, hit.score) for hit in client.query_points("points", query=[1.0, 0.0]).points]
        [(2, 2.0), (1, 1.0)]
        >>> client.close()
    """

    concurrent = True

    def __init__(self, path: str | Path | None = None) -> None:
        removed: Callable[[], object] | None = None
        path = None if path == IN_MEMORY else path
        folder = temporary_folder() if path is None else at(path)
        engine = EmbeddedEngine(folder, durable=path is not None)
        if path is None:
            removed = weakref.finalize(self, _remove, folder, os.getpid())
        # Local mode, for what QdrantClient does before it hands a call on; then our engine.
        super().__init__(location=IN_MEMORY)
        self._client = engine
        self._engine = engine
        self._removed = removed
        if path is not None:
            self._init_options.update(location=None, path=str(folder))

    def optimize(self, collection_name: str) -> bool:
        """Build the HNSW graph and the sparse index, and free the space of deleted points.

        A search reads every vector that is not in the graph. That is exact, and fast enough for
        about 100,000 vectors. The graph is approximate, and building it takes minutes.

        Args:
            collection_name: name of the collection.

        Returns:
            Whether there was anything to do.
        """
        return self._engine.optimize(collection_name)

    def recover(self, collection_name: str) -> Recovery | None:
        """Recover a collection that cannot be opened, as far as its files can be read.

        The collection gets new files with all points that were stored before the damage. Its old
        files are set aside, not removed.

        Args:
            collection_name: name of the collection.

        Returns:
            What was recovered; None if nothing is wrong with the collection.

        Raises:
            CollectionNotFoundError: there is no collection or alias of that name.
            QdrantConnectionError: more than the log is damaged.
        """
        return self._engine.recover(collection_name)

    def close(self, grpc_grace: float | None = None, **kwargs: Any) -> None:
        """Write everything to disk; the last client on a directory lets other processes open it."""
        super().close(grpc_grace=grpc_grace, **kwargs)
        removed = getattr(self, "_removed", None)  # not there if the constructor failed
        if removed is not None:
            removed()


EdgeClient = EmbeddedClient  # the name in earlier versions


def _remove(folder: Path, process: int) -> None:
    """Remove a directory, unless this process was forked from the one that made it."""
    if process == os.getpid():
        shutil.rmtree(folder, ignore_errors=True)
