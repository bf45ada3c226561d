"""Hard negatives from BM25 and from the bi-encoder, without the answers among them.

A candidate is no negative when it answers by the data's own word, when it is nearly the passage
that answers (cosine, or a run of shared words), or when the bi-encoder puts it well above that
passage, as it does with answers that nobody labelled.
"""

from typing import Any

import numpy as np
import torch
from data import Query
from numpy.typing import NDArray
from scipy import sparse

from qdrant_rerank import Bm25Encoder

NONE = -1  # fills the rows of shorter lists
QUERIES_A_TIME = 512


def nearest(queries: torch.Tensor, passages: torch.Tensor, depth: int) -> NDArray[np.int32]:
    """Rows of the passages with the largest cosine, best first: (queries, depth)."""
    found = np.empty((len(queries), depth), dtype=np.int32)
    for start in range(0, len(queries), QUERIES_A_TIME):
        scores = queries[start : start + QUERIES_A_TIME] @ passages.T
        found[start : start + QUERIES_A_TIME] = scores.topk(depth, dim=1).indices.numpy()
    return found


def bm25_best(queries: list[str], passages: list[str], depth: int) -> NDArray[np.int32]:
    """Rows of the passages with the largest BM25 score; NONE where fewer share a word."""
    encoder = Bm25Encoder()
    documents = encoder.embed_documents(passages)
    terms = np.concatenate([np.array(d.indices, dtype=np.int64) for d in documents])
    rows = np.repeat(np.arange(len(passages)), [len(d.indices) for d in documents])
    values = np.concatenate([np.array(d.values, dtype=np.float32) for d in documents])
    vocabulary, columns, frequency = np.unique(terms, return_inverse=True, return_counts=True)
    idf = np.log1p((len(passages) - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
    shape = (len(vocabulary), len(passages))
    by_term = sparse.csr_matrix((values * idf[columns], (columns, rows)), shape=shape)
    found = np.full((len(queries), depth), NONE, dtype=np.int32)
    for start in range(0, len(queries), QUERIES_A_TIME):
        window = queries[start : start + QUERIES_A_TIME]
        asked = [np.array(encoder.embed_query(query).indices, dtype=np.int64) for query in window]
        at = [np.searchsorted(vocabulary, terms) for terms in asked]
        known = [
            i[(i < len(vocabulary)) & (vocabulary[np.minimum(i, len(vocabulary) - 1)] == t)]
            for i, t in zip(at, asked, strict=True)
        ]
        indptr = np.cumsum([0, *(len(i) for i in known)])
        columns_asked = np.concatenate(known)
        left = sparse.csr_matrix(
            (np.ones(len(columns_asked), dtype=np.float32), columns_asked, indptr),
            shape=(len(window), len(vocabulary)),
        )
        scores = (left @ by_term).tocsr()
        for row in range(len(window)):
            span = slice(scores.indptr[row], scores.indptr[row + 1])
            value, column = scores.data[span], scores.indices[span]
            if len(value) > depth:
                best = np.argpartition(-value, depth)[:depth]
                value, column = value[best], column[best]
            ranked = column[np.lexsort((column, -value))]
            found[start + row, : len(ranked)] = ranked
    return found


def filtered(
    query: Query,
    row: int,
    found: list[int],
    runs_of_words: list[set[int]],
    queries: torch.Tensor,
    passages: torch.Tensor,
    settings: dict[str, Any],
) -> list[int]:
    """The candidates that are taken for negatives, best first."""
    candidates = [c for c in found if c != NONE and c not in query.answers]
    if not candidates:
        return []
    answers = passages[query.answers]
    similar = (answers @ passages[candidates].T).float().amax(0)
    own = (answers @ queries[row]).float().amax()
    near = (passages[candidates] @ queries[row]).float()
    fine = (similar < settings["same_passage"]) & (near < own + settings["teacher_margin"])
    answered = set().union(*(runs_of_words[row] for row in query.answers))
    kept = [
        candidate
        for candidate, good in zip(candidates, fine.tolist(), strict=True)
        if good and answered.isdisjoint(runs_of_words[candidate])
    ]
    return kept[: settings["keep"]]


def fused(first: list[int], second: list[int]) -> list[int]:
    """Reciprocal rank fusion (k 2, as Qdrant's) of two rankings."""
    scores: dict[int, float] = {}
    for ranking in (first, second):
        for rank, row in enumerate(ranking):
            if row != NONE:
                scores[row] = scores.get(row, 0.0) + 1 / (2 + rank)
    return sorted(scores, key=lambda row: -scores[row])
