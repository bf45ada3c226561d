"""nDCG@10 of the first stage on every set: BM25 in steps, plain BM25, an embedder, both.

    python benchmarks/first_stage.py DATA [SET ...] [--embedder NAME] [--json FILE]

DATA is a folder of BEIR folders (or has one named ``eval``); every set in it is measured. Needs
``pip install bm25s``. The columns:

    as fastembed   BM25 with an average length of 256, a query's terms once
    counts         the same, a query's terms as often as they occur
    avg_len        with the collection's average length, a query's terms once
    BM25           both, which is the default
    bm25s          plain BM25 by another library: its own tokens, the same stemmer, k and b
    embedder       the static embedder alone, or that of --embedder, such as e5-small-v2
    fused as 256   the embedder and the first column, fused by RRF
    fused          the embedder and BM25, fused by RRF, which is the default first stage

The engine searches exactly; 100 candidates per branch. All in one process, one after the other.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from arguments import existing_path
from py_rust_stemmers import SnowballStemmer

from qdrant_rerank import DEFAULT_EMBEDDER, Bm25Encoder, HybridSearcher, StaticEmbedder
from qdrant_rerank.embedders import load_embedder
from qdrant_rerank.evaluation import evaluate
from qdrant_rerank.evaluation.corpus import find_beir, iter_corpus, read_queries
from qdrant_rerank.evaluation.metrics import by_query
from qdrant_rerank.evaluation.trec import read_qrels
from qdrant_rerank.qdrant.embedded.choice import embedded_client

METRIC = "nDCG@10"
DEPTH = 100
COLUMNS = (
    "as fastembed",
    "counts",
    "avg_len",
    "BM25",
    "bm25s",
    "embedder",
    "fused as 256",
    "fused",
)
K, B = 1.2, 0.75


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=existing_path)
    parser.add_argument("sets", nargs="*")
    parser.add_argument(
        "--embedder", default=DEFAULT_EMBEDDER, help="a name, or another static one's directory"
    )
    parser.add_argument("--json", type=Path, help="file for the result")
    given = parser.parse_args()
    root = given.data / "eval" if (given.data / "eval").is_dir() else given.data
    is_static = (Path(given.embedder) / "vectors.npy").is_file()
    load = StaticEmbedder.from_directory if is_static else load_embedder
    embedder = load(given.embedder)
    sets = given.sets or sorted(folder.name for folder in root.iterdir() if folder.is_dir())
    heads = "".join(f"{column:>13}" for column in COLUMNS)
    print(f"{'set':<14}{'documents':>10}{'queries':>8}{'avg_len':>8}{heads}   {METRIC}")
    measured: dict[str, dict[str, Any]] = {}
    for name in sets:
        found = measured[name] = measure(root / name, embedder)
        values = "".join(f"{found[column]:13.4f}" for column in COLUMNS)
        numbers = f"{found['documents']:>10,}{found['queries']:>8,}{found['avg_len_terms']:>8.1f}"
        print(f"{name:<14}{numbers}{values}", flush=True)
    mean = {c: sum(found[c] for found in measured.values()) / len(measured) for c in COLUMNS}
    print(f"{'mean':<14}{'':>26}" + "".join(f"{mean[column]:13.4f}" for column in COLUMNS))
    if given.json:
        result = {"metric": METRIC, "k": K, "b": B, "bm25s": version("bm25s")}
        text = json.dumps({**result, "sets": measured, "mean": mean}, indent=1)
        given.json.write_text(text + "\n", encoding="utf-8")


def measure(folder: Path, embedder: Any) -> dict[str, Any]:
    """Return the figures of one set."""
    files = find_beir(folder)
    assert files.queries is not None
    assert files.qrels is not None
    queries, qrels = read_queries(files.queries), read_qrels(files.qrels)
    documents = [
        {"_id": document.id, "title": document.title, "text": document.text}
        for document in iter_corpus(folder)
        if document.content
    ]
    with closing(embedded_client(None)) as client:
        options: dict[str, Any] = {
            "client": client,
            "reranker": None,
            "text": ["title", "text"],
            "candidates": DEPTH,
        }
        once = Bm25Encoder(K, B, query_counts=False)
        as_fastembed = Bm25Encoder(K, B, 256.0, query_counts=False)
        searchers = {
            "as fastembed": HybridSearcher("256", embedder=None, sparse=as_fastembed, **options),
            "counts": HybridSearcher("256", embedder=None, sparse=Bm25Encoder(K, B), **options),
            "avg_len": HybridSearcher("own", embedder=None, sparse=once, **options),
            "BM25": HybridSearcher("own", embedder=None, **options),
            "embedder": HybridSearcher("own", embedder=embedder, sparse=None, **options),
            "fused as 256": HybridSearcher(
                "256", embedder=embedder, sparse=as_fastembed, **options
            ),
            "fused": HybridSearcher("own", embedder=embedder, **options),
        }
        searchers["fused"].add(documents)
        searchers["fused as 256"].add(documents)
        found = evaluate(searchers, queries, qrels, measures=[METRIC])
        values = {c.name: float(c.values["after"][METRIC].mean()) for c in found.configurations}
        recorded = searchers["BM25"].sparse
        assert isinstance(recorded, Bm25Encoder)
    run = dict(plain_run(documents, found.queries))
    plain = by_query([METRIC], qrels, run, list(found.queries))[METRIC]
    return {
        "documents": len(documents),
        "queries": len(found.queries),
        "avg_len_terms": recorded.avg_len,
        **values,
        "bm25s": float(plain.mean()),
    }


def plain_run(
    documents: list[dict[str, str]], queries: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the documents of each query by bm25s, best first."""
    import bm25s

    stemmer = SnowballStemmer("english")
    tokens: dict[str, Any] = {
        "stopwords": "en",
        "stemmer": lambda words: [stemmer.stem_word(word) for word in words],
        "show_progress": False,
    }
    index = bm25s.BM25(k1=K, b=B, method="lucene")
    texts = [f"{document['title']}\n{document['text']}" for document in documents]
    index.index(bm25s.tokenize(texts, **tokens), show_progress=False)
    asked = bm25s.tokenize(list(queries.values()), return_ids=False, **tokens)
    rows, scores = index.retrieve(asked, k=min(DEPTH, len(documents)), show_progress=False)
    for query, ids, values in zip(queries, rows, scores, strict=True):
        yield (
            query,
            {
                documents[row]["_id"]: float(value)
                for row, value in zip(ids, values, strict=True)
                if value > 0 and documents[row]["_id"] != query
            },
        )


if __name__ == "__main__":
    main()
