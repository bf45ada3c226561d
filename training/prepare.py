"""From the training data to all that groups are drawn from; every step is kept and resumed."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus import as_query, draw_corpus, token_ids
from data import Query
from e5_groups import Texts
from e5_train import Second
from encoders import Encoder, load_encoder, teachers
from lexical import inverse_frequency, stem_classes
from making import Plan, add_mined, make_plan
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
    """

    encoder: Encoder
    tokenizer: Tokenizer
    lexical: Lexical
    plan: Plan
    texts: Texts
    second: Second


def prepare(data: Path, e5: Path, work: Path, config: dict[str, Any]) -> Prepared:
    """All steps, or what an earlier run made of them."""
    work.mkdir(parents=True, exist_ok=True)
    settings, lower = config["texts"], config["model"]["lower"]
    kind = teachers(e5)["e5"]
    tokenizer = Tokenizer.from_file(str(kind.folder / "tokenizer.json"))
    corpus = draw_corpus(data, work, tokenizer, config["data"])
    encoder = load_encoder(kind.folder).to(torch.bfloat16)

    def read(texts: list[str], most: int) -> list[NDArray[np.int32]]:
        return token_ids(tokenizer, [kind.passage + text for text in texts], most)

    def ask(queries: list[Query]) -> list[NDArray[np.int32]]:
        texts = [as_query(kind, query.text) for query in queries]
        return token_ids(tokenizer, texts, settings["query_tokens"])

    ids = read(corpus.passages, settings["passage_tokens"])
    passages = cached_states(encoder, ids, lower, work / "passages")
    scales = passages.scales
    queries = cached_states(encoder, ask(corpus.queries), lower, work / "queries", scales)
    stored = work / "plan.pickle"
    if not stored.is_file():
        drawn = make_plan(data, corpus, queries, passages, tokenizer, encoder, config)
        stored.write_bytes(pickle.dumps(drawn))
    plan, begin = pickle.loads(stored.read_bytes())
    more = plan.queries[len(corpus.queries) :]
    further = cached_states(encoder, ask(more), lower, work / "further", scales)
    made = cached_states(
        encoder, read(plan.texts, settings["long_tokens"]), lower, work / "made", scales
    )
    texts = Texts([queries, further], [passages, made])
    asked = further.vectors[begin - len(corpus.queries) :]
    vectors = np.concatenate([passages.vectors, made.vectors])
    add_mined(plan, begin, asked, vectors, corpus.passages, config["mining"])
    second = _second_teacher(plan, corpus.passages, work, settings)
    return Prepared(encoder, tokenizer, lexical_of(tokenizer, ids), plan, texts, second)


def lexical_of(tokenizer: Tokenizer, passages: list[NDArray[np.int32]]) -> Lexical:
    """The vocabulary's stems and weights over tokenised passages."""
    classes = stem_classes(tokenizer)
    weights = inverse_frequency(tokenizer, classes, passages)
    mark, *others = (tokenizer.token_to_id(token) for token in "?.!")
    return Lexical(classes, weights, mark, (mark, *others))


def _second_teacher(
    plan: Plan, passages: list[str], work: Path, settings: dict[str, Any]
) -> Second:
    """all-MiniLM-L6-v2's vectors of topical queries and of all passages in their groups."""
    topical = [row for row, q in enumerate(plan.queries) if q.source in settings["topical"]]
    found = {
        int(passage)
        for row in topical
        for passage in (*plan.queries[row].answers, *plan.same[row], *plan.dense[row])
    }
    found |= {int(passage) for row in topical for passage in plan.lexical[row]}
    rows = np.array(sorted(found - {NONE}), dtype=np.int64)
    texts = passages + plan.texts
    places = [np.full(count, NONE) for count in (len(plan.queries), len(texts))]
    places[0][topical], places[1][rows] = np.arange(len(topical)), np.arange(len(rows))
    kind = teachers(work)["minilm"]
    tokenizer = Tokenizer.from_file(str(kind.folder / "tokenizer.json"))
    encoder = load_encoder(kind.folder).to(torch.bfloat16)
    listed = [plan.queries[row].text for row in topical], [texts[row] for row in rows]
    most = settings["query_tokens"], settings["taught_tokens"]
    names = ("queries", "passages")
    vectors = [
        vectors_of(encoder, token_ids(tokenizer, own, length), work / f"minilm_{name}.npy")
        for own, length, name in zip(listed, most, names, strict=True)
    ]
    return Second(*places, *vectors)


__all__ = ["Prepared", "States", "prepare"]
