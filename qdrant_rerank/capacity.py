"""How many machines a search needs: arithmetic on documents, queries and measured speeds.

Memory and disk are Qdrant's own rules of thumb, times the factor of 1.5 that they have for indexes
and for segments that are being rebuilt (https://qdrant.tech/documentation/capacity-planning/). A
cluster has three nodes and two replicas or more, so that one node may be down
(https://qdrant.tech/documentation/guides/distributed_deployment/).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.validation import require_choice, require_number, require_positive

__all__ = ["Plan", "Quantization", "Workload", "plan"]

Quantization = Literal["none", "int8"]

OVERHEAD = 1.5  # of vectors and payloads, by Qdrant's rule
BYTES_PER_TERM = 12  # of the inverted index in memory: number of the point, weight, highest weight
GIB = 2**30
MOST_USED = 0.8  # share of a node's memory beyond which Qdrant's residents leave too little
BUSY = 0.7  # share of its time that a replica may work: beyond it, requests queue
REPLICAS_OF_SHARDS = 2
FEWEST_NODES = 3
SHARDS_PER_NODE = 2
LARGEST_SINGLE = 1_000_000  # documents that one node may hold without a second copy of them
LONGEST_QUERY_S = 1.0
LINK_MBIT = 10_000
MANY_NODES = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is asked of a search.

    Attributes:
        documents: in the collection.
        qps: queries per second, at the peak.
        candidates: documents per query that the reranker reads.
        pairs_per_second: of one core, as measured.
        documents_per_second: that one core embeds, as measured; None if unknown.
        dimension: of dense vectors; 0 for none.
        terms: different terms of a document, for BM25; 0 for none.
        document_bytes: of text and other payload.
        quantization: "int8" keeps a quarter of the dense vectors in memory, and the rest on disk.
        node_gib: memory of one Qdrant node, in GiB.
        node_qps: queries per second that one Qdrant node answers, as measured on the collection;
            None if unknown.
        replica_cores: cores of one replica of the reranker.
        core_hour: price of a core for an hour; None if unknown.
        gib_hour: price of a GiB of memory for an hour; None if unknown.

    Raises:
        InvalidInputError: a number is out of range.
    """

    documents: float
    qps: float
    candidates: int
    pairs_per_second: float
    documents_per_second: float | None = None
    dimension: int = 256
    terms: int = 60
    document_bytes: int = 1000
    quantization: Quantization = "int8"
    node_gib: float = 64
    node_qps: float | None = None
    replica_cores: int = 4
    core_hour: float | None = None
    gib_hour: float | None = None

    def __post_init__(self) -> None:
        require_number("documents", self.documents, "1 or more", least=1)
        require_positive("candidates", self.candidates, optional=False)
        require_positive("replica_cores", self.replica_cores, optional=False)
        require_choice("quantization", self.quantization, Quantization)
        for name in ("dimension", "terms", "document_bytes"):
            require_number(name, getattr(self, name), "0 or more", least=0)
        for name in ("qps", "pairs_per_second", "node_gib"):
            self._require_above_zero(name, getattr(self, name))
        for name in ("documents_per_second", "node_qps"):
            if getattr(self, name) is not None:
                self._require_above_zero(name, getattr(self, name))
        for name in ("core_hour", "gib_hour"):
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name), "a price of 0 or more", least=0)

    @staticmethod
    def _require_above_zero(name: str, value: float) -> None:
        expected = "a number above 0, at most 1e15"
        require_number(name, value, expected, least=0, most=1e15)
        if not value > 0:
            raise InvalidInputError(f"{name} is {value}; expected {expected}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Machines for a workload. All of Qdrant's figures are for the whole cluster, copies included.

    Attributes:
        memory_gib: memory of Qdrant: dense vectors (quantised ones, if they are), and BM25.
        disk_gib: disk of Qdrant: payloads, and all vectors.
        nodes: Qdrant nodes.
        shards: of the collection, without their copies.
        replicas_of_shards: copies of each shard.
        pairs_per_second: that the reranker has to score.
        query_s: seconds that one replica needs for the candidates of one query, with no other.
        reranker_replicas: of ``replica_cores`` cores each, one of them as a spare.
        reranker_cores: of all replicas.
        network_mbit: Mbit per second from Qdrant to the reranker: the candidates' payloads.
        index_core_hours: hours in which one core embeds all documents; None if unknown.
        cost_hour: price of all cores and of Qdrant's memory for an hour; None without prices.
        notes: limits that the workload comes near.
    """

    memory_gib: float
    disk_gib: float
    nodes: int
    shards: int
    replicas_of_shards: int
    pairs_per_second: float
    query_s: float
    reranker_replicas: int
    reranker_cores: int
    network_mbit: float
    index_core_hours: float | None
    cost_hour: float | None
    notes: tuple[str, ...]


def plan(load: Workload) -> Plan:
    """Work out the machines for a workload.

    >>> found = plan(Workload(documents=1e8, qps=200, candidates=100, pairs_per_second=80))
    >>> found.nodes, found.shards, round(found.memory_gib), found.reranker_replicas
    (5, 10, 206, 91)
    """
    dense = load.documents * load.dimension
    kept = dense * (1 if load.quantization == "int8" else 4) * OVERHEAD
    lexical = load.documents * load.terms * BYTES_PER_TERM
    stored = load.documents * load.document_bytes * OVERHEAD + dense * 4 * OVERHEAD + lexical
    if load.quantization == "int8":
        stored += kept
    alone = load.documents <= LARGEST_SINGLE and load.qps <= (load.node_qps or math.inf)
    alone &= (kept + lexical) / GIB <= load.node_gib * MOST_USED
    copies = 1 if alone else REPLICAS_OF_SHARDS
    memory = (kept + lexical) * copies / GIB
    nodes = 1
    if not alone:
        by_memory = math.ceil(memory / (load.node_gib * MOST_USED))
        # Every shard answers every query, in one of its copies.
        by_queries = math.ceil(copies * load.qps / load.node_qps) if load.node_qps else 1
        nodes = max(FEWEST_NODES, by_memory, by_queries)
    pairs = load.qps * load.candidates
    of_a_replica = load.pairs_per_second * load.replica_cores
    replicas = math.ceil(pairs / (of_a_replica * BUSY)) + 1
    index_s = load.documents / load.documents_per_second if load.documents_per_second else None
    cores = replicas * load.replica_cores
    cost = None
    if load.core_hour is not None or load.gib_hour is not None:
        cost = cores * (load.core_hour or 0) + nodes * load.node_gib * (load.gib_hour or 0)
    query_s = load.candidates / of_a_replica
    network = pairs * load.document_bytes * 8 / 1e6
    return Plan(
        memory_gib=memory,
        disk_gib=stored * copies / GIB,
        nodes=nodes,
        shards=1 if alone else nodes * SHARDS_PER_NODE,
        replicas_of_shards=copies,
        pairs_per_second=pairs,
        query_s=query_s,
        reranker_replicas=replicas,
        reranker_cores=cores,
        network_mbit=network,
        index_core_hours=None if index_s is None else index_s / 3600,
        cost_hour=cost,
        notes=tuple(_notes(load, nodes, query_s, network)),
    )


def _notes(load: Workload, nodes: int, query_s: float, network_mbit: float) -> Iterator[str]:
    """Yield the limits that a workload comes near, and what helps."""
    if nodes == 1:
        yield "One node has no second copy: take snapshots, or run three nodes with two replicas."
    if load.node_qps is None:
        yield (
            "Nodes are counted by memory alone. Measure the queries per second of one node on this "
            "collection, and pass --node-qps."
        )
    if query_s > LONGEST_QUERY_S:
        yield (
            f"One query keeps a replica busy for {query_s:.1f} s. Rerank fewer candidates, give a "
            "replica more cores, or put a smaller model before the large one (Cascade)."
        )
    if network_mbit > BUSY * LINK_MBIT:
        yield (
            f"{network_mbit:,.0f} Mbit/s of payloads are more than one link of 10 Gbit/s carries "
            "well: spread the searchers over machines, and store only what is read."
        )
    if nodes > MANY_NODES:
        yield (
            f"{nodes} nodes keep all vectors in memory. Split the documents into collections by "
            "tenant or age, or leave quantised vectors on disk."
        )
