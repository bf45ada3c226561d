"""The embedded engines side by side: index time, query times, disk and memory, on the same points.

    python benchmarks/engines.py                      # 100,000 points of 256 numbers
    python benchmarks/engines.py --points 10000 --queries 50

Points are random (seeded), with a BM25-like sparse vector and a little payload. Each engine is
measured in a process of its own, so that memory is its own: the real engine (qdrant-edge) in memory
and on disk, on disk again with its HNSW graph built, and qdrant-client's local mode in memory.
Local mode on disk stores 13 ms a point and is left out; --local-path measures it all the same.
Overlap is the share of the exact first ten that a query finds.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from qdrant_rerank.engines.edge import EdgeClient

ENGINES = ("edge in memory", "edge on disk", "edge on disk, HNSW", "local mode in memory")
LOCAL_ON_DISK = "local mode on disk"
WORDS = 30_000  # of the vocabulary, drawn by Zipf's law
WORDS_A_POINT = 40
BATCH = 256
LIMIT = 100
TEN = 10
NAME = "benchmark"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=256, help="numbers a vector")
    parser.add_argument("--queries", type=int, default=200, help="a kind")
    parser.add_argument("--local-path", action="store_true", help="local mode on disk as well")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--engine", help=argparse.SUPPRESS)  # one, in a process of its own
    options = parser.parse_args()
    if options.engine:
        print(json.dumps(measure(options.engine, options.points, options.size, options.queries)))
        return
    figures = []
    for engine in (*ENGINES, *([LOCAL_ON_DISK] if options.local_path else [])):
        command = [sys.executable, __file__, "--engine", engine]
        for name in ("points", "size", "queries"):
            command += [f"--{name}", str(getattr(options, name))]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        figures.append(json.loads(done.stdout))
        show(figures[-1])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


def show(found: dict[str, Any]) -> None:
    print(
        f"{found['engine']} ({found['points']:,} points of {found['size']}): indexed in "
        f"{found['index_s']:.1f} s, disk {found['disk_mb']:.0f} MB, memory at most "
        f"{found['memory_mb']:.0f} MB beside the {found['data_mb']:.0f} MB of the vectors given"
    )
    for kind, times in found["query_ms"].items():
        print(f"  {kind:16} p50 {times['p50']:8.2f} ms   p99 {times['p99']:8.2f} ms", end="")
        print(f"   overlap {times['overlap']:.3f}" if "overlap" in times else "")


def measure(engine: str, points: int, size: int, queries: int) -> dict[str, Any]:
    """Fill one engine, ask it, and tell the times."""
    warnings.filterwarnings("ignore", category=UserWarning)  # local mode's advice on its size
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((points, size), dtype=np.float32)
    asked = rng.standard_normal((queries, size), dtype=np.float32)
    before = resident_mb()
    with tempfile.TemporaryDirectory() as folder:
        path = None if "in memory" in engine else Path(folder) / "db"
        with closing(opened(engine, path)) as client:
            began = time.perf_counter()
            fill(client, vectors, rng)
            if isinstance(client, EdgeClient) and "HNSW" in engine:
                client.optimize(NAME)
            index_s = time.perf_counter() - began
            query_ms = query_times(client, asked, rng)
            memory_mb = peak_mb() - before
            query_ms["dense"]["overlap"] = overlap(client, asked, vectors)
            disk = 0 if path is None else used_bytes(path)
    return {
        "engine": engine,
        "points": points,
        "size": size,
        "index_s": index_s,
        "query_ms": query_ms,
        "disk_mb": disk / 1e6,
        "memory_mb": memory_mb,
        "data_mb": vectors.nbytes / 1e6,
    }


def opened(engine: str, path: Path | None) -> QdrantClient:
    """A client of that engine."""
    if engine.startswith("edge"):
        return EdgeClient(path)
    return QdrantClient(":memory:") if path is None else QdrantClient(path=str(path))


def fill(client: QdrantClient, vectors: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Store the points."""
    client.create_collection(
        NAME,
        vectors_config={
            "dense": models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
        },
        sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    for start in range(0, len(vectors), BATCH):
        rows = [
            models.PointStruct(
                id=number,
                vector={"dense": vectors[number].tolist(), "bm25": words(rng, WORDS_A_POINT)},
                payload={"text": f"document {number} " * 20, "tenth": number % 10},
            )
            for number in range(start, min(start + BATCH, len(vectors)))
        ]
        client.upsert(NAME, rows)


def words(rng: np.random.Generator, count: int) -> models.SparseVector:
    """A sparse vector: each word with a weight of BM25's size."""
    drawn = np.unique(rng.zipf(1.3, count) % WORDS)
    weights = rng.uniform(0.5, 2.0, len(drawn))
    return models.SparseVector(indices=drawn.tolist(), values=weights.tolist())


def query_times(
    client: QdrantClient, asked: NDArray[np.float32], rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Milliseconds of each kind of query."""
    tenth = models.Filter(
        must=[models.FieldCondition(key="tenth", match=models.MatchValue(value=3))]
    )
    texts = [words(rng, 8) for _ in asked]

    def dense(row: int, where: models.Filter | None = None) -> Any:
        return client.query_points(
            NAME, asked[row].tolist(), using="dense", query_filter=where, limit=LIMIT
        )

    def sparse(row: int) -> Any:
        return client.query_points(NAME, texts[row], using="bm25", limit=LIMIT)

    def hybrid(row: int) -> Any:
        branches = [
            models.Prefetch(query=asked[row].tolist(), using="dense", limit=LIMIT),
            models.Prefetch(query=texts[row], using="bm25", limit=LIMIT),
        ]
        fused = models.FusionQuery(fusion=models.Fusion.RRF)
        return client.query_points(NAME, query=fused, prefetch=branches, limit=LIMIT)

    kinds: dict[str, Callable[[int], Any]] = {
        "dense": dense,
        "dense, filtered": lambda row: dense(row, tenth),
        "sparse": sparse,
        "hybrid, RRF": hybrid,
    }
    return {name: timed(call, len(asked)) for name, call in kinds.items()}


def overlap(
    client: QdrantClient, asked: NDArray[np.float32], vectors: NDArray[np.float32]
) -> float:
    """Share of the exact first ten that the engine finds."""
    normed = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    shares = []
    for query in asked:
        exact = set(np.argpartition(-(normed @ query), TEN)[:TEN].tolist())
        hits = client.query_points(NAME, query.tolist(), using="dense", limit=TEN).points
        shares.append(len(exact & {hit.id for hit in hits}) / TEN)
    return float(np.mean(shares))


def timed(call: Callable[[int], Any], times: int) -> dict[str, float]:
    """Percentiles in milliseconds; the first call warms up."""
    call(0)
    taken = []
    for row in range(times):
        began = time.perf_counter()
        call(row)
        taken.append((time.perf_counter() - began) * 1000)
    return {"p50": float(np.percentile(taken, 50)), "p99": float(np.percentile(taken, 99))}


def used_bytes(folder: Path) -> int:
    """What the files take on the disk; the engine's are sparse."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def resident_mb() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    return pages * resource.getpagesize() / 1e6


def peak_mb() -> float:
    """Memory of this process at most so far, files mapped into it included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
