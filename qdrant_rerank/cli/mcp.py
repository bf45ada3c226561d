"""``qdrant-rerank mcp``: a server of the Model Context Protocol."""

import socket

import click

from qdrant_rerank.cli.options import Source, reranker_option, source_options
from qdrant_rerank.cli.output import say
from qdrant_rerank.cli.searchers import qdrant_place, searcher_for
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.loopback import is_loopback

__all__ = ["mcp"]


@click.command()
@source_options
@reranker_option("a path, or 'none' for the order of the first stage")
@click.option(
    "--transport",
    type=click.Choice(["stdio", "http"]),
    default="stdio",
    show_default=True,
    help="stdin and stdout, or streamable HTTP at /mcp.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of http.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port of http."
)
@click.option("--read-only", is_flag=True, help="Offer search alone, not add.")
def mcp(
    source: Source, reranker: str, transport: str, host: str, port: int, read_only: bool
) -> None:
    """Let agents search a collection, and add to it, by the Model Context Protocol.

    It has no access control: with another --host than this machine's own, whoever reaches the port
    can search, and add unless --read-only is given.
    """
    from qdrant_rerank.integrations.mcp import make_server, serve_http, serve_stdio

    if transport == "http":
        require_free(host, port)
    if not read_only:
        qdrant_place(source.url, source.path, create=True)
    with searcher_for(source, reranker, create=not read_only) as searcher:
        server = make_server(searcher, read_only=read_only)
        if transport == "stdio":
            serve_stdio(server)
            return
        if not is_loopback(host):
            say(f"Warning: whoever reaches {host}:{port} can use the tools.", err=True)
        serve_http(server, host, port)


def require_free(host: str, port: int) -> None:
    """Raise InvalidInputError unless this machine can listen at an address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise InvalidInputError(
            f"--host {host} --port {port} cannot be listened at: {error.strerror or error}. Pass "
            "an address of this machine, and a port that no other program uses."
        ) from error
