"""Documents into real Qdrant nodes by real Ray workers: each once, whatever happens on the way."""

import threading
import time

import pytest
from qdrant_client import QdrantClient

from qdrant_rerank import CollectionSettings, HybridSearcher
from qdrant_rerank.distributed import index_dataset
from qdrant_rerank.errors import IncompleteAddError, InvalidInputError, MissingTextError
from tests.integration.distributed.data import json_lines, pairs, parquet
from tests.own_server import own_cluster

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.server]

COUNT = 1500
SMALL = 20_000


def documents(count):
    """Payloads, all different."""
    return [{"text": row["text"], "n": row["n"]} for row in pairs(count)]


@pytest.fixture
def cluster(server_url, tmp_path):
    """Three nodes, which a test may kill."""
    (tmp_path / "qdrant").mkdir()
    with own_cluster(tmp_path / "qdrant") as nodes:
        yield nodes


def url(node):
    """The URL of a node."""
    return node.client_options()["url"]


def stored(node, name="docs"):
    """The numbers of the documents of a collection, sorted."""
    client = QdrantClient(**node.client_options())
    found, offset = [], None
    while True:
        points, offset = client.scroll(name, limit=1000, offset=offset, with_payload=["n"])
        found += [point.payload["n"] for point in points]
        if offset is None:
            return sorted(found)


def test_a_node_is_killed_in_the_middle(cluster, tmp_path):
    """Workers go on with another node; every document is there once; again, nothing is added."""
    source = parquet(tmp_path / "in.parquet", documents(COUNT))
    urls = [url(node) for node in cluster]
    settings = CollectionSettings(shard_number=3, replication_factor=3)
    killed = []

    def kill():
        client = QdrantClient(**cluster[0].client_options())
        end = time.monotonic() + 300
        while time.monotonic() < end:
            if client.collection_exists("docs") and client.count("docs").count > 1030:
                cluster[2].kill()
                killed.append(True)
                return
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    index_dataset(source, "docs", url=urls, settings=settings, partition_bytes=SMALL, concurrency=2)
    killer.join()
    assert killed
    assert stored(cluster[0]) == list(range(COUNT))
    again = index_dataset(
        source, "docs", url=urls[:2], partition_bytes=SMALL, concurrency=1, resume=True
    )
    assert again.stored == 0
    with HybridSearcher("docs", client=QdrantClient(**cluster[1].client_options())) as searcher:
        assert len(searcher.search("iron", limit=3)) == 3


def test_wrong_documents_are_named(cluster, tmp_path):
    """All others are stored; the error has the partition; a wrong first row shows at once."""
    rows = documents(COUNT)
    del rows[1400]["text"]
    source = json_lines(tmp_path / "in.jsonl", rows)
    with pytest.raises(IncompleteAddError, match=r"1 partition was .*in\.jsonl, bytes \d") as seen:
        index_dataset(
            source, "docs", url=url(cluster[0]), text="text", partition_bytes=SMALL, concurrency=2
        )
    assert isinstance(seen.value.causes[0], MissingTextError)
    found = stored(cluster[0])
    assert COUNT - 300 < len(found) < COUNT
    assert len(set(found)) == len(found)
    wrong = json_lines(tmp_path / "wrong.jsonl", [{"body": "a"}])
    with pytest.raises(MissingTextError, match="body"):
        index_dataset(wrong, "others", url=url(cluster[0]), text="text")
    assert not QdrantClient(**cluster[0].client_options()).collection_exists("others")


def test_states_are_refused(tmp_path):
    """Workers load no reranker; the message names the command that stores them."""
    json_lines(tmp_path / "docs.jsonl", documents(3))
    settings = CollectionSettings(document_states="int8")
    with pytest.raises(InvalidInputError, match="'qdrant-rerank states --collection docs'"):
        index_dataset(tmp_path, "docs", url="http://127.0.0.1:1", settings=settings)
