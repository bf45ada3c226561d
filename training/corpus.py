"""The queries and passages of one run: a draw from every training set, tokenised."""

import pickle
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from data import Query, load_pool, share
from encoders import Kind
from mine import NONE
from numpy.typing import NDArray
from tokenizers import Tokenizer

BARE = 0.6  # share of the queries that lose their question mark
RIVALS = 1  # other sections of a document that are kept for a query


@dataclass(slots=True)
class Made:
    """Passages made by rules for a query, as rows behind those of the corpus.

    Attributes:
        echoes: without an answer.
        part: the part that answers, which was changed; NONE without a change.
        changed: the same without the answer.
        diluted: still answers; NONE where none was made.
        kind: of the change.
    """

    echoes: list[int] = field(default_factory=list)
    part: int = NONE
    changed: int = NONE
    diluted: int = NONE
    kind: str = ""
    echo_kind: str = ""


@dataclass(frozen=True, slots=True)
class Corpus:
    """What is trained on."""

    queries: list[Query]
    passages: list[str]


def draw_corpus(data: Path, work: Path, tokenizer: Tokenizer, settings: dict[str, Any]) -> Corpus:
    """As many queries of each set as ``most`` says, with their passages; kept in ``work``."""
    stored = work / "corpus.pickle"
    if not stored.is_file():
        pool = load_pool(data, settings)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        fits = [
            len(encoding.ids) <= settings["longest"]
            for encoding in tokenizer.encode_batch_fast(pool.passages)
        ]
        by_set: dict[str, list[Query]] = defaultdict(list)
        for query in pool.queries:
            by_set[query.source].append(query)
        chosen: list[Query] = []
        for source, queries in sorted(by_set.items()):
            ordered = sorted(queries, key=lambda query: share("draw " + query.text))
            chosen += ordered[: settings["most"].get(source, len(ordered))]
        for query in chosen:
            query.answers = [row for row in query.answers if fits[row]]
            query.rivals = [row for row in query.rivals if fits[row]]
        chosen = [query for query in chosen if query.answers]
        rows: dict[int, int] = {}
        for query in chosen:
            query.rivals = query.rivals[:RIVALS]
            for row in (*query.answers, *query.rivals):
                rows.setdefault(row, len(rows))
            query.answers = [rows[row] for row in query.answers]
            query.rivals = [rows[row] for row in query.rivals]
        corpus = Corpus(chosen, [pool.passages[row] for row in rows])
        print(f"{len(corpus.queries):,} queries, {len(corpus.passages):,} passages drawn")
        stored.write_bytes(pickle.dumps(corpus))
    found: Corpus = pickle.loads(stored.read_bytes())
    return found


def token_ids(tokenizer: Tokenizer, texts: list[str], most: int) -> list[NDArray[np.int32]]:
    """Token ids with [CLS] and [SEP], at most so many."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(most)
    return [np.array(e.ids, dtype=np.int32) for e in tokenizer.encode_batch_fast(texts)]


def as_query(kind: Kind, text: str) -> str:
    """A query as a bi-encoder reads it; most lose their question mark, as typed queries do."""
    bare = text.rstrip(" ?") or text
    return kind.query + (bare if share("bare " + text) < BARE else text)
