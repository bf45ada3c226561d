"""The Qdrant that a command works on, and searchers on it."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from qdrant_rerank.cli.options import NONE, Source, model, text_source
from qdrant_rerank.errors import InvalidInputError, QdrantRerankError

if TYPE_CHECKING:
    from qdrant_rerank.search.searcher import HybridSearcher

__all__ = ["advising", "asking", "qdrant_place", "searcher_for"]


def qdrant_place(
    url: str | None, path: str | None, *, create: bool = False
) -> tuple[str | None, str | None]:
    """Return the URL or the directory of the Qdrant to use: as given, else from the environment.

    Args:
        url: as given.
        path: as given.
        create: whether the command creates an embedded Qdrant in a directory that has none.

    Raises:
        InvalidInputError: both are given, none is, or there is no Qdrant in the directory.
    """
    from qdrant_rerank.qdrant.embedded.choice import holds_collections

    if url is not None and path is not None:
        raise InvalidInputError("--url and --path are both given; expected one of them.")
    if url is None and path is None:
        url = os.environ.get("QDRANT_URL") or None
        path = None if url else os.environ.get("QDRANT_PATH") or None
    if not (url or path):
        raise InvalidInputError(
            "No Qdrant is given, so nothing would be kept. Pass --path DIRECTORY for an embedded "
            "one or --url for a server, or set QDRANT_PATH or QDRANT_URL."
        )
    if path and not create and not holds_collections(path):
        raise InvalidInputError(
            f"There is no Qdrant at {path}; expected a directory with collections. Check the path; "
            "'qdrant-rerank index' creates one."
        )
    return url, path


@contextmanager
def searcher_for(
    source: Source, reranker: str = NONE, *, create: bool = False
) -> "Iterator[HybridSearcher]":
    """Make a searcher as the options say, and close its client afterwards.

    Raises:
        InvalidInputError: see :func:`qdrant_place`.
    """
    from qdrant_rerank.embedders import load_embedder
    from qdrant_rerank.qdrant.transport.client import connect
    from qdrant_rerank.search.searcher import HybridSearcher

    url, path = qdrant_place(source.url, source.path, create=create)
    if source.embedder != NONE:
        load_embedder(source.embedder)  # is kept; a wrong name creates no directory
    with closing(connect(url=url, path=path)) as client:
        yield HybridSearcher(
            source.collection,
            client=client,
            text=text_source(source.text),
            embedder=model(source.embedder),
            reranker=model(reranker),
        )


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """Give the errors of an ``add`` advice for the command line, in place of Python's."""
    from qdrant_rerank.qdrant.upload import RESUME

    try:
        yield
    except QdrantRerankError as error:
        error.args = (str(error).replace(RESUME, advice), *error.args[1:])
        notes = getattr(error, "__notes__", [])
        notes[:] = [note.replace(RESUME, advice) for note in notes]
        raise


def asking(
    searcher: "HybridSearcher", collection: str | None = None
) -> Callable[[Callable[[Any], Any]], Any]:
    """Return a function that sends a request with the searcher's client.

    It takes a function of the client, and raises our errors instead of the client's.

    Args:
        searcher: whose client is used.
        collection: the name for messages; None for the searcher's collection.
    """
    from qdrant_rerank.qdrant.transport.driver import CallLimits, Driver

    driver = Driver(searcher.client, collection or searcher.collection, CallLimits())
    return lambda send: driver.ask(lambda client, timeout: send(client))
