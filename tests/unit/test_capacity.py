"""The arithmetic of machines."""

import math

import pytest

from qdrant_rerank.capacity import Workload, plan
from qdrant_rerank.errors import InvalidInputError

GIVEN = {"documents": 1e8, "qps": 200, "candidates": 100, "pairs_per_second": 80}
GIB = 2**30


def of(**changed):
    """The plan of a workload."""
    return plan(Workload(**{**GIVEN, **changed}))


def test_memory_is_qdrants_rule():
    """Its example: a million vectors of 1,024 dimensions take 5.72 GiB; int8 takes a quarter."""
    example = {"documents": 1e6, "dimension": 1024, "terms": 0, "document_bytes": 0}
    assert of(**example, quantization="none").memory_gib == pytest.approx(5.72, abs=0.01)
    assert of(**example).memory_gib == pytest.approx(5.72 / 4, abs=0.01)
    assert of(**example).disk_gib == pytest.approx(5.72 * 1.25, abs=0.01)


def test_nodes_hold_the_memory_and_answer_the_queries():
    """Three at least beyond a million documents; more for memory, and more for queries."""
    assert (of(documents=1e6).nodes, of(documents=1e6).replicas_of_shards) == (1, 1)
    assert (of(documents=2e6).nodes, of(documents=2e6).replicas_of_shards) == (3, 2)
    found = of(documents=1e9)
    assert found.nodes == math.ceil(found.memory_gib / (64 * 0.8))
    assert found.shards == 2 * found.nodes
    assert of(documents=1e6, node_qps=150).nodes == 3
    assert of(documents=2e6, node_qps=10).nodes == 40
    assert any("--node-qps" in note for note in of().notes)
    assert not any("--node-qps" in note for note in of(node_qps=100).notes)


def test_replicas_score_the_pairs():
    """At 70 % of their time, and one more; a query's own time is on one replica."""
    found = of(replica_cores=2)
    assert found.pairs_per_second == 20_000
    assert found.reranker_replicas == math.ceil(20_000 / (160 * 0.7)) + 1
    assert found.reranker_cores == 2 * found.reranker_replicas
    assert found.query_s == pytest.approx(100 / 160)
    assert found.network_mbit == pytest.approx(160)
    assert any("keeps a replica busy" in note for note in of(replica_cores=1).notes)


def test_prices_and_indexing_are_shown_if_they_are_known():
    """None, rather than a guess."""
    assert of().cost_hour is None
    assert of().index_core_hours is None
    found = of(core_hour=0.04, gib_hour=0.005, documents_per_second=1000)
    assert found.cost_hour == pytest.approx(found.reranker_cores * 0.04 + found.nodes * 64 * 0.005)
    assert found.index_core_hours == pytest.approx(1e8 / 1000 / 3600)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"documents": 0}, "documents is 0; expected 1 or more"),
        ({"documents": math.nan}, "documents is nan"),
        ({"qps": 0}, "qps is 0; expected a number above 0"),
        ({"qps": 1e16}, "qps is 1e\\+16; expected a number above 0, at most 1e15"),
        ({"candidates": 0}, "candidates is 0; expected 1 or more"),
        ({"pairs_per_second": -1}, "pairs_per_second is -1"),
        ({"quantization": "int4"}, "quantization is 'int4'; expected one of 'none', 'int8'"),
        ({"dimension": -1}, "dimension is -1; expected 0 or more"),
        ({"core_hour": -1}, "core_hour is -1; expected a price of 0 or more"),
        ({"node_qps": 0}, "node_qps is 0"),
    ],
)
def test_bad_workloads(changed, message):
    """The error says what was seen and expected."""
    with pytest.raises(InvalidInputError, match=message):
        of(**changed)
