"""Real servers with changing keys, tokens and limits, killed during reindex, search and add."""

import asyncio
import base64
import hashlib
import hmac
import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import grpc
import pytest
from click.testing import CliRunner
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from qdrant_rerank import AsyncHybridSearcher, CollectionSettings, HybridSearcher, SearchOptions
from qdrant_rerank.cli.main import main
from qdrant_rerank.errors import QdrantConnectionError, QdrantRequestError
from tests.integration.test_server import client_options, collection, options  # noqa: F401
from tests.integration.test_server_trouble import client, sentences  # noqa: F401
from tests.own_server import OwnServer, own_cluster

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


@BOTH
def test_a_node_of_three_killed_during_add_and_search(server_url, tmp_path, prefer_grpc):
    """Nothing is lost, and no search fails, through another node."""
    texts = sentences(300)
    with own_cluster(tmp_path) as nodes:
        asked = QdrantClient(**nodes[0].client_options(prefer_grpc=prefer_grpc))
        searcher = HybridSearcher("docs", client=asked, reranker=None, options=RETRIED)
        settings = CollectionSettings(replication_factor=3, shard_number=2)

        def killing():
            for n, text in enumerate(texts):
                if n == 120:
                    nodes[2].kill()
                yield text

        assert searcher.add(killing(), settings=settings, batch_size=30, progress=False) == 300
        assert asked.count("docs").count == 300
        found, failures = [], []

        def search():
            try:
                found.extend(len(searcher.search("iron furnace", limit=5)) for _ in range(10))
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=search) for _ in range(4)]
        for thread in threads:
            thread.start()
        nodes[1].kill()
        for thread in threads:
            thread.join()
        assert (failures, set(found)) == ([], {5})
        asked.close()


RETRIED = SearchOptions(retries=3, timeout_s=20)


@pytest.mark.parametrize("after", [1, 3])
def test_a_server_killed_during_reindex_keeps_the_old_collection(
    server_url, tmp_path, monkeypatch, after
):
    """The alias still stands for it; the next reindex goes through."""
    file = tmp_path / "documents.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in sentences(200)))
    with OwnServer(tmp_path) as server:
        monkeypatch.setenv("QDRANT_URL", f"http://127.0.0.1:{server.port}")
        monkeypatch.delenv("QDRANT_API_KEY", raising=False)
        command = ["reindex", str(file), "--collection", "docs", "--batch-size", "20", "--json"]
        assert CliRunner().invoke(main, command, catch_exceptions=False).exit_code == 0
        look = QdrantClient(**server.client_options())
        [old] = [one.name for one in look.get_collections().collections]

        def kill():
            while True:  # until some batches of the new collection are there
                names = [one.name for one in look.get_collections().collections if one.name != old]
                if names and look.count(names[0]).count >= 20 * after:
                    server.kill()
                    return

        killer = threading.Thread(target=kill)
        killer.start()
        done = CliRunner().invoke(main, command, catch_exceptions=False)
        killer.join()
        assert done.exit_code == 2
        assert "documents before it were added" in done.stderr
        server.start()
        assert look.count("docs").count == 200
        assert [one.collection_name for one in look.get_aliases().aliases] == [old]
        again = CliRunner().invoke(main, command, catch_exceptions=False)
        assert again.exit_code == 0, again.output
        assert json.loads(again.stdout)["added"] == 200
        assert look.count("docs").count == 200
        look.close()


def test_a_reindex_that_is_killed_keeps_the_old_collection(client, collection, monkeypatch):  # noqa: F811
    """Its documents come through a pipe, which is still open; the next reindex goes through."""
    monkeypatch.setenv("QDRANT_URL", client.init_options["url"])
    command = [sys.executable, "-m", "qdrant_rerank", "reindex", "-", "--batch-size", "20"]
    lines = [json.dumps({"text": text}) for text in sentences(1300)]

    def reindex(lines, killed):
        """Return the exit code; kill it once some of its documents are stored."""
        before = {one.name for one in client.get_collections().collections}
        with subprocess.Popen(
            [*command, "--collection", collection], stdin=subprocess.PIPE, text=True
        ) as process:
            process.stdin.write("\n".join(lines) + "\n")
            process.stdin.flush()
            while killed and process.poll() is None:
                now = {one.name for one in client.get_collections().collections} - before
                with suppress(UnexpectedResponse, grpc.RpcError):  # its shards are not there yet
                    if any(client.count(name).count >= 20 for name in now):
                        process.kill()
            process.stdin.close()
        return process.returncode

    assert reindex(lines[:100], killed=False) == 0
    aliases = client.get_aliases().aliases
    [old] = [one.collection_name for one in aliases if one.alias_name == collection]
    assert reindex(lines, killed=True) == -signal.SIGKILL
    assert client.count(collection).count == 100
    assert len(HybridSearcher(collection, client=client, reranker=None).search("iron")) == 10
    assert reindex(lines[:200], killed=False) == 0
    assert client.count(collection).count == 200
    assert not client.collection_exists(old)


@BOTH
def test_a_server_killed_during_search_is_told_and_found_again(server_url, tmp_path, prefer_grpc):
    """Each search ends with hits or with our error; the same searcher goes on afterwards."""
    with OwnServer(tmp_path) as server:
        asked = QdrantClient(**server.client_options(prefer_grpc=prefer_grpc))
        searcher = HybridSearcher("docs", client=asked, reranker=None)
        searcher.add(sentences(100), progress=False)
        awaited = AsyncQdrantClient(**server.client_options(prefer_grpc=prefer_grpc))
        in_loop = AsyncHybridSearcher("docs", client=awaited, reranker=None)
        loop = asyncio.new_event_loop()
        assert len(loop.run_until_complete(in_loop.search("iron furnace", limit=5))) == 5
        outcomes, began = [], threading.Event()

        def search():
            for _ in range(1000):
                try:
                    outcomes.append(len(searcher.search("iron furnace", limit=5)))
                except Exception as error:
                    outcomes.append(error)
                    return
                began.set()

        threads = [threading.Thread(target=search) for _ in range(8)]
        for thread in threads:
            thread.start()
        began.wait(60)
        server.kill()
        for thread in threads:
            thread.join()
        assert all(one == 5 or isinstance(one, QdrantConnectionError) for one in outcomes)
        assert any(isinstance(one, QdrantConnectionError) for one in outcomes)
        give_up = time.monotonic() + 6  # gRPC's own waits between connections have grown by then
        while time.monotonic() < give_up:
            with pytest.raises(QdrantConnectionError):
                searcher.search("iron furnace", limit=5)
            with pytest.raises(QdrantConnectionError):
                loop.run_until_complete(in_loop.search("iron furnace", limit=5))
        server.start()
        retried = SearchOptions(retries=3)
        assert len(searcher.search("iron furnace", limit=5, options=retried)) == 5
        steps = in_loop.search("iron furnace", limit=5, options=retried)
        assert len(loop.run_until_complete(steps)) == 5
        loop.run_until_complete(awaited.close())
        loop.close()
        asked.close()


def test_a_rate_limit_is_told_and_waited_for(client, collection):  # noqa: F811
    """Of reads: a search says so, or waits as long as the server says; of writes, add waits."""
    searcher = HybridSearcher(collection, client=client, reranker=None)
    searcher.add(sentences(20), progress=False)
    limits = models.StrictModeConfig(enabled=True, read_rate_limit=60, write_rate_limit=60)
    client.update_collection(collection, strict_mode_config=limits)

    def search_until_refused():
        for _ in range(500):
            searcher.search("iron", limit=3)

    with pytest.raises(QdrantRequestError, match=r"asked too often.*Try again"):
        search_until_refused()
    retried = SearchOptions(retries=5)
    assert len(searcher.search("iron", limit=3, options=retried)) == 3
    assert searcher.add(sentences(70, seed=1), batch_size=1, progress=False) == 70
