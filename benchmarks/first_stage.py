"""nDCG@10 of the default first stage: BM25, the static embedder, and both fused.

    python benchmarks/first_stage.py DATA_DIR [SET ...] [--embedder DIRECTORY]

DATA_DIR/eval/SET is a BEIR folder. The engine is Qdrant's local mode, which searches exactly; 100
candidates a branch, fused by RRF.
"""

import argparse
from pathlib import Path

from qdrant_client import QdrantClient

from qdrant_rerank import Bm25Encoder, HybridSearcher, StaticEmbedder
from qdrant_rerank.evaluation import evaluate
from qdrant_rerank.evaluation.corpus import iter_corpus, read_queries
from qdrant_rerank.evaluation.trec import read_qrels

MEASURE = "nDCG@10"
SETS = ("scifact", "cranfield", "med", "musique_mini", "cacm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", nargs="*", default=SETS)
    parser.add_argument("--embedder", type=Path, help="directory of another static embedder")
    given = parser.parse_args()
    embedder = (
        StaticEmbedder.from_directory(given.embedder)
        if given.embedder
        else StaticEmbedder.bundled()
    )
    print(f"{'set':<14}{'queries':>8}{'BM25':>8}{'static':>8}{'fused':>8}   {MEASURE}")
    for name in given.sets:
        folder = given.data / "eval" / name
        client = QdrantClient(":memory:")
        searchers = {
            kind: HybridSearcher(
                name,
                client=client,
                embedder=dense,
                sparse=sparse,
                reranker=None,
                text=["title", "text"],
            )
            for kind, dense, sparse in (
                ("fused", embedder, Bm25Encoder()),
                ("static", embedder, None),
                ("bm25", None, Bm25Encoder()),
            )
        }
        searchers["fused"].add(
            {"_id": document.id, "title": document.title, "text": document.text}
            for document in iter_corpus(folder)
            if document.content
        )
        found = evaluate(
            searchers,
            read_queries(folder / "queries.jsonl.gz"),
            read_qrels(folder / "qrels.tsv.gz"),
            measures=[MEASURE],
        )
        values = [
            found[kind].values["after"][MEASURE].mean() for kind in ("bm25", "static", "fused")
        ]
        print(
            f"{name:<14}{len(found.queries):>8}" + "".join(f"{v:8.4f}" for v in values), flush=True
        )


if __name__ == "__main__":
    main()
