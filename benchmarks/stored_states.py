"""What it saves to store the states of documents, and what it costs.

    python benchmarks/stored_states.py [DATA_DIR] [--only PART ...] [--url URL] [--model NAME ...]
                                       [--fastembed FOLDER] [--out FILE]

Each part takes minutes and adds its figures to FILE:

- ``place``: where states may lie: in the payload, which is used, or in a multivector of uint8 or
  float16 on disk without an index; in the embedded engine, and with --url on a server, over REST
  and gRPC: milliseconds to fetch those of 100 points, to retrieve 100 candidates without them, with
  and without a filter on a field that has no index; bytes on disk, and bytes of the answer.
- ``speed``: made-up documents of 15 to 250 words, 100 of them reranked. The whole model and the
  stored states take turns, and so does fastembed with --fastembed: a folder of
  ``python -m benchmarks.peers.models FOLDER minilm-l6-fp32``, which has the shape of its default.
  Processor time of all threads, so that a busy machine disturbs less, and wall time. With DATA_DIR
  the documents are passages of dl19's corpus instead, here and in ``search``.
- ``search``: whole searches of 100 candidates, embedded, and with --url over REST and gRPC; what
  indexing with states takes beside the trunk's own time.
- ``memory``: largest memory of a process that searches, with stored states and without.
- ``during``: searches while ``fill_states`` works, beside those before and after it.
- ``dl19``, ``wikiqa_test``: with DATA_DIR, nDCG@10 and RR of the whole model and of states in int8
  and, if the model has a quantizer, "pq".
- ``order``: with DATA_DIR, Kendall's tau of scores by int8, by "pq" and by the whole model with
  those by float16, of a few queries of dl19; bytes per token in the payload; and the largest
  difference of logits between the whole model in fp32 and its states in float16.
- ``unpack``: milliseconds to read records of 100 made-up documents, int8 and "pq" in turns.
"""

import argparse
import contextlib
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from arguments import existing_path
from qdrant_client import QdrantClient, models
from stream import WORDS

from qdrant_rerank import DEFAULT_RERANKER, CollectionSettings, HybridSearcher, TextCrossEncoder
from qdrant_rerank.cross_encoder.document_states import Passage, pack
from qdrant_rerank.evaluation import evaluate_run
from qdrant_rerank.evaluation.corpus import read_corpus, read_queries
from qdrant_rerank.evaluation.trec import read_qrels, read_run
from qdrant_rerank.qdrant.embedded.choice import embedded_client
from qdrant_rerank.qdrant.stored_states import encoded

QUERIES = ("which bread rises", "the melting point of iron", "how deep is the sea")
WIDTH = 384
CANDIDATES = 100
GIVEN_RUNS = {"dl19": "candidates_bm25_top100.tsv.gz"}
SETTINGS = CollectionSettings(document_states="int8")
COMPARED = 5  # queries whose scores are compared one by one
PARTS = ("place", "speed", "search", "memory", "during", "dl19", "wikiqa_test", "order", "unpack")
KINDS = ("none", "payload", "uint8", "float16")
SPREAD = 13  # standard deviation of the numbers of states, of which the largest is 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=existing_path, nargs="?")
    parser.add_argument("--url", help="of a Qdrant server; gRPC one port above")
    parser.add_argument("--model", action="append", help="may be repeated")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--documents", type=int, default=300)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--queries", type=int, help="of each set of DATA_DIR; all by default")
    parser.add_argument("--fastembed", type=existing_path, help="folder of a model")
    parser.add_argument("--out", type=Path, help="JSON with the figures")
    parser.add_argument("--searches", nargs=3, help=argparse.SUPPRESS)  # of a process to measure
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.searches:
        print(json.dumps(searching(*given.searches)))
        return
    figures: dict[str, Any] = {}
    if given.out and given.out.exists():
        figures = json.loads(given.out.read_text())
    for model in given.model or [DEFAULT_RERANKER]:
        for part in given.only:
            if part in ("dl19", "wikiqa_test", "order") and given.data is None:
                continue
            figures[heading(part, model, given.data)] = measured(part, model, given)
            if given.out:
                given.out.write_text(json.dumps(figures, indent=1) + "\n")


def heading(part: str, model: str, data: Path | None) -> str:
    """Return the name of a part's figures in the record."""
    if part == "place":
        return part
    return f"{part}{', passages' if data and part in ('speed', 'search') else ''} {model}"


def measured(part: str, model: str, given: argparse.Namespace) -> Any:
    """Figures of one part."""
    match part:
        case "place":
            return place(given.url, given.documents)
        case "speed":
            return speed(model, documents(given.data, CANDIDATES), given.fastembed, given.turns)
        case "search":
            some = documents(given.data, given.documents)
            return search(model, some, given.url, given.turns)
        case "memory":
            return memory(model, given.documents)
        case "during":
            return during(model, given.documents)
        case "unpack":
            return unpacking(model, given.turns)
        case "order":
            return order(model, given.data / "eval" / "dl19", given.queries or COMPARED)
        case _:
            return quality(model, given.data / "eval" / part, given.queries)


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
    states = [rng.normal(0, SPREAD, (length, WIDTH)).clip(-80, 80).round() for length in lengths]
    figures: dict[str, Any] = {}
    with engines(url) as clients:
        for engine, (client, folder) in clients.items():
            for kind in KINDS:
                before = size(folder)
                row = placed(client, kind, states)
                if engine == "REST" and kind != "none":
                    row["MB moved"] = moved(url, kind)
                if folder is not None:
                    row["bytes on disk per token"] = (size(folder) - before) / lengths.sum()
                figures[f"{engine} {kind}"] = row
                show(f"{engine:<9}{kind:<12}", row)
                client.delete_collection("places")
    return figures


def moved(url: str | None, kind: str) -> float:
    """Megabytes of a server's answer with the states of 100 points, not compressed."""
    wanted = {"with_payload": ["states"]} if kind == "payload" else {"with_vector": ["states"]}
    answer = httpx.post(
        f"{url}/collections/places/points",
        json={"ids": list(range(CANDIDATES)), "with_payload": False, **wanted},
        headers={"Accept-Encoding": "identity"},
        timeout=300,
    )
    return len(answer.raise_for_status().content) / 1e6


DATATYPES = {"uint8": models.Datatype.UINT8, "float16": models.Datatype.FLOAT16}


def placed(client: QdrantClient, kind: str, states: list[Any]) -> dict[str, float]:
    """Milliseconds of one place."""
    vectors = {"dense": models.VectorParams(size=256, distance=models.Distance.COSINE)}
    if kind in DATATYPES:
        vectors["states"] = models.VectorParams(
            size=WIDTH,
            distance=models.Distance.DOT,
            on_disk=True,
            datatype=DATATYPES[kind],
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
            if kind in DATATYPES:
                vector["states"] = (states[row] + 128).tolist()
            elif kind == "payload":
                payload["states"] = encoded(record(states[row]))
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
        if kind in DATATYPES:
            listed: Any = client.retrieve(
                "places", ids, with_payload=False, with_vectors=["states"]
            )
            vectors = [np.asarray(point.vector["states"], np.float32) for point in listed]
            return [vector.astype(np.uint8).tobytes() for vector in vectors]
        points = client.retrieve("places", ids, with_payload=["states"])
        return [b64decode((point.payload or {})["states"]) for point in points]

    found["candidates ms"] = median_ms(candidates)
    found["filtered ms"] = median_ms(lambda: candidates(models.Filter(must=[year])))
    if kind != "none":
        found["fetch ms"] = median_ms(fetch)
    return found


def record(states: Any) -> bytes:
    """The record of a document with these states."""
    passage = Passage(np.arange(len(states)), states.astype(np.float32), (0, 1))
    return pack([passage], precision="int8", model=b"m" * 16, text=b"t" * 16, truncated=False)


def made_up(count: int) -> list[str]:
    """Documents of 15 to 250 words."""
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(15, 250))) for _ in range(count)]


def documents(data: Path | None, count: int) -> list[str]:
    """Passages of dl19's corpus; without data, documents of 15 to 250 words."""
    if data is None:
        return made_up(count)
    corpus = read_corpus(data / "eval" / "dl19" / "corpus.jsonl.gz")
    return [document.content for document in random.Random(0).sample(list(corpus.values()), count)]


def speed(model: str, some: list[str], fastembed: Path | None, turns: int) -> dict[str, Any]:
    """Compare the whole model with its stored states, in turns."""
    encoder = TextCrossEncoder(model)
    states = encoder.encode_documents(some)
    tokens = encoder.token_count([("", text) for text in some])
    rerankers: dict[str, Callable[[str], Any]] = {
        "whole": lambda query: encoder.rerank(query, some),
        "stored": lambda query: encoder.rerank(query, states),
    }
    if fastembed is not None:
        from fastembed.common.model_description import ModelSource
        from fastembed.rerank.cross_encoder import TextCrossEncoder as Fastembed

        Fastembed.add_custom_model("local/model", ModelSource(hf="local/model"))
        other = Fastembed("local/model", specific_model_path=str(fastembed))
        rerankers["fastembed"] = lambda query: list(other.rerank(query, some))
    figures = in_turns(rerankers, turns)
    for name in rerankers.keys() - {"stored"}:
        figures[f"{name} / stored"] = figures[f"{name} ms"] / figures["stored ms"]
        figures[f"{name} / stored, cpu"] = figures[f"{name} cpu ms"] / figures["stored cpu ms"]
    figures["bytes per token in memory"] = states.nbytes / tokens
    figures["bytes per token in the payload"] = sum(len(encoded(bytes(x))) for x in states) / tokens
    figures["GB for a million of 175 tokens"] = figures["bytes per token in the payload"] * 0.175
    show(f"{model} reranking", figures)
    return figures


def search(model: str, some: list[str], url: str | None, turns: int) -> dict[str, Any]:
    """Compare whole searches, over each way to Qdrant."""
    encoder = TextCrossEncoder(model)
    encoder.encode_documents(some[:2])  # loads both parts
    found: dict[str, Any] = {}
    with engines(url) as clients:
        for engine, (client, _) in clients.items():
            found[engine] = searches(encoder, client, some, turns)
            show(f"{model} search, {engine}", found[engine])
    return found


def memory(model: str, count: int) -> dict[str, float]:
    """Largest memory of a process that searches; each of the two collections in one of its own."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        client = embedded_client(folder)
        for name, settings in (("whole", None), ("stored", SETTINGS)):
            searcher = HybridSearcher(name, client=client, reranker=model)
            searcher.add(made_up(count), settings=settings, progress=False)
        client.close()
        for name in ("whole", "stored"):
            command = [sys.executable, __file__, "--searches", folder, name, model]
            answer = subprocess.run(command, check=True, capture_output=True, text=True)
            figures |= {f"{name} {key}": value for key, value in json.loads(answer.stdout).items()}
    show(f"{model} memory", figures)
    return figures


def searching(folder: str, name: str, model: str) -> dict[str, float]:
    """Memory of this process after searches, in MB."""
    client = embedded_client(folder)
    searcher = HybridSearcher(name, client=client, reranker=model)
    for query in QUERIES:
        found = searcher.search(query, candidates=CANDIDATES)
    assert found.trace.documents_stored == (CANDIDATES if name == "stored" else None)
    client.close()
    # Not of getrusage, whose largest memory is also that of the parent before exec.
    [line] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return {"MB": int(line) / 1000}


def during(model: str, count: int) -> dict[str, Any]:
    """Milliseconds of searches before, while and after the states of a collection are filled in."""
    found: dict[str, list[float]] = {"before": [], "while": [], "after": []}
    shares: list[float] = []
    client = embedded_client(None)
    encoder = TextCrossEncoder(model)
    encoder.encode_documents(["Iron melts."])  # loads both parts
    searcher = HybridSearcher("docs", client=client, reranker=encoder)
    searcher.add(made_up(count), progress=False)
    filling = threading.Thread(
        target=lambda: HybridSearcher("docs", client=client, reranker=encoder).fill_states(
            batch_size=16, progress=False
        )
    )

    def one(when: str) -> None:
        began = time.perf_counter()
        trace = searcher.search(QUERIES[len(shares) % len(QUERIES)], candidates=CANDIDATES).trace
        found[when].append(1000 * (time.perf_counter() - began))
        shares.append((trace.documents_stored or 0) / CANDIDATES)

    for _ in range(3):
        one("before")
    filling.start()
    while filling.is_alive():
        one("while")
    for _ in range(3):
        one("after")
    client.close()
    figures = {f"{when} ms": statistics.median(times) for when, times in found.items()}
    figures["slowest while ms"] = max(found["while"])
    figures["searches while"] = len(found["while"])
    show(f"{model} during", figures)
    return {**figures, "stored share of each search": shares}


def searches(
    encoder: TextCrossEncoder, client: QdrantClient, some: list[str], turns: int
) -> dict[str, float]:
    """Compare whole searches of 100 candidates, and what indexing costs."""
    plain = HybridSearcher("plain", client=client, reranker=encoder)
    stored = HybridSearcher("stored", client=client, reranker=encoder)
    began = time.process_time()
    plain.add(some, progress=False)
    without = time.process_time() - began
    began = time.process_time()
    stored.add(some, settings=SETTINGS, progress=False)
    adding = time.process_time() - began
    began = time.process_time()
    encoder.encode_documents(some, progress=False)
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
    rerankers: dict[str, Any] = {"whole": encoder}
    rerankers |= {precision: Stored(encoder, precision) for precision in small(encoder)}
    found = evaluate_run(
        run, corpus, {query: queries[query] for query in chosen}, chosen, reranker=rerankers
    )
    figures: dict[str, float] = {}
    for name in rerankers:
        values = found[name].values["after"]
        for measure in ("nDCG@10", "RR"):
            if measure in values:
                figures[f"{name} {measure}"] = float(values[measure].mean())
    show(f"{model} {folder.name}", figures)
    return figures


def order(model: str, folder: Path, count: int) -> dict[str, float]:
    """Compare the orders of some queries' candidates."""
    queries, corpus = (
        read_queries(folder / "queries.jsonl.gz"),
        read_corpus(folder / "corpus.jsonl.gz"),
    )
    run = read_run(folder / GIVEN_RUNS[folder.name])
    encoder, exact = TextCrossEncoder(model), TextCrossEncoder(model, precision="fp32")
    taus: dict[str, list[float]] = {name: [] for name in (*small(encoder), "whole")}
    stored: dict[Any, int] = dict.fromkeys(small(encoder), 0)
    tokens = 0
    differences = []
    for query in list(run)[:count]:
        text, texts = queries[query], [corpus[document].content for document in run[query]]
        near = Stored(encoder, "float16").rerank(text, texts)
        tokens += encoder.token_count([("", one) for one in texts])
        for precision in stored:
            states = encoder.encode_documents(texts, precision=precision, progress=False)
            taus[precision].append(kendalltau(encoder.rerank(text, states), near))
            stored[precision] += sum(len(encoded(bytes(record))) for record in states)
        taus["whole"].append(kendalltau(encoder.rerank(text, texts), near))
        by_states = Stored(exact, "float16").rerank(text, texts)
        differences.append(np.abs(np.array(by_states) - exact.rerank(text, texts)).max())
    figures = {"largest difference fp32": float(np.max(differences))}
    for name, values in taus.items():
        figures[f"tau {name}, float16"] = float(np.mean(values))
        figures[f"least tau {name}, float16"] = float(np.min(values))
    for name, count_bytes in stored.items():
        figures[f"bytes per token {name}"] = count_bytes / tokens
    show(f"{model} order", figures)
    return figures


def unpacking(model: str, turns: int) -> dict[str, float]:
    """Compare the times to read records in two precisions."""
    encoder, texts = TextCrossEncoder(model, threads=1), made_up(CANDIDATES)
    scorer = encoder.states()
    kept = {
        precision: encoder.encode_documents(texts, precision=precision, progress=False)
        for precision in small(encoder)
    }

    def reading(states: Any) -> Callable[[str], Any]:
        return lambda _: [scorer.stored(record) for record in states]

    figures = in_turns({name: reading(states) for name, states in kept.items()}, turns)
    show(f"{model} unpack", figures)
    return figures


def small(encoder: TextCrossEncoder) -> list[Any]:
    """Precisions of the states of a model that are not nearly exact."""
    return [precision for precision in encoder.states_models if precision != "float16"]


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
