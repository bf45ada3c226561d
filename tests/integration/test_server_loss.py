"""Real servers whose keys change, and tokens for one collection."""

import base64
import hashlib
import hmac
import json
import time

import pytest
from qdrant_client import QdrantClient

from qdrant_rerank import HybridSearcher, SearchOptions
from qdrant_rerank.errors import QdrantRequestError
from tests.integration.test_server import client_options, collection, options  # noqa: F401
from tests.integration.test_server_trouble import client, sentences  # noqa: F401
from tests.own_server import OwnServer

pytestmark = [
    pytest.mark.server,
    # An API key over plain HTTP; a cluster's balancer has its ports elsewhere.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
BOTH = pytest.mark.parametrize("prefer_grpc", [False, True], ids=["rest", "grpc"])
KEY = "canary-key-of-the-server"


def token(**claims):
    """A token that the server's key has signed, as an administrator makes it."""

    def part(content):
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=")

    body = part({"alg": "HS256", "typ": "JWT"}) + b"." + part(claims)
    signed = hmac.new(KEY.encode(), body, hashlib.sha256).digest()
    return (body + b"." + base64.urlsafe_b64encode(signed).rstrip(b"=")).decode()


@BOTH
def test_a_rotated_key(server_url, tmp_path, prefer_grpc):
    """The old one is refused from then on, the new one finds what was there."""
    with OwnServer(tmp_path, SERVICE__API_KEY="canary-old") as server:
        given = server.client_options(prefer_grpc=prefer_grpc)
        old = HybridSearcher(
            "docs", client=QdrantClient(**given, api_key="canary-old"), reranker=None
        )
        old.add(["iron"], progress=False)
        server.restart(SERVICE__API_KEY="canary-new")
        for call in (lambda: old.search("iron"), lambda: old.add(["tin"], progress=False)):
            with pytest.raises(QdrantRequestError, match="refused access.*QDRANT_API_KEY") as seen:
                call()
            assert "canary" not in str(seen.value)
        new = HybridSearcher(
            "docs", client=QdrantClient(**given, api_key="canary-new"), reranker=None
        )
        assert len(new.search("iron")) == 1


@BOTH
def test_a_token_for_one_collection(server_url, tmp_path, prefer_grpc):
    """It searches and fills that one; others, what it may not do, and its end are told."""
    with OwnServer(tmp_path, SERVICE__API_KEY=KEY, SERVICE__JWT_RBAC="true") as server:

        def searcher(key, name="docs"):
            given = server.client_options(prefer_grpc=prefer_grpc)
            return HybridSearcher(name, client=QdrantClient(**given, api_key=key), reranker=None)

        for name in ("docs", "others"):
            searcher(KEY, name).add(["iron"], progress=False)
        writes = token(access=[{"collection": "docs", "access": "rw"}])
        reads = token(access=[{"collection": "docs", "access": "r"}])
        ended = token(access="m", exp=int(time.time()) - 3600)
        assert searcher(writes).add(["tin"], progress=False) == 1
        assert len(searcher(reads).search("iron")) == 2
        for call in (
            lambda: searcher(writes, "others").search("iron"),
            lambda: searcher(writes, "others").add(["tin"], progress=False),
            lambda: searcher(writes, "none").add(["tin"], progress=False),
            lambda: searcher(reads).add(["lead"], progress=False),
            lambda: searcher(ended).search("iron"),
        ):
            with pytest.raises(QdrantRequestError, match="refused access.*QDRANT_API_KEY") as seen:
                call()
            assert not {writes, reads, ended, KEY} & set(str(seen.value).split())
        assert len(searcher(KEY, "others").search("iron")) == 1


RETRIED = SearchOptions(retries=3, timeout_s=20)
