"""One and two Ray workers on the same pairs: pairs per second, and how much two gain.

    python benchmarks/ray_scaling.py [--pairs 1200] [--rounds 2] [--out FILE]

Each worker has one core. A round runs one worker, two, and, without Ray, one process of the library
on a core of its own and two on two cores, one after the other. What two processes gain is what the
machine allows, and the share of it that Ray's workers reach is Ray's and ours. The seconds of a job
are those in which all workers have their model and partitions: from the end of the first quarter of
the partitions to that of the last ones at which nobody is idle. Gains are medians of the rounds'
own. The load of the machine before each round is recorded, since other processes take the cores.
"""

import argparse
import json
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from stream import WORDS

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from qdrant_rerank.distributed import rerank_dataset

PARTITIONS = 60
ALONE_S = 15.0  # that the processes without Ray score
ROWS = 20  # that they score at a time, as many as in a partition


def made(count: int) -> list[dict[str, str]]:
    """Make pairs of made-up words."""
    chosen = random.Random(7)
    return [
        {
            "query": " ".join(chosen.choices(WORDS, k=6)),
            "text": " ".join(chosen.choices(WORDS, k=chosen.randint(5, 300))),
        }
        for _ in range(count)
    ]


def job(source: Path, out: Path, workers: int, partition_bytes: int) -> dict[str, float]:
    """Score with so many workers; returns seconds with and without the start, and pairs/s."""
    began = time.perf_counter()
    rerank_dataset(source, output=out, concurrency=workers, partition_bytes=partition_bytes)
    whole = time.perf_counter() - began
    ends = sorted((file.stat().st_mtime, file) for file in out.glob("part-*"))
    first, last = len(ends) // 4, len(ends) - workers
    rows = sum(pq.read_metadata(file).num_rows for _, file in ends[first + 1 : last + 1])
    seconds = ends[last][0] - ends[first][0]
    return {"job_s": whole, "steady_s": seconds, "pairs_per_s": rows / seconds}


def pinned(core: int, rows: list[dict[str, str]], ready: Any, rates: Any) -> None:
    """Score on one core, as soon as all are ready, and for as long; puts pairs per second."""
    os.sched_setaffinity(0, {core})
    encoder = TextCrossEncoder(DEFAULT_RERANKER, threads=1)
    pairs = [(row["query"], row["text"]) for row in rows]
    encoder.score_pairs(pairs[:20], 1)
    ready.wait()
    began, done = time.perf_counter(), 0
    while (seconds := time.perf_counter() - began) < ALONE_S:
        part = [pairs[(done + n) % len(pairs)] for n in range(ROWS)]
        done += len(encoder.score_pairs(part, 1).scores)
    rates.put(done / seconds)


def processes(rows: list[dict[str, str]], count: int) -> float:
    """Return pairs per second of so many processes of the library, each on a core."""
    made = multiprocessing.get_context("spawn")
    ready, rates = made.Barrier(count), made.Queue()
    cores = sorted(os.sched_getaffinity(0))[:count]
    started = [
        made.Process(target=pinned, args=(core, rows, ready, rates), daemon=True) for core in cores
    ]
    for one in started:
        one.start()
    found = sum(rates.get(timeout=600) for _ in started)
    for one in started:
        one.join()
    return float(found)


def main() -> None:
    """Run the rounds, and print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("this process may use one core alone; expected two or more")
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80 << 20,
        log_to_driver=False,
        _node_ip_address="127.0.0.2",
    )
    rows = made(given.pairs)
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "pairs.parquet"
        pq.write_table(pa.Table.from_pylist(rows), source)
        about = pq.read_metadata(source)
        size = sum(about.row_group(n).total_byte_size for n in range(about.num_row_groups))
        for number in range(given.rounds):
            load = os.getloadavg()[0]
            one, two = (
                job(source, Path(folder) / f"{number}-{workers}", workers, size // PARTITIONS)
                for workers in (1, 2)
            )
            plain = [processes(rows, count) for count in (1, 2)]
            gain, limit = two["pairs_per_s"] / one["pairs_per_s"], plain[1] / plain[0]
            rounds.append(
                {
                    "load": load,
                    "one": one,
                    "two": two,
                    "gain": gain,
                    "processes_pairs_per_s": plain,
                    "limit": limit,
                }
            )
            print(
                f"load {load:.1f}: one worker {one['pairs_per_s']:.1f} pairs/s, two "
                f"{two['pairs_per_s']:.1f}, {gain:.2f}x; one process {plain[0]:.1f}, two "
                f"{plain[1]:.1f}, {limit:.2f}x",
                flush=True,
            )
    gain, limit = (statistics.median(one[name] for one in rounds) for name in ("gain", "limit"))
    print(
        f"two workers: {gain:.2f}x of one; two processes: {limit:.2f}x; {gain / limit:.0%} of it "
        f"(medians of {len(rounds)} rounds)"
    )
    if given.out is not None:
        record = {"pairs": given.pairs, "cores": os.cpu_count(), "gain": gain, "limit": limit}
        record["rounds"] = rounds
        given.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
