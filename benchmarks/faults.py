"""What the caller sees when Qdrant is in trouble, and how many requests are made.

    python -m benchmarks.faults [--retries 2] [--only 503 hangs] [--markdown]

Each fault comes from a server on a loopback socket, over REST or gRPC, that answers the first
request, for the collection's schema, and fails at every query; a search by ``HybridSearcher``,
then one by ``AsyncHybridSearcher``. Then the fault passes after the first query, and the search is
done again. Last, what is left of threads, sockets and other descriptors.
"""

import argparse
import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from qdrant_client import AsyncQdrantClient, QdrantClient
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qdrant_rerank import AsyncHybridSearcher, HybridSearcher, SearchOptions, SearchResults
from qdrant_rerank.errors import QdrantRerankError
from tests.faults import EVERY_FAULT, Fault, Held, in_trouble, left_behind

COLUMNS = ("fault", "the caller sees", "caused by", "requests", "if it passes")


@dataclass(frozen=True)
class Seen:
    """What came of one search.

    Attributes:
        result: the hits, or what was raised.
        requests: queries that the server got.
    """

    result: SearchResults | QdrantRerankError
    requests: int

    def __str__(self) -> str:
        if isinstance(self.result, QdrantRerankError):
            return type(self.result).__name__
        return f"{len(self.result)} hit"

    @property
    def cause(self) -> str:
        """The client's own exception."""
        error = self.result.__cause__ if isinstance(self.result, QdrantRerankError) else None
        if isinstance(error, grpc.RpcError):
            return f"RpcError({error.code().name})"
        source = getattr(error, "source", None)
        inner = f"({type(source).__name__})" if source is not None else ""
        return "" if error is None else type(error).__name__ + inner


def search(address: Mapping[str, Any], options: SearchOptions) -> SearchResults | QdrantRerankError:
    client = QdrantClient(**address, check_compatibility=False)
    try:
        return HybridSearcher("docs", client=client, reranker=None, options=options).search("q")
    except QdrantRerankError as error:
        return error
    finally:
        client.close()


async def async_search(
    address: Mapping[str, Any], options: SearchOptions
) -> SearchResults | QdrantRerankError:
    client = AsyncQdrantClient(**address, check_compatibility=False)
    try:
        async with AsyncHybridSearcher(
            "docs", client=client, reranker=None, options=options
        ) as searcher:
            return await searcher.search("q")
    except QdrantRerankError as error:
        return error
    finally:
        await client.close()


def ask(fault: Fault, options: SearchOptions, *, awaits: bool, times: int | None = None) -> Seen:
    with in_trouble(fault, times) as trouble:
        where = trouble.address
        result = asyncio.run(async_search(where, options)) if awaits else search(where, options)
        return Seen(result, trouble.queries())


def row(fault: Fault, options: SearchOptions) -> tuple[str, ...]:
    """One line of the table; both searchers have to agree on it."""
    lines = []
    for awaits in (False, True):
        seen = ask(fault, options, awaits=awaits)
        passing = ""
        if fault.answer is not None:
            after = ask(fault, options, awaits=awaits, times=1)
            passing = f"{after}, {after.requests} request{'s' * (after.requests > 1)}"
        requests = "none arrives" if fault.answer is None else str(seen.requests)
        lines.append((fault.name, str(seen), seen.cause, requests, passing))
    ours, theirs = lines
    # Only the cause may differ: a deadline ends an awaited request as a TimeoutError.
    if (ours[:2], ours[3:]) != (theirs[:2], theirs[3:]):
        raise SystemExit(f"sync: {ours}\nasync: {theirs}")
    return ours


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--retries", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=[fault.name for fault in EVERY_FAULT])
    parser.add_argument("--markdown", action="store_true", help="for a README")
    given = parser.parse_args()
    options = SearchOptions(retries=given.retries, timeout_s=1)
    before = Held.now()
    rows = [
        row(fault, options) for fault in EVERY_FAULT if not given.only or fault.name in given.only
    ]
    if given.markdown:
        for line in (COLUMNS, ["---"] * len(COLUMNS), *rows):
            print("| " + " | ".join(line) + " |")
    else:
        table = Table(*COLUMNS, title=f"retries={given.retries}, timeout_s=1, sync and async alike")
        for line in rows:
            table.add_row(*map(escape, line))
        Console().print(table)
    left = left_behind(before)
    print(f"left behind: {', '.join(left) or 'no thread, no socket, no other descriptor'}")
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    main()
