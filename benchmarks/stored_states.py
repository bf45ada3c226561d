"""What it saves to store the states of documents, and what it costs.

    python benchmarks/stored_states.py [DATA_DIR] [--url URL] [--model NAME ...] [--parts PART ...]
                                       [--out FILE]

Parts:

- ``place``: where states may lie: a multivector of uint8 on disk without an index, or base64
  in the payload, which is used; in the embedded engine, and with --url on a server, over REST
  and gRPC: milliseconds to fetch those of 100 points, to retrieve 100 candidates without them, with
  and without a filter on a field that has no index, and bytes on disk.
- ``speed``: made-up documents of 15 to 250 words. The whole model and the stored states take turns,
  and so does fastembed's default model if it is installed and has it: reranking of 100 candidates,
  and whole searches; processor time of all threads, so that a busy machine disturbs less, and wall
  time. Bytes per token, and how long indexing takes with states beside the trunk's own time.
- ``quality``: with DATA_DIR, of ``dl19`` and ``wikiqa_test``: nDCG@10 and RR of the whole model and
  of states in int8; and of a few queries, Kendall's tau of their scores with those of float16, and
  the largest difference of logits between the whole model in fp32 and its states in float16.
"""

import argparse
import base64
import contextlib
import json
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models
from stream import WORDS

from qdrant_rerank import DEFAULT_RERANKER, CollectionSettings, HybridSearcher, TextCrossEncoder
from qdrant_rerank.evaluation import evaluate_run
from qdrant_rerank.evaluation.corpus import read_corpus, read_queries
from qdrant_rerank.evaluation.trec import read_qrels, read_run
from qdrant_rerank.qdrant.embedded.choice import embedded_client
from qdrant_rerank.qdrant.stored_states import encoded

QUERIES = ("which bread rises", "the melting point of iron", "how deep is the sea")
WIDTH = 384
CANDIDATES = 100
FASTEMBED = "Xenova/ms-marco-MiniLM-L-6-v2"
GIVEN_RUNS = {"dl19": "candidates_bm25_top100.tsv.gz"}
COMPARED = 5  # queries whose scores are compared one by one
PARTS = ("place", "speed", "quality")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--url", help="of a Qdrant server; gRPC one port above")
    parser.add_argument("--model", action="append", help="may be repeated")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--documents", type=int, default=300)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--queries", type=int, help="of each set of DATA_DIR; all by default")
    parser.add_argument("--out", type=Path, help="JSON with the figures")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    figures: dict[str, Any] = {}
    if "place" in given.parts:
        figures["place"] = place(given.url, given.documents)
    for model in given.model or [DEFAULT_RERANKER]:
        if "speed" in given.parts:
            figures[f"speed {model}"] = speed(model, given.url, given.documents, given.turns)
        if "quality" in given.parts and given.data:
            for name in ("dl19", "wikiqa_test"):
                folder = given.data / "eval" / name
                figures[f"{name} {model}"] = quality(model, folder, given.queries)
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1) + "\n")


def show(name: str, row: dict[str, Any]) -> None:
    """Print one line."""
    print(name, *(f"{key} {value:.4g}" for key, value in row.items()), sep="  ", flush=True)


@contextlib.contextmanager
def engines(url: str | None) -> Iterator[dict[str, tuple[QdrantClient, Path | None]]]:
    """Clients by name, with the folder of the embedded engine."""
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, tuple[QdrantClient, Path | None]] = {
            "embedded": (embedded_client(folder), Path(folder))
        }
        if url:
            port = int(url.rsplit(":", 1)[1])
            found["REST"] = QdrantClient(url=url, timeout=300), None
            grpc = QdrantClient(url=url, grpc_port=port + 1, prefer_grpc=True, timeout=300)
            found["gRPC"] = grpc, None
        yield found
        for client, _ in found.values():
            client.close()


def place(url: str | None, count: int) -> dict[str, Any]:
    """Compare the places where states may lie."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 330, count)
    states = [
        np.clip(rng.normal(0, 38, (length, WIDTH)), -127, 127).astype(np.int8) for length in lengths
    ]
    figures: dict[str, Any] = {}
    with engines(url) as clients:
        for engine, (client, folder) in clients.items():
            for kind in ("none", "base64", "multivector"):
                before = size(folder)
                row = placed(client, kind, states)
                figures[f"{engine} {kind}"] = row
                if folder is not None:
                    row["kB per point"] = (size(folder) - before) / 1000 / count
                show(f"{engine:<9}{kind:<12}", row)
                client.delete_collection("places")
    return figures


def placed(client: QdrantClient, kind: str, states: list[Any]) -> dict[str, float]:
    """Milliseconds of one place."""
    vectors = {"dense": models.VectorParams(size=256, distance=models.Distance.COSINE)}
    if kind == "multivector":
        vectors["states"] = models.VectorParams(
            size=WIDTH,
            distance=models.Distance.DOT,
            on_disk=True,
            datatype=models.Datatype.UINT8,
            multivector_config=models.MultiVectorConfig(
                comparator=models.MultiVectorComparator.MAX_SIM
            ),
            hnsw_config=models.HnswConfigDiff(m=0),
        )
    client.create_collection("places", vectors_config=vectors, on_disk_payload=True)
    rng = np.random.default_rng(1)
    began = time.perf_counter()
    for start in range(0, len(states), 8):
        points = []
        for row in range(start, min(start + 8, len(states))):
            vector: dict[str, Any] = {"dense": rng.normal(size=256).tolist()}
            payload: dict[str, Any] = {"text": "x" * 600, "year": row % 50}
            if kind == "multivector":
                vector["states"] = (states[row].astype(float) + 128).tolist()
            elif kind == "base64":
                payload["states"] = base64.b64encode(states[row].tobytes()).decode()
            points.append(models.PointStruct(id=row, vector=vector, payload=payload))
        client.upsert("places", points, wait=True)
    found = {"upload s": time.perf_counter() - began}
    query = rng.normal(size=256).tolist()
    hidden = models.PayloadSelectorExclude(exclude=["states"])
    year = models.FieldCondition(key="year", range=models.Range(gte=10))

    def candidates(query_filter: models.Filter | None = None) -> list[Any]:
        return client.query_points(
            "places",
            query=query,
            using="dense",
            limit=CANDIDATES,
            with_payload=hidden,
            query_filter=query_filter,
        ).points

    ids = [point.id for point in candidates()]

    def fetch() -> list[bytes]:
        if kind == "multivector":
            listed: Any = client.retrieve(
                "places", ids, with_payload=False, with_vectors=["states"]
            )
            vectors = [np.asarray(point.vector["states"], np.float32) for point in listed]
            return [vector.astype(np.uint8).tobytes() for vector in vectors]
        points = client.retrieve("places", ids, with_payload=["states"])
        return [base64.b64decode((point.payload or {})["states"]) for point in points]

    found["candidates ms"] = median_ms(candidates)
    found["filtered ms"] = median_ms(lambda: candidates(models.Filter(must=[year])))
    if kind != "none":
        found["fetch ms"] = median_ms(fetch)
        found["MB"] = sum(map(len, fetch())) / 1e6
    return found


def speed(model: str, url: str | None, count: int, turns: int) -> dict[str, Any]:
    """Compare the whole model with its stored states, in turns."""
    rng = random.Random(0)
    documents = [" ".join(rng.choices(WORDS, k=rng.randint(15, 250))) for _ in range(count)]
    encoder = TextCrossEncoder(model)
    some = documents[:CANDIDATES]
    states = encoder.encode_documents(some)
    tokens = encoder.token_count([("", text) for text in some])
    rerankers: dict[str, Callable[[str], Any]] = {
        "whole": lambda query: encoder.rerank(query, some),
        "stored": lambda query: encoder.rerank(query, states),
    }
    with contextlib.suppress(Exception):  # it is not installed, or its model is not here
        from fastembed.rerank.cross_encoder import TextCrossEncoder as Fastembed

        other = Fastembed(FASTEMBED, local_files_only=True)
        rerankers["fastembed"] = lambda query: list(other.rerank(query, some))
    figures = in_turns(rerankers, turns)
    figures["whole / stored"] = figures["whole cpu ms"] / figures["stored cpu ms"]
    if "fastembed" in rerankers:
        figures["fastembed / stored"] = figures["fastembed cpu ms"] / figures["stored cpu ms"]
    figures["bytes per token"] = states.nbytes / tokens
    figures["stored letters per token"] = (
        sum(len(encoded(bytes(one)).encode()) for one in states) / tokens
    )
    show(f"{model} reranking", figures)
    found: dict[str, Any] = {"reranking": figures}
    with engines(url) as clients:
        for engine, (client, _) in clients.items():
            found[engine] = searches(encoder, client, documents, turns)
            show(f"{model} search, {engine}", found[engine])
    return found


def searches(
    encoder: TextCrossEncoder, client: QdrantClient, documents: list[str], turns: int
) -> dict[str, float]:
    """Compare whole searches of 100 candidates, and what indexing costs."""
    plain = HybridSearcher("plain", client=client, reranker=encoder)
    stored = HybridSearcher("stored", client=client, reranker=encoder)
    began = time.process_time()
    plain.add(documents, progress=False)
    without = time.process_time() - began
    began = time.process_time()
    settings = CollectionSettings(document_states="int8")
    stored.add(documents, settings=settings, progress=False)
    adding = time.process_time() - began
    began = time.process_time()
    encoder.encode_documents(documents, progress=False)
    encoding = time.process_time() - began
    figures = in_turns(
        {
            "whole": lambda query: plain.search(query, candidates=CANDIDATES),
            "stored": lambda query: stored.search(query, candidates=CANDIDATES),
        },
        turns,
    )
    trace = stored.search(QUERIES[0], candidates=CANDIDATES).trace
    assert (trace.documents_stored, trace.documents_read) == (CANDIDATES, 0)
    for name in ("plain", "stored"):
        client.delete_collection(name)
    return figures | {
        "whole / stored": figures["whole ms"] / figures["stored ms"],
        "add cpu s": without,
        "add with states cpu s": adding,
        "encode cpu s": encoding,
        "encode / (add with states - add)": encoding / (adding - without),
    }


def in_turns(work: dict[str, Callable[[str], Any]], turns: int) -> dict[str, float]:
    """Medians of wall and processor time, in milliseconds, of what takes turns."""
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for turn in range(-1, turns):
        for name, call in work.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call(QUERIES[turn % len(QUERIES)])
            if turn >= 0:  # the first one warms up
                took[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    figures = {}
    for name, pairs in took.items():
        figures[f"{name} ms"] = 1000 * statistics.median(wall for wall, _ in pairs)
        figures[f"{name} cpu ms"] = 1000 * statistics.median(cpu for _, cpu in pairs)
    return figures


class Stored:
    """A reranker that scores by states of the texts that it is given."""

    def __init__(self, encoder: TextCrossEncoder, precision: Any) -> None:
        self.encoder = encoder
        self.precision = precision

    def rerank(self, query: str, documents: list[str]) -> list[float]:
        """One score per document."""
        states = self.encoder.encode_documents(documents, precision=self.precision, progress=False)
        return self.encoder.rerank(query, states)


def quality(model: str, folder: Path, most: int | None) -> dict[str, float]:
    """Compare the whole model's order with that by states."""
    queries = read_queries(folder / "queries.jsonl.gz")
    corpus = read_corpus(folder / "corpus.jsonl.gz")
    full = folder / "qrels_full.tsv.gz"
    qrels = read_qrels(full if full.exists() else folder / "qrels.tsv.gz")
    candidates = folder / GIVEN_RUNS.get(folder.name, "candidates.tsv.gz")
    run = read_run(candidates)
    chosen = {query: qrels[query] for query in list(run)[:most] if query in qrels}
    run = {query: run[query] for query in chosen}
    encoder = TextCrossEncoder(model)
    rerankers: dict[str, Any] = {"whole": encoder, "int8": Stored(encoder, "int8")}
    found = evaluate_run(
        run, corpus, {query: queries[query] for query in chosen}, chosen, reranker=rerankers
    )
    figures: dict[str, float] = {}
    for name in rerankers:
        values = found[name].values["after"]
        for measure in ("nDCG@10", "RR"):
            if measure in values:
                figures[f"{name} {measure}"] = float(values[measure].mean())
    taus: dict[str, list[float]] = {"int8": [], "whole": []}
    exact = TextCrossEncoder(model, precision="fp32")
    differences = []
    for query in list(chosen)[:COMPARED]:
        texts = [corpus[document].content for document in run[query]]
        near = Stored(encoder, "float16").rerank(queries[query], texts)
        taus["int8"].append(kendalltau(rerankers["int8"].rerank(queries[query], texts), near))
        taus["whole"].append(kendalltau(encoder.rerank(queries[query], texts), near))
        by_states = Stored(exact, "float16").rerank(queries[query], texts)
        whole = exact.rerank(queries[query], texts)
        differences.append(np.abs(np.array(by_states) - whole).max())
    figures["tau int8, float16"] = float(np.mean(taus["int8"]))
    figures["least tau int8, float16"] = float(np.min(taus["int8"]))
    figures["tau whole, float16"] = float(np.mean(taus["whole"]))
    figures["largest difference fp32"] = float(np.max(differences))
    show(f"{model} {folder.name}", figures)
    return figures


def kendalltau(one: list[float], other: list[float]) -> float:
    """Kendall's tau of two lists of scores without ties."""
    signs = [np.sign(np.subtract.outer(scores, scores)) for scores in (one, other)]
    return float((signs[0] * signs[1]).sum() / (len(one) * (len(one) - 1)))


def size(folder: Path | None) -> int:
    """Bytes of the files in a folder."""
    if folder is None:
        return 0
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def median_ms(call: Callable[[], Any], times: int = 3) -> float:
    """Median of wall time, in milliseconds."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return 1000 * statistics.median(took)


if __name__ == "__main__":
    main()
