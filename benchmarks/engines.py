"""The embedded engines side by side: index time, query times, disk and memory, on the same points.

    python benchmarks/engines.py                      # 100,000 points of 256 numbers, some minutes
    python benchmarks/engines.py --points 5000 --seconds 2

Points are random (seeded), with a BM25-like sparse vector and a little payload, of which one field
is indexed and filtered by. Each engine is measured in a process of its own, so that memory is its
own: the real engine (qdrant-edge) in a temporary directory, which is what "in memory" means to it,
in a directory that survives a crash, there again with its HNSW graph built, and qdrant-client's
local mode in memory. Local mode on disk stores a point in 13 ms and is left out; --local-path
measures it all the same.

A kind of query is asked --queries times, or for --seconds if that is less: local mode reads every
point in Python. p99 of fewer than 100 queries is their slowest. Overlap is the share of the exact
first ten that a dense query finds.
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
from rich.console import Console
from rich.table import Table

from qdrant_rerank.qdrant.embedded.client import EdgeClient

ENGINES = ("edge, temporary", "edge", "edge, HNSW", "local mode in memory")
LOCAL_ON_DISK = "local mode on disk"
WORDS = 30_000  # of the vocabulary, drawn by Zipf's law
WORDS_A_POINT = 40
BATCH = 256
LIMIT = 100
TEN = 10
NAME = "benchmark"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=256, help="numbers a vector")
    parser.add_argument("--queries", type=int, default=200, help="a kind, at most")
    parser.add_argument("--seconds", type=float, default=10.0, help="a kind, at most")
    parser.add_argument("--local-path", action="store_true", help="local mode on disk as well")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--engine", help=argparse.SUPPRESS)  # one, in a process of its own
    given = parser.parse_args()
    if given.engine:
        found = measure(given.engine, given.points, given.size, given.queries, given.seconds)
        print(json.dumps(found))
        return
    figures = []
    for engine in (*ENGINES, *([LOCAL_ON_DISK] if given.local_path else [])):
        command = [sys.executable, __file__, "--engine", engine]
        for name in ("points", "size", "queries", "seconds"):
            command += [f"--{name}", str(getattr(given, name))]
        began = time.perf_counter()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        figures.append(json.loads(done.stdout))
        print(f"{engine}: measured in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    Console(width=None if sys.stdout.isatty() else 170).print(table(figures))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


def table(figures: list[dict[str, Any]]) -> Table:
    """A row an engine."""
    first = figures[0]
    shown = Table(
        title=f"{first['points']:,} points of {first['size']} ({first['data_mb']:.0f} MB of dense "
        "vectors); queries: p50 / p99 in ms"
    )
    kinds = list(first["query_ms"])
    names = ("index s", "in a graph", "disk MB", "memory MB", *kinds, "queries", "overlap")
    shown.add_column("engine", no_wrap=True)
    for name in names:
        shown.add_column(name, justify="right", no_wrap=True)
    for found in figures:
        asked = found["query_ms"].values()
        times = [f"{one['p50']:.1f} / {one['p99']:.1f}" for one in asked]
        counts = sorted({one["queries"] for one in asked})
        shown.add_row(
            found["engine"],
            f"{found['index_s']:.1f}",
            f"{found['in_graph']:,}",
            f"{found['disk_mb']:.0f}",
            f"{found['memory_mb']:.0f}",
            *times,
            f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}",
            f"{found['overlap']:.3f}",
        )
    return shown


def measure(engine: str, points: int, size: int, queries: int, seconds: float) -> dict[str, Any]:
    """Fill one engine, ask it, and tell the times."""
    warnings.filterwarnings("ignore", category=UserWarning)  # local mode's advice on its size
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((points, size), dtype=np.float32)
    asked = rng.standard_normal((queries, size), dtype=np.float32)
    before = resident_mb()
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder  # for the engine's own temporary directory
        path = None if engine in {ENGINES[0], ENGINES[-1]} else Path(folder) / "db"
        with closing(opened(engine, path)) as client:
            began = time.perf_counter()
            fill(client, vectors, rng)
            if isinstance(client, EdgeClient) and "HNSW" in engine:
                client.optimize(NAME)
            index_s = time.perf_counter() - began
            query_ms = query_times(client, asked, rng, seconds)
            memory_mb = peak_mb() - before
            found = overlap(client, asked[: query_ms["dense"]["queries"]], vectors)
            # Sparse vectors are always counted, and each point has one.
            in_graph = (client.get_collection(NAME).indexed_vectors_count or 0) - points
            disk = used_bytes(Path(folder))
        tempfile.tempdir = None
    return {
        "engine": engine,
        "points": points,
        "size": size,
        "index_s": index_s,
        "query_ms": query_ms,
        "overlap": found,
        "in_graph": max(in_graph, 0),  # local mode has none
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
        # kB of vectors from which on optimize builds a graph; Qdrant's own is 10,000
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=1_000),
    )
    if isinstance(client, EdgeClient):  # local mode has none
        client.create_payload_index(NAME, "tenth", models.PayloadSchemaType.INTEGER)
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
    client: QdrantClient, asked: NDArray[np.float32], rng: np.random.Generator, seconds: float
) -> dict[str, dict[str, Any]]:
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
    return {name: timed(call, len(asked), seconds) for name, call in kinds.items()}


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


def timed(call: Callable[[int], Any], times: int, seconds: float) -> dict[str, Any]:
    """Percentiles in milliseconds; the first call warms up."""
    call(0)
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while len(taken) < times and (not taken or time.perf_counter() < until):
        began = time.perf_counter()
        call(len(taken))
        taken.append((time.perf_counter() - began) * 1000)
    p50, p99 = np.percentile(taken, [50, 99], method="higher").tolist()
    return {"queries": len(taken), "p50": p50, "p99": p99}


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
