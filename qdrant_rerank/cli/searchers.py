"""The Qdrant that a command works on, and searchers on it."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from qdrant_rerank.cli.options import NONE, Source, model, text_source
from qdrant_rerank.cli.output import say
from qdrant_rerank.errors import InvalidInputError, QdrantError, QdrantRerankError
from qdrant_rerank.utils.loopback import is_loopback

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

    from qdrant_rerank.qdrant.schema import CollectionStates
    from qdrant_rerank.search.searcher import HybridSearcher
    from qdrant_rerank.types import StatesPrecision

__all__ = [
    "advising",
    "asking",
    "client_for",
    "given_place",
    "is_own_url",
    "qdrant_place",
    "recorded_states",
    "searcher_for",
    "storing",
]


def given_place(url: str | None, path: str | None) -> tuple[str | None, str | None]:
    """Return the URL or the directory as given, else from the environment, else two times None.

    Raises:
        InvalidInputError: both are given.
    """
    if url is not None and path is not None:
        raise InvalidInputError("--url and --path are both given; expected one of them.")
    if url is None and path is None:
        url = os.environ.get("QDRANT_URL") or None
        path = None if url else os.environ.get("QDRANT_PATH") or None
    return url, path


def qdrant_place(
    url: str | None, path: str | None, *, create: bool = False
) -> tuple[str | None, str | None]:
    """Return the URL or the directory of the Qdrant to use, as :func:`given_place` does.

    Args:
        url: as given.
        path: as given.
        create: whether the command creates an embedded Qdrant in a directory that has none.

    Raises:
        InvalidInputError: both are given, none that outlives the command is, or there is no Qdrant
            in the directory.
    """
    from qdrant_rerank.qdrant.embedded.choice import holds_collections
    from qdrant_rerank.qdrant.embedded.directory import require_ours
    from qdrant_rerank.qdrant.embedded.places import IN_MEMORY, at

    url, path = given_place(url, path)
    if not (url or path) or path == IN_MEMORY:
        seen = f"{path} ends with the command" if path else "No Qdrant is given"
        raise InvalidInputError(
            f"{seen}, so nothing would be kept. Pass --path DIRECTORY for an embedded "
            "one or --url for a server, or set QDRANT_PATH or QDRANT_URL."
        )
    if path and not create and not holds_collections(path):
        require_ours(at(path))
        raise InvalidInputError(
            f"There is no Qdrant at {path}; expected a directory with collections. Check the path; "
            "'qdrant-rerank index' creates one."
        )
    return url, path


@contextmanager
def client_for(url: str | None, path: str | None) -> "Iterator[QdrantClient]":
    """Open a client, and close it afterwards. It prints no warnings of qdrant-client's.

    Args:
        url: of a server.
        path: directory of an embedded Qdrant.
    """
    from qdrant_rerank.qdrant.transport.client import connect

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = connect(url=url, path=path)
    with closing(client):
        if url is not None and not is_own_url(url):
            _warn_about(client, url)
        yield client


def _warn_about(client: "QdrantClient", url: str) -> None:
    """Warn about a key that others can read, and about versions that do not fit."""
    from qdrant_rerank.cli.doctor_server import check_versions

    if os.environ.get("QDRANT_API_KEY") and url.lower().startswith("http://"):
        warnings.warn(
            "QDRANT_API_KEY is sent without encryption. Use an https:// URL.", stacklevel=2
        )
    with suppress(QdrantError):  # the command's own request says it
        server = asking(client)(lambda asked: asked.info()).version
        for finding in check_versions(server, version("qdrant-client")):
            if finding.wrong:
                warnings.warn(f"{finding.seen} {finding.fix}", stacklevel=2)


def is_own_url(url: str) -> bool:
    """Return whether a URL names this machine itself.

    >>> is_own_url("localhost:6333"), is_own_url("http://[::1]"), is_own_url("http://qdrant")
    (True, True, False)
    """
    try:
        return is_loopback(urlsplit(url if "://" in url else f"//{url}").hostname or "")
    except ValueError:
        return False


@contextmanager
def searcher_for(
    source: Source, reranker: str = NONE, *, create: bool = False
) -> "Iterator[HybridSearcher]":
    """Make a searcher as the options say, and close its client afterwards.

    Raises:
        InvalidInputError: see :func:`qdrant_place`.
    """
    from qdrant_rerank.embedders import load_embedder, load_sparse
    from qdrant_rerank.search.searcher import HybridSearcher

    url, path = qdrant_place(source.url, source.path, create=create)
    load_sparse("auto", source.language)  # a wrong language creates no directory
    if source.embedder != NONE:
        load_embedder(source.embedder)  # is kept; a wrong name creates no directory
    with client_for(url, path) as client:
        yield HybridSearcher(
            source.collection,
            client=client,
            text=text_source(source.text),
            embedder=model(source.embedder),
            reranker=model(reranker),
            language=source.language,
        )


def recorded_states(client: "QdrantClient", collection: str | None) -> "CollectionStates | None":
    """Return the states that a collection stores; None if it stores none, or there is none."""
    from qdrant_rerank.qdrant.schema import CollectionSchema

    ask = asking(client, collection or "")
    if not collection or not ask(lambda asked: asked.collection_exists(collection)):
        return None
    info = ask(lambda asked: asked.get_collection(collection))
    return CollectionSchema.from_info(collection, info).states


def storing(
    searcher: "HybridSearcher",
    source: Source,
    states: "CollectionStates | None",
    wanted: str | None,
) -> "tuple[HybridSearcher, StatesPrecision | None]":
    """Return a searcher whose ``add`` stores states of documents, and their precision.

    Args:
        searcher: without a reranker; it is returned if no states are to be stored.
        source: what it was made of.
        states: those of the collection that is filled, or replaced; None for none.
        wanted: precision that was asked for; None for that of ``states``.
    """
    from qdrant_rerank.hub.specs import DEFAULT_RERANKER
    from qdrant_rerank.search.searcher import HybridSearcher

    precision: Any = wanted or (None if states is None else states.precision)
    if precision is None:
        return searcher, None
    made = HybridSearcher(
        searcher.collection,
        client=searcher.client,
        text=text_source(source.text),
        embedder=model(source.embedder),
        reranker=DEFAULT_RERANKER if states is None else states.name,
        language=source.language,
    )
    return made, precision


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """Add what to do next to the errors of an ``add`` that had begun; print it after Ctrl-C."""
    try:
        yield
    except QdrantRerankError as error:
        if error.stored is not None:
            error.command_message = f"{error.command_message or error} {advice}"
        raise
    except KeyboardInterrupt:
        say(advice, err=True)
        raise


def asking(client: "QdrantClient", collection: str = "") -> Callable[[Callable[[Any], Any]], Any]:
    """Return a function that sends a request with a client.

    It takes a function of the client, and raises our errors instead of the client's.

    Args:
        client: sends the requests.
        collection: the collection's name, for messages.
    """
    from qdrant_rerank.qdrant.transport.driver import CallLimits, Driver

    driver = Driver(client, collection, CallLimits())
    return lambda send: driver.ask(lambda asked, timeout: send(asked))
