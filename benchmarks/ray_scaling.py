"""One and two Ray workers on the same pairs: pairs per second, and how much two gain.

    python benchmarks/ray_scaling.py [--pairs 3000] [--rounds 3] [--out FILE]

Each worker has one core. A round runs one worker, two, and one core of this process, one after the
other; the seconds of a job are those in which its workers score, from the first partition's end to
the last one's. The gain is the median of the rounds' own. The load of the machine before each round
is recorded, since other processes take the second core.
"""

import argparse
import json
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
    # Each worker's first partition ends at some time: what follows is steady work.
    rows = sum(pq.read_metadata(file).num_rows for _, file in ends[workers:])
    seconds = ends[-1][0] - ends[workers - 1][0]
    return {"job_s": whole, "steady_s": seconds, "pairs_per_s": rows / seconds}


def alone(rows: list[dict[str, str]]) -> float:
    """Score in this process with one core; returns pairs per second."""
    encoder = TextCrossEncoder(DEFAULT_RERANKER, threads=1)
    pairs = [(row["query"], row["text"]) for row in rows]
    encoder.score_pairs(pairs[:20], 1)
    began = time.perf_counter()
    encoder.score_pairs(pairs, 1)
    return len(pairs) / (time.perf_counter() - began)


def main() -> None:
    """Run the rounds, and print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(
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
            here = alone(rows[: given.pairs // 5])
            one, two = (
                job(source, Path(folder) / f"{number}-{workers}", workers, size // PARTITIONS)
                for workers in (1, 2)
            )
            gain = two["pairs_per_s"] / one["pairs_per_s"]
            rounds.append(
                {"load": load, "process_pairs_per_s": here, "one": one, "two": two, "gain": gain}
            )
            print(
                f"load {load:.1f}: this process {here:.0f} pairs/s, one worker "
                f"{one['pairs_per_s']:.0f}, two {two['pairs_per_s']:.0f}, {gain:.2f}x",
                flush=True,
            )
    gain = statistics.median(one["gain"] for one in rounds)
    print(f"two workers: {gain:.2f}x of one (median of {len(rounds)} rounds)")
    if given.out is not None:
        record = {"pairs": given.pairs, "cores": os.cpu_count(), "gain": gain, "rounds": rounds}
        given.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
