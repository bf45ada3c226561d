"""How often a reranker puts the better of two passages first, by kind of pair.

    python -m benchmarks.probes [--reranker NAME_OR_DIR ...] [--embedder NAME_OR_DIR ...]
                                [--data DIR] [--wrong] [--out FILE]

``pairs.jsonl`` holds queries, each with a better and a worse passage, written by hand: swapped
roles, negation, numbers, comparison, the type of the answer, the question itself instead of an
answer, bare and with padding, an answer among unrelated sentences, and other languages. No model of
this project was trained on them. With ``--data``, two figures of TREC DL 2019 as well: the share of
queries whose own text, followed by "Sign in to see the answer.", comes first among BM25's 100
candidates; and the share where it comes, followed by 40 unrelated words, above every passage of
grade 3. The figures are added to ``benchmarks/results/probes.json``.

``--embedder`` takes a bi-encoder instead, which ranks by cosine: "e5-small-v2", the one inside the
default reranker, or an ONNX directory, such as of all-MiniLM-L6-v2.
"""

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.arguments import existing_path
from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from qdrant_rerank.embedders import OnnxEmbedder, TrunkEmbedder
from qdrant_rerank.evaluation.corpus import read_corpus, read_queries
from qdrant_rerank.evaluation.trec import read_qrels, read_run
from qdrant_rerank.hub.specs import TRUNK_EMBEDDER
from qdrant_rerank.types import Embedder, Reranker

PAIRS = Path(__file__).with_name("pairs.jsonl")
RECORD = Path(__file__).parents[1] / "results" / "probes.json"
INVITATION = "Sign in to see the answer."
PADDING = 40  # unrelated words
PERFECT = 3  # the highest grade of TREC DL
SEED = 19


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and two passages, of which one answers better."""

    query: str
    better: str
    worse: str
    kind: str


class ByCosine:
    """An embedder as a reranker."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def rerank(self, query: str, documents: Iterable[str]) -> list[float]:
        """One cosine per document."""
        vectors = np.asarray(self.embedder.embed_documents(list(documents)))
        cosines: list[float] = (vectors @ np.asarray(self.embedder.embed_query(query))).tolist()
        return cosines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reranker", action="append", help="name or directory; may be repeated")
    parser.add_argument("--embedder", action="append", default=[], help="likewise, a bi-encoder")
    parser.add_argument("--data", type=existing_path, help="folder with eval/dl19, for the echoes")
    parser.add_argument("--wrong", action="store_true", help="list the pairs in the wrong order")
    parser.add_argument("--out", type=Path, default=RECORD, help="JSON with the figures")
    given = parser.parse_args()
    pairs = read_pairs(PAIRS)
    rerankers: dict[str, Reranker] = {}
    for name in given.reranker or [DEFAULT_RERANKER] * (not given.embedder):
        encoder = TextCrossEncoder(name)
        rerankers[encoder.model_name] = encoder
    for name in given.embedder:
        embedder: TrunkEmbedder | OnnxEmbedder = (
            TrunkEmbedder() if name == TRUNK_EMBEDDER else OnnxEmbedder(name)
        )
        rerankers[f"{embedder.name}, cosine"] = ByCosine(embedder)
    for name, reranker in rerankers.items():
        print(name, flush=True)
        figures = {"pairs": by_kind(reranker, pairs, given.wrong)}
        show(figures["pairs"])
        if given.data:
            figures["echoes"] = echoes(reranker, given.data / "eval" / "dl19")
            show(figures["echoes"])
        record(given.out, name, figures)


def show(figures: dict[str, float]) -> None:
    """Print a line for each figure."""
    for kind, value in figures.items():
        print(f"  {kind:<52}{value:7.3f}", flush=True)


def read_pairs(path: Path) -> list[Pair]:
    """All pairs of a JSONL file."""
    return [Pair(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def by_kind(reranker: Reranker, pairs: list[Pair], list_wrong: bool = False) -> dict[str, float]:
    """Share of pairs in the right order, by kind and of all; equal scores are wrong."""
    right: dict[str, list[bool]] = defaultdict(list)
    for pair in pairs:
        better, worse = reranker.rerank(pair.query, [pair.better, pair.worse])
        right[pair.kind].append(better > worse)
        if list_wrong and better <= worse:
            print(f"  {pair.kind}: {pair.query} | {pair.worse} {worse:.2f} >= {better:.2f}")
    found = {kind: sum(values) / len(values) for kind, values in right.items()}
    return found | {"all": sum(map(sum, right.values())) / len(pairs)}


def echoes(reranker: Reranker, folder: Path) -> dict[str, float]:
    """Shares of the queries of TREC DL 2019 for which an echo wins."""
    queries = read_queries(folder / "queries.jsonl.gz")
    corpus = {
        name: document.content for name, document in read_corpus(folder / "corpus.jsonl.gz").items()
    }
    qrels = read_qrels(folder / "qrels_full.tsv.gz")
    run = read_run(folder / "candidates_bm25_top100.tsv.gz")
    first, above = [], []
    for query, judged in qrels.items():
        text = queries[query]
        candidates = [corpus[name] for name in run[query]]
        echo, *scores = reranker.rerank(text, [f"{text} {INVITATION}", *candidates])
        first.append(echo >= max(scores))
        perfect = [
            corpus[name] for name, grade in judged.items() if grade == PERFECT and name in corpus
        ]
        if perfect:
            others = [name for other in run if other != query for name in run[other]]
            padding = unrelated_words([corpus[name] for name in others], query)
            echo, *scores = reranker.rerank(text, [f"{text} {padding}", *perfect])
            above.append(echo >= max(scores))
    return {
        "question + invitation first among BM25's 100": sum(first) / len(first),
        "question + 40 unrelated words above every grade 3": sum(above) / len(above),
    }


def unrelated_words(passages: list[str], query: str) -> str:
    """Words in their order from a passage of another query, the same at every call."""
    rng = random.Random(f"{SEED} {query}")
    while True:
        words = rng.choice(passages).split()
        if len(words) >= PADDING:
            return " ".join(words[:PADDING])


def record(path: Path, name: str, figures: dict[str, dict[str, float]]) -> None:
    """Put the figures of one reranker into the file, beside those of others."""
    kept = json.loads(path.read_text()) if path.is_file() else {}
    kept[name] = kept.get(name, {}) | figures
    path.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
