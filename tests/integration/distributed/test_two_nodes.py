"""Two Ray nodes, each with one core, of which one is lost."""

import threading

import pytest
import ray
from ray.cluster_utils import Cluster

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from qdrant_rerank.distributed import rerank_dataset
from tests.integration.distributed.conftest import OBJECT_STORE_BYTES, until_in_time
from tests.integration.distributed.data import pairs, parquet, scored
from tests.integration.distributed.processes import until, workers


@pytest.fixture
def cluster():
    """Two nodes; the first one's driver is this process."""
    ray.shutdown()  # the one that the other files share; this file is the last one
    options = {"num_cpus": 1, "object_store_memory": OBJECT_STORE_BYTES}
    head = {**options, "node_ip_address": "127.0.0.2", "include_dashboard": False}
    made = until_in_time(lambda: Cluster(initialize_head=True, head_node_args=head))
    until_in_time(lambda: made.add_node(**options, node_ip_address="127.0.0.3"))
    ray.init(made.address, log_to_driver=False, _node_ip_address="127.0.0.2")
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_lost_node(cluster, tmp_path):
    """Both nodes score; when one is lost, the other finishes: the same scores, no duplicate."""
    rows = pairs(600)
    source = parquet(tmp_path / "in.parquet", rows)
    out = tmp_path / "out"
    nodes = []

    def lose():
        until(lambda: len({parent for _, parent in workers()}) == 2)
        nodes.extend({parent for _, parent in workers()})
        until(lambda: len(list(out.glob("part-*"))) >= 3)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    loser = threading.Thread(target=lose)
    loser.start()
    rerank_dataset(source, output=out, partition_bytes=4000)
    loser.join()
    assert len(nodes) == 2
    encoder = TextCrossEncoder(DEFAULT_RERANKER)
    expected = [encoder.rerank(row["query"], [row["text"]])[0] for row in rows]
    assert [row["score"] for row in scored(out)] == expected
    assert [row["n"] for row in scored(out)] == list(range(600))
