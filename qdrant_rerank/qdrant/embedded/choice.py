"""Which embedded engine: the real one where its wheel is installed, else qdrant-client's own.

A directory stays with the engine that made it.
"""

import importlib.util
from pathlib import Path

from qdrant_client import QdrantClient

from qdrant_rerank.errors import MissingDependencyError, QdrantConnectionError
from qdrant_rerank.qdrant.embedded.directory import LISTING

__all__ = ["embedded_client", "engine_name", "holds_collections"]

LOCAL_LISTING = "meta.json"  # of local mode


def embedded_client(path: str | Path | None) -> QdrantClient:
    """A client with its engine in this process.

    Args:
        path: directory of the collections; None for an engine that is gone with the client.

    Raises:
        MissingDependencyError: the directory is of the real engine, which is not installed.
        QdrantConnectionError: the directory cannot be used, or another process has it open.
    """
    if path is not None and (Path(path) / LOCAL_LISTING).is_file():
        return _local(path)
    if importlib.util.find_spec("qdrant_edge") is not None:
        from qdrant_rerank.qdrant.embedded.client import EdgeClient

        return EdgeClient(path)
    if path is None:
        return QdrantClient(location=":memory:")
    if (Path(path) / LISTING).is_file():
        raise MissingDependencyError(
            f"{path} was written by qdrant-edge-py, which is not installed. Run: pip install "
            "'qdrant-rerank[embedded]'"
        )
    return _local(path)


def engine_name(client: QdrantClient) -> str:
    """What a client's embedded engine is called; local mode gives itself the server's name."""
    if getattr(client, "concurrent", False):
        return str(client.info().title)
    return "qdrant-client's local mode"


def holds_collections(path: str | Path) -> bool:
    """Whether an embedded engine has written to the directory; nothing is made or opened."""
    return any((Path(path) / listing).is_file() for listing in (LISTING, LOCAL_LISTING))


def _local(path: str | Path) -> QdrantClient:
    try:
        return QdrantClient(path=str(path))
    except RuntimeError as error:
        raise QdrantConnectionError(
            f"The Qdrant directory {path} cannot be opened: {error} Close the other process, or "
            "use a server (QDRANT_URL), which both can."
        ) from error
    except (OSError, ValueError) as error:
        raise QdrantConnectionError(
            f"The Qdrant directory {path} cannot be opened: {error}. Expected a directory to "
            "write to."
        ) from error
