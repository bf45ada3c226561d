"""How well programming interfaces are found by a person's own words: a set to choose on.

    python training/api_questions.py [--reranker NAME ...]

``api_questions.tsv`` has questions about NumPy, pandas, SciPy and scikit-learn in a person's own
words, each with the ends of the names that answer it, written before any ranking was looked at. The
documents are the docstrings of these packages, read as ``benchmarks/stdlib.py`` reads those of the
standard library, with which the questions share nothing. Prints nDCG@10 among the first stage's 30
candidates: of the trunk's cosine and the second teacher's, of rerankers, and of sums of both
with the second teacher's. Texts are cut at 128 tokens. Needs ``pip install pandas scikit-learn``.
"""

import argparse
import contextlib
import importlib
import inspect
import io
import pkgutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from corpus import token_ids
from encoders import load_encoder, teachers
from mine import NONE, bm25_best, fused
from numpy.typing import NDArray
from states import vectors_of
from tokenizers import Tokenizer

from qdrant_rerank import DEFAULT_RERANKER, StaticEmbedder, TextCrossEncoder
from qdrant_rerank.cli import stdlib_docs
from qdrant_rerank.embedders import TrunkEmbedder

QUESTIONS = Path(__file__).with_suffix(".tsv")
PACKAGES = {"numpy": True, "pandas": False, "scipy": True, "sklearn": True}  # with sub-packages
FURTHER = (
    "scipy.spatial.distance",
    "scipy.sparse.csgraph",
    "sklearn.utils.class_weight",
    "sklearn.feature_extraction.text",
)
EXPERIMENTAL = ("enable_halving_search_cv", "enable_iterative_imputer")  # else they cannot be read
LEFT_OUT = frozenset("tests conftest testing f2py typing core distutils setup".split())
CANDIDATES, TOKENS, WORDS = 30, 128, 300
WEIGHTS = (9, 18, 30)  # of the second teacher's cosine, added to a reranker's logit


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reranker", nargs="*", default=[DEFAULT_RERANKER])
    given = parser.parse_args()
    documents = api_documents()
    names = [*documents]
    texts = [" ".join(text.split(" ")[:WORDS]) for text in documents.values()]
    rows = [line.split("\t") for line in QUESTIONS.read_text("utf-8").splitlines()[1:]]
    questions = [question for question, _ in rows]
    answers = [
        {at for at, name in enumerate(names) if f".{name}".endswith(ends)}
        for ends in (tuple(f".{end}" for end in listed.split()) for _, listed in rows)
    ]
    found = candidates(questions, texts)
    read = sorted({row for listed in found for row in listed})
    print(f"{len(names):,} documents, {len(questions)} questions", flush=True)
    trunk = TrunkEmbedder(max_length=TOKENS)
    passages = [texts[row] for row in read]
    vectors = {
        "e5": (
            np.stack([trunk.embed_query(q) for q in questions]),
            trunk.embed_documents(passages),
        ),
        "minilm": (by_minilm(questions), by_minilm(passages)),
    }
    place = {row: at for at, row in enumerate(read)}
    scores = {
        name: [
            [float(vector @ read_as[place[row]]) for row in own]
            for vector, own in zip(queries, found, strict=True)
        ]
        for name, (queries, read_as) in vectors.items()
    }
    for name in given.reranker:
        model = TextCrossEncoder(name, max_length=TOKENS + 32)
        logits = [
            [float(score) for score in model.rerank(question, [texts[row] for row in own])]
            for question, own in zip(questions, found, strict=True)
        ]
        scores[name] = logits
        for weight in WEIGHTS:
            scores[f"{name} + {weight} x minilm"] = [
                [one + weight * other for one, other in zip(*both, strict=True)]
                for both in zip(logits, scores["minilm"], strict=True)
            ]
    scores["first stage"] = [[-float(rank) for rank in range(len(own))] for own in found]
    for name, values in scores.items():
        gains = [ndcg(*each) for each in zip(values, found, answers, strict=True)]
        print(f"{name:40} {np.mean(gains):.3f}", flush=True)


def api_documents() -> dict[str, str]:
    """Name -> name, signature and docstring of what is public in the packages."""
    warnings.simplefilter("ignore")
    for name in EXPERIMENTAL:
        importlib.import_module(f"sklearn.experimental.{name}")
    documents: dict[str, str] = {}
    seen: set[int] = set()

    def take(name: str, kind: str, value: Any) -> None:
        if id(value) not in seen:
            seen.add(id(value))
            made = stdlib_docs._document(name, kind, value)
            if made["text"]:
                parts = (made[part] for part in ("name", "signature", "text"))
                documents.setdefault(name, "\n".join(part for part in parts if part))

    for module in _modules():
        for name, value in stdlib_docs._public(module):
            full = f"{module.__name__}.{name}"
            known = id(value) in seen
            take(full, stdlib_docs._kind(value), value)
            if inspect.isclass(value) and not known and full.startswith(("numpy.", "pandas.")):
                for member, (kind, part) in stdlib_docs._members(value).items():
                    take(f"{full}.{member}", kind, part)
    return documents


def _modules() -> Iterator[ModuleType]:
    for top, deep in PACKAGES.items():
        package = importlib.import_module(top)
        yield package
        names = [found.name for found in pkgutil.iter_modules(package.__path__, f"{top}.")]
        names = [name for name in names if not LEFT_OUT & {*name.split(".")} and "._" not in name]
        names = names if deep else []
        for name in [*names, *(name for name in FURTHER if name.startswith(f"{top}."))]:
            with contextlib.suppress(Exception), contextlib.redirect_stdout(io.StringIO()):
                yield importlib.import_module(name)


def candidates(questions: list[str], texts: list[str]) -> list[list[int]]:
    """Rows that BM25 and the static embedder find, fused, best first."""
    embedder = StaticEmbedder.bundled()
    vectors = embedder.embed_documents(texts)
    dense = np.argsort(-(embedder.embed_documents(questions) @ vectors.T), axis=1)[:, :60]
    lexical = bm25_best(questions, texts, 60)
    return [
        fused(dense[at].tolist(), [row for row in lexical[at].tolist() if row != NONE])[:CANDIDATES]
        for at in range(len(questions))
    ]


def by_minilm(texts: list[str]) -> NDArray[np.float32]:
    """Unit vectors of all-MiniLM-L6-v2: (n, WIDTH)."""
    kind = teachers(Path())["minilm"]
    tokenizer = Tokenizer.from_file(str(kind.folder / "tokenizer.json"))
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "vectors.npy"
        encoder = load_encoder(kind.folder).to(torch.bfloat16)
        return vectors_of(encoder, token_ids(tokenizer, texts, TOKENS), stored)


def ndcg(scores: list[float], rows: list[int], answers: set[int]) -> float:
    """nDCG@10 of one question; an answer that is no candidate counts as missed."""
    order = np.argsort(-np.array(scores), kind="stable")[:10]
    hits = [at for at, place in enumerate(order, 2) if rows[place] in answers]
    ideal = sum(1 / np.log2(at) for at in range(2, 2 + min(10, len(answers))))
    return float(sum(1 / np.log2(at) for at in hits) / ideal)


if __name__ == "__main__":
    main()
