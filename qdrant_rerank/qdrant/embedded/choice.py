"""Choose the embedded engine: qdrant-edge where it is installed, else qdrant-client's local mode.

A directory stays with the engine that created it.
"""

import importlib.util
from pathlib import Path

from qdrant_client import QdrantClient, models

from qdrant_rerank.errors import MissingDependencyError, QdrantConnectionError
from qdrant_rerank.qdrant.embedded.places import IN_MEMORY, LISTING, at
from qdrant_rerank.utils.json_object import parse_json
from qdrant_rerank.utils.terminal import one_line

__all__ = ["embedded_client", "engine_name", "holds_collections"]

LOCAL_LISTING = "meta.json"  # of local mode


def embedded_client(path: str | Path | None) -> QdrantClient:
    """Open a client whose engine runs in this process.

    Args:
        path: directory of the collections. None, or ":memory:", keeps them until the client is
            closed.

    Raises:
        MissingDependencyError: qdrant-edge wrote the directory and is not installed.
        QdrantConnectionError: the directory cannot be used, or another process has it open.
    """
    path = None if path in {None, IN_MEMORY} else at(path)
    if path is not None and (path / LOCAL_LISTING).is_file():
        _require_local_mode(path)
        return _local(path)
    if importlib.util.find_spec("qdrant_edge") is not None:
        from qdrant_rerank.qdrant.embedded.client import EmbeddedClient

        return EmbeddedClient(path)
    if path is None:
        return QdrantClient(location=IN_MEMORY)
    if (path / LISTING).is_file():
        raise MissingDependencyError(
            f"{path} was written by qdrant-edge-py, which is not installed. Run: pip install "
            "'qdrant-rerank[embedded]'"
        )
    return _local(path)


def engine_name(client: QdrantClient) -> str:
    """Name the embedded engine of a client."""
    if getattr(client, "concurrent", False):
        return str(client.info().title)
    return "qdrant-client's local mode"


def holds_collections(path: str | Path) -> bool:
    """Return whether an embedded engine has written to the directory, without opening it."""
    return any((at(path) / listing).is_file() for listing in (LISTING, LOCAL_LISTING))


def _require_local_mode(path: Path) -> None:
    """Raise QdrantConnectionError if the list of collections is not one of local mode."""
    file = path / LOCAL_LISTING
    try:
        content = parse_json(file.read_text("utf-8"))
        dict(content["aliases"])
        for config in content["collections"].values():
            known = {name: value for name, value in config.items() if name != "init_from"}
            models.CreateCollection.model_validate(known)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        missing = f"{error} is missing" if isinstance(error, KeyError) else one_line(str(error))
        raise QdrantConnectionError(
            f"{path} is no directory of Qdrant's local mode: {file} cannot be read: {missing}. It "
            "should list the collections. Nothing was changed. Restore it, or use another "
            "directory."
        ) from error


def _local(path: Path) -> QdrantClient:
    try:
        return QdrantClient(path=str(path))
    except RuntimeError as error:
        raise QdrantConnectionError(
            f"The Qdrant directory {path} cannot be opened: {error} Close the other client, in "
            "this process or in another, or use a server (QDRANT_URL), which both can use."
        ) from error
    except (OSError, ValueError) as error:
        raise QdrantConnectionError(
            f"The Qdrant directory {path} cannot be opened: {error}. Expected a directory to "
            "write to."
        ) from error
