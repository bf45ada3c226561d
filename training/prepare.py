"""From the training data to all that groups are drawn from; every step is kept and resumed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus import Corpus, as_query, draw_corpus, token_ids
from e5_groups import Texts
from encoders import Encoder, load_encoder, teachers
from lexical import inverse_frequency, stem_classes
from making import Plan, make_plan
from mine import NONE
from numpy.typing import NDArray
from reader import Lexical
from states import States, cached_states, vectors_of
from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Prepared:
    """What all training starts from.

    Attributes:
        encoder: the trunk, bfloat16.
        taught: vectors of queries and passages by each teacher, and its weight.
    """

    encoder: Encoder
    tokenizer: Tokenizer
    lexical: Lexical
    plan: Plan
    texts: Texts
    taught: list[tuple[NDArray[np.float32], NDArray[np.float32], float]]


def prepare(data: Path, e5: Path, work: Path, config: dict[str, Any]) -> Prepared:
    """All steps, or what an earlier run made of them."""
    work.mkdir(parents=True, exist_ok=True)
    settings, lower = config["texts"], config["model"]["lower"]
    kind = teachers(e5)["e5"]
    tokenizer = Tokenizer.from_file(str(kind.folder / "tokenizer.json"))
    corpus = draw_corpus(data, work, tokenizer, config["data"])
    encoder = load_encoder(kind.folder).to(torch.bfloat16)
    asked = [query.text for query in corpus.queries]

    def read(texts: list[str]) -> list[NDArray[np.int32]]:
        return token_ids(
            tokenizer, [kind.passage + text for text in texts], settings["passage_tokens"]
        )

    def ask(texts: list[str]) -> list[NDArray[np.int32]]:
        return token_ids(
            tokenizer, [as_query(kind, text) for text in texts], settings["query_tokens"]
        )

    ids = read(corpus.passages)
    passages = cached_states(encoder, ids, lower, work / "passages")
    queries = cached_states(encoder, ask(asked), lower, work / "queries", passages.scales)
    plan = make_plan(data, corpus, queries, passages, tokenizer, encoder, work, config)
    made = cached_states(encoder, read(plan.texts), lower, work / "made", passages.scales)
    related = [query.text for query in plan.queries[len(asked) :]]
    relations = cached_states(encoder, ask(related), lower, work / "related", passages.scales)
    texts = Texts([queries, relations], [passages, made])
    second = _second_teacher(corpus, work, settings)
    first = queries.vectors[: len(asked)], passages.vectors
    taught = [(*vectors, 1 / spread(plan, *vectors)) for vectors in (first, second)]
    return Prepared(encoder, tokenizer, lexical_of(tokenizer, ids), plan, texts, taught)


def lexical_of(tokenizer: Tokenizer, passages: list[NDArray[np.int32]]) -> Lexical:
    """The vocabulary's stems and weights over tokenised passages."""
    classes = stem_classes(tokenizer)
    weights = inverse_frequency(tokenizer, classes, passages)
    mark, *others = (tokenizer.token_to_id(token) for token in "?.!")
    return Lexical(classes, weights, mark, (mark, *others))


def spread(plan: Plan, queries: NDArray[np.float32], passages: NDArray[np.float32]) -> float:
    """Mean deviation of a teacher's cosines within a query's candidates and answer."""
    found = []
    for row in range(0, len(queries), 20):
        listed = [r for r in (*plan.dense[row], *plan.lexical[row]) if r != NONE]
        listed += plan.queries[row].answers
        if len(listed) > 4:
            found.append(float((passages[listed] @ queries[row]).std()))
    return float(np.mean(found))


def _second_teacher(
    corpus: Corpus, work: Path, settings: dict[str, Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """all-MiniLM-L6-v2's vectors of queries and passages."""
    stored = [work / f"minilm_{name}.npy" for name in ("queries", "passages")]
    kind = teachers(work)["minilm"]
    tokenizer = Tokenizer.from_file(str(kind.folder / "tokenizer.json"))
    encoder = load_encoder(kind.folder).to(torch.bfloat16)
    most = settings["query_tokens"], settings["taught_tokens"]
    texts = [query.text for query in corpus.queries], corpus.passages
    first, second = (
        vectors_of(encoder, token_ids(tokenizer, listed, length), path)
        for listed, length, path in zip(texts, most, stored, strict=True)
    )
    return first, second


__all__ = ["Prepared", "States", "prepare"]
