"""A server of the Model Context Protocol: agents search a Qdrant collection, and add to it."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field

from qdrant_rerank.errors import CollectionNotFoundError, InvalidInputError, QdrantRerankError
from qdrant_rerank.integrations.shared import as_text, missing, text_and_metadata
from qdrant_rerank.payload.writers import AUTO, LLAMA_INDEX
from qdrant_rerank.search.searcher import HybridSearcher
from qdrant_rerank.utils.validation import a_type

try:
    import anyio
    from anyio.to_thread import run_sync
    from mcp.server.stdio import stdio_server
    from mcp.types import ToolAnnotations

    try:  # mcp 2
        from mcp.server.mcpserver import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError:  # mcp 1, where it had another name
        from mcp.server.fastmcp import FastMCP as MCPServer
        from mcp.server.fastmcp.exceptions import ToolError
except ImportError as error:
    raise missing("mcp", "mcp") from error

__all__ = ["Hit", "make_server", "serve_http", "serve_stdio"]

Result = TypeVar("Result")

MOST_HITS = 100
#: For which the SDK compares Host and Origin.
OWN_HOSTS = ("127.0.0.1", "localhost", "::1")
#: Where those who store a text in such a field store what else is known.
METADATA_OF = {"page_content": "metadata", "document": "metadata", "content": "meta"}


class Hit(BaseModel):
    """One hit of the tool ``search``.

    Attributes:
        id: id of the point.
        text: its text.
        score: the score that orders the page.
        rerank_score: the reranker's score; None if the hit was not scored.
        retrieval_score: the score that Qdrant returned.
        metadata: what else the payload has.
    """

    id: int | str
    text: str
    score: float
    rerank_score: float | None
    retrieval_score: float
    metadata: dict[str, Any]


def make_server(searcher: HybridSearcher, *, read_only: bool = False) -> MCPServer:
    """Make a server with the tools ``search`` and ``add``.

    Args:
        searcher: on the collection; who made it closes it.
        read_only: leaves out ``add``.

    Returns:
        The SDK's server. :func:`serve_stdio` and :func:`serve_http` run it.

    Raises:
        InvalidInputError: the searcher is none.
    """
    if not isinstance(searcher, HybridSearcher):
        raise InvalidInputError(f"searcher is {a_type(searcher)}; expected a HybridSearcher.")
    server = MCPServer(
        "qdrant-rerank",
        instructions=f"Search the Qdrant collection {searcher.collection!r}, best hits first.",
        log_level="WARNING",
    )

    @server.tool(annotations=ToolAnnotations(readOnlyHint=True))
    async def search(
        query: Annotated[str, Field(description="A question, or words to search for")],
        limit: Annotated[int, Field(description="Hits to return", ge=1, le=MOST_HITS)] = 5,
        query_filter: Annotated[
            dict[str, Any] | None,
            Field(
                description="Which points to consider, as Qdrant's filters: "
                '{"must": [{"key": "year", "range": {"gte": 2010}}]}'
            ),
        ] = None,
    ) -> list[Hit]:
        """Search the collection; a cross-encoder puts the best hits first."""

        def call() -> list[Hit]:
            hits = searcher.search(as_text(query), limit, query_filter=query_filter)
            return [_hit(searcher, hit) for hit in hits]

        return await _answer(call)

    if not read_only:

        @server.tool(annotations=ToolAnnotations(destructiveHint=False, idempotentHint=True))
        async def add(
            texts: Annotated[list[str], Field(description="Texts to store", min_length=1)],
            metadata: Annotated[
                dict[str, Any] | None, Field(description="Stored with each of the texts")
            ] = None,
        ) -> str:
            """Store texts in the collection, so that search finds them. Twice is as once."""
            added = await _answer(lambda: _add(searcher, texts, metadata))
            return f"{added} stored in {searcher.collection!r}."

    return server


def serve_http(server: MCPServer, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Answer over streamable HTTP at ``/mcp``, until the process is stopped.

    Args:
        server: of :func:`make_server`.
        host: address to listen on. With "127.0.0.1", "localhost" or "::1", requests whose Host or
            Origin is another machine's are refused.
        port: port to listen on.
    """
    if hasattr(server.settings, "host"):  # mcp 1
        server.settings.host, server.settings.port = host, port
        if host not in OWN_HOSTS:
            server.settings.transport_security = None
        server.run("streamable-http")
    else:
        server.run("streamable-http", host=host, port=port)


def serve_stdio(server: MCPServer) -> None:
    """Answer on stdin and stdout until stdin ends; what else is printed goes to stderr."""
    own = getattr(server, "_mcp_server", None)
    if own is None:  # mcp 2 keeps stdout for itself
        server.run("stdio")
        return
    with _stdout_alone() as protocol:

        async def serve() -> None:
            async with stdio_server(stdout=anyio.wrap_file(protocol)) as (read, write):
                await own.run(read, write, own.create_initialization_options())

        anyio.run(serve)


async def _answer(call: Callable[[], Result]) -> Result:
    """Return what a call in a thread returns.

    Raises:
        ToolError: one of our errors, whose message the agent gets to read.
    """
    try:
        return await run_sync(call)
    except QdrantRerankError as error:
        raise ToolError(str(error)) from error


@contextmanager
def _stdout_alone() -> Iterator[TextIOWrapper]:
    """Yield stdout; anything that prints, libraries in C included, prints on stderr instead."""
    sys.stdout.flush()
    kept = os.dup(1)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as protocol:
        os.dup2(2, 1)
        try:
            yield protocol
        finally:
            sys.stdout.flush()
            os.dup2(kept, 1)
            os.close(kept)


def _hit(searcher: HybridSearcher, hit: Any) -> Hit:
    text, metadata = text_and_metadata(hit.payload, searcher.text, "", "metadata")
    return Hit(
        id=hit.id if isinstance(hit.id, int) else str(hit.id),
        text=text,
        score=hit.score,
        rerank_score=hit.rerank_score,
        retrieval_score=hit.retrieval_score,
        metadata=metadata,
    )


def _add(searcher: HybridSearcher, texts: list[str], metadata: dict[str, Any] | None) -> int:
    """Store texts as the collection's writer does.

    Raises:
        InvalidInputError: the texts are not in one field, or the metadata have one of this name.
    """
    if searcher.text.source == AUTO:  # a search finds out where the texts are
        with suppress(CollectionNotFoundError):
            searcher.search(as_text(texts[0]), 1)
    text = searcher.text
    # Of a collection without points, and of LlamaIndex's where a point is no node.
    keys = ("text",) if text.source in (AUTO, LLAMA_INDEX) else text.keys
    if keys is None:
        raise InvalidInputError(
            f"The texts of {searcher.collection!r} are read by {text.name!r}, which is not one "
            "field, so that a text has no place of its own. Search works; whoever fills the "
            "collection adds to it."
        )
    if not metadata and text.source != LLAMA_INDEX:
        return int(searcher.add(texts, progress=False))
    [*outer, field] = keys
    if outer:
        raise InvalidInputError(
            f"The texts of {searcher.collection!r} are in {searcher.text.name!r}, inside other "
            "fields, where metadata have no place; expected texts without metadata."
        )
    place = METADATA_OF.get(field)
    known = {place: metadata} if place else metadata or {}
    if field in known:
        raise InvalidInputError(
            f"metadata has {field!r}, where the text is stored; expected other names."
        )
    return int(searcher.add([{field: text, **known} for text in texts], progress=False))
