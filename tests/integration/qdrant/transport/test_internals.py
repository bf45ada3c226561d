"""A release of qdrant-client that renames what has no public name."""

import logging
import time

import pytest
from qdrant_client import QdrantClient

from qdrant_rerank import HybridSearcher
from qdrant_rerank.errors import QdrantConnectionError
from qdrant_rerank.qdrant.transport import internals
from tests import fault_grpc
from tests.fault_grpc import serving_grpc
from tests.fault_server import Script, hanging, serving
from tests.faults import FOUND, GOOD, QUERY, SCHEMA, grpc_address


class PublicNames:
    """A client, or a part of it, that has its public names only."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(f"{type(self.inner).__name__!r} object has no attribute {name!r}")
        found = getattr(self.inner, name)
        return PublicNames(found) if name in {"http", "client"} else found


@pytest.fixture(autouse=True)
def nothing_was_warned_of(monkeypatch):
    """Each test is the first to meet that release."""
    monkeypatch.setattr(internals, "_missing", set())


def searcher_at(**address):
    """A searcher on such a client."""
    client = QdrantClient(**address, timeout=60, check_compatibility=False)
    return HybridSearcher("docs", client=PublicNames(client), reranker=None)


def warnings_in(caplog):
    """What our package logged."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("qdrant_rerank") and record.levelno >= logging.WARNING
    ]


def test_searches_go_on_over_rest(caplog):
    """One warning for all clients; a server that hangs is still given up at the deadline."""
    script = Script({"GET": [SCHEMA], "POST": [FOUND, FOUND, FOUND, hanging]})
    with serving(script) as url:
        for _ in range(2):
            searcher = searcher_at(url=url)
            assert [hit.id for hit in searcher.search("q")] == [1]
        assert [hit.id for hit in searcher.search("q", deadline_s=60)] == [1]
        [warning] = warnings_in(caplog)
        assert "other internals over HTTP" in warning
        assert "'_client'" in warning
        began = time.monotonic()
        with pytest.raises(QdrantConnectionError, match="in time"):
            searcher.search("q", deadline_s=0.9)
        assert time.monotonic() - began < 30


def test_searches_go_on_over_grpc(caplog):
    """A deadline is kept to the whole seconds that the client's own calls take."""
    script = Script(GOOD | {QUERY: [*GOOD[QUERY] * 3, fault_grpc.hanging]})
    with serving_grpc(script) as port:
        for _ in range(2):
            searcher = searcher_at(**grpc_address(port))
            assert [hit.id for hit in searcher.search("q")] == [1]
        assert [hit.id for hit in searcher.search("q", deadline_s=60)] == [1]
        assert [warning for warning in warnings_in(caplog) if "over gRPC ('" in warning]
        assert len(warnings_in(caplog)) == 2  # the other one is over HTTP
        began = time.monotonic()
        with pytest.raises(QdrantConnectionError, match="in time"):
            searcher.search("q", deadline_s=0.9)
        assert time.monotonic() - began < 30
