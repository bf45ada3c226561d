"""A Ray that runs, workers that fit its machines, and partitions that go through them."""

import os
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
import ray.data

from qdrant_rerank.distributed.partitions import Partition
from qdrant_rerank.errors import InvalidInputError, QdrantRerankError
from qdrant_rerank.utils.validation import require_number, require_positive

__all__ = ["Outcome", "Pool", "each_partition"]

MOST_BLOCKS = 10_000
LOOPBACK = "127.0.0.2"  # Ray replaces 127.0.0.1 by an address that others reach


@dataclass(frozen=True, slots=True)
class Pool:
    """Workers of a job: processes, each with its own model.

    Args:
        concurrency: their number; None for as many as the cluster has cores for.
        cpus: cores of each.
        gpus: GPUs of each; a part of one, if several share it.

    Raises:
        InvalidInputError: a number is out of range.
    """

    concurrency: int | None = None
    cpus: int = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        require_positive("concurrency", self.concurrency)
        require_positive("cpus_per_worker", self.cpus, optional=False)
        require_number("gpus_per_worker", self.gpus, "a number of 0 or more", least=0)

    def size(self) -> int:
        """Return the number of workers; starts Ray if it does not run.

        Raises:
            InvalidInputError: no machine of the cluster is large enough for one.
        """
        ensure_ray()
        fits = 0
        for node in ray.nodes():
            has = node["Resources"]
            if node["Alive"]:
                most = int(has.get("CPU", 0) // self.cpus)
                fits += most if not self.gpus else min(most, int(has.get("GPU", 0) / self.gpus))
        if not fits:
            raise InvalidInputError(
                f"A worker needs {self.cpus} cores and {self.gpus:g} GPUs, and no machine of the "
                f"Ray cluster has so many; all together have {dict(ray.cluster_resources())}. Pass "
                "less as cpus_per_worker= and gpus_per_worker=, or add machines."
            )
        return self.concurrency or fits

    def resources(self) -> dict[str, Any]:
        """Return Ray's arguments of one worker."""
        return {"num_cpus": self.cpus, **({"num_gpus": self.gpus} if self.gpus else {})}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a partition.

    Attributes:
        partition: as given.
        rows: number of rows that are done.
        error: why others are not; None if all are.
    """

    partition: Partition
    rows: int
    error: QdrantRerankError | None


def ensure_ray() -> None:
    """Connect to the Ray of ``RAY_ADDRESS``, or start one for this machine, if none is in use.

    The one that is started listens on loopback alone, where the system has that address.
    """
    if ray.is_initialized():
        return
    if address := os.environ.get("RAY_ADDRESS"):
        ray.init(address)
        return
    alone = {"_node_ip_address": LOOPBACK} if sys.platform == "linux" else {}
    ray.init("local", include_dashboard=False, **alone)


def each_partition(
    worker: type, arguments: Mapping[str, Any], partitions: Sequence[Partition], pool: Pool
) -> Iterator[Outcome]:
    """Let workers do partitions, and yield what became of each, in the order of the ends.

    A worker that dies is replaced, and its partition is done again.

    Args:
        worker: class of the workers; an object of it is called with a partition, and returns the
            number of rows, or raises a ``QdrantRerankError``.
        arguments: of its constructor.
        partitions: what to do.
        pool: how many workers, and how large.
    """
    size = min(pool.size(), len(partitions))
    # By reference: a dataset in memory goes to each machine once, and not with each partition.
    kept = ray.put(list(partitions))
    numbers = [{"place": place} for place in range(len(partitions))]
    done = ray.data.from_items(
        numbers, override_num_blocks=min(len(numbers), MOST_BLOCKS)
    ).map_batches(
        _Worker,
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2),
        fn_constructor_args=(worker, dict(arguments), [kept]),
        **pool.resources(),
    )
    for row in done.iter_rows():
        error = pickle.loads(row["error"])
        yield Outcome(partitions[row["place"]], int(row["rows"]), error)


class _Worker:
    """Does one partition at a time, in a process of its own."""

    def __init__(self, worker: type, arguments: dict[str, Any], kept: list[Any]) -> None:
        self._partitions: list[Partition] = ray.get(kept[0])
        self._worker = worker(**arguments)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        places = [int(place) for place in batch["place"]]
        rows, errors = [], []
        for place in places:
            count, error = 0, None
            try:
                count = self._worker(self._partitions[place])
            except QdrantRerankError as caught:
                error = caught
                count = caught.stored or 0
            rows.append(count)
            errors.append(pickle.dumps(error))
        return {"place": places, "rows": rows, "error": errors}
