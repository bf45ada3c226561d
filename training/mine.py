"""Hard negatives from BM25 and from the bi-encoder, without the answers among them.

A candidate is no negative when it answers by the data's own word, when it is nearly the passage
that answers (cosine, or a run of shared words), or when the bi-encoder puts it well above that
passage, as it does with answers that nobody labelled.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import Pool, Query, shingles
from minilm import load_teacher, mean_pooled, model_folder
from numpy.typing import NDArray
from scipy import sparse
from tokenizers import Tokenizer

from qdrant_rerank import Bm25Encoder

NONE = -1  # fills the rows of shorter lists
QUERIES_A_TIME = 512
BATCH = 32  # texts the bi-encoder reads at once


@dataclass(frozen=True, slots=True)
class Mined:
    """Rows of the pool for each query, best first, NONE where there are fewer.

    Attributes:
        dense: the bi-encoder's, filtered: (queries, keep), int32.
        lexical: BM25's, filtered: (queries, keep), int32.
        candidates: for held-out queries, unfiltered and fused; a row of NONE for the others.
    """

    dense: NDArray[np.int32]
    lexical: NDArray[np.int32]
    candidates: NDArray[np.int32]


def mine(pool: Pool, work: Path, settings: dict[str, Any]) -> Mined:
    """Negatives of every query; kept in ``work`` and read from there the next time."""
    stored = work / "mined.npz"
    if not stored.is_file():
        texts = [query.text for query in pool.queries] + pool.passages
        vectors = embedded(texts, work / "vectors.pt", settings["tokens"])
        queries, passages = vectors[: len(pool.queries)], vectors[len(pool.queries) :]
        depth = settings["depth"]
        dense = nearest(queries, passages, depth)
        lexical = bm25_best([query.text for query in pool.queries], pool.passages, depth)
        runs_of_words = [shingles(text, settings["shared_words"]) for text in pool.passages]
        lists = [
            [
                filtered(query, row, list(found[row]), runs_of_words, queries, passages, settings)
                for row, query in enumerate(pool.queries)
            ]
            for found in (dense, lexical)
        ]
        candidates = np.full((len(pool.queries), depth), NONE, dtype=np.int32)
        for row, query in enumerate(pool.queries):
            if query.held_out:
                candidates[row] = fused(list(dense[row]), list(lexical[row]))[:depth]
        made = [padded(rows, settings["keep"]) for rows in lists]
        unfinished = work / "mined.part.npz"
        np.savez(unfinished, dense=made[0], lexical=made[1], candidates=candidates)
        unfinished.rename(stored)
    with np.load(stored) as found:
        return Mined(found["dense"], found["lexical"], found["candidates"])


def embedded(texts: list[str], stored: Path, tokens: int) -> torch.Tensor:
    """The texts' vectors; kept in a file and read from there the next time."""
    if not stored.is_file():
        unfinished = stored.with_suffix(".part")
        torch.save(embed(texts, tokens), unfinished)
        unfinished.rename(stored)
    vectors: torch.Tensor = torch.load(stored)
    return vectors


@torch.inference_mode()
def embed(texts: list[str], tokens: int) -> torch.Tensor:
    """The bi-encoder's unit vectors, input order: (n, 384), bfloat16."""
    teacher = load_teacher(model_folder()).to(torch.bfloat16)
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(tokens)
    tokenizer.no_padding()
    encoded = [e.ids for e in tokenizer.encode_batch_fast(texts)]
    order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
    vectors = torch.zeros(len(texts), 384, dtype=torch.bfloat16)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        width = -(-len(encoded[rows[-1]]) // 16) * 16  # few shapes, so that kernels are reused
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for at, i in enumerate(rows):
            ids[at, : len(encoded[i])] = torch.tensor(encoded[i])
            mask[at, : len(encoded[i])] = 1
        pooled = mean_pooled(teacher, ids, mask).float()
        vectors[rows] = torch.nn.functional.normalize(pooled, dim=-1).to(torch.bfloat16)
        if start % (400 * BATCH) == 0:
            print(f"  embedded {start:,} of {len(texts):,}", flush=True)
    return vectors


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


def padded(lists: list[list[int]], width: int) -> NDArray[np.int32]:
    """(n, width), NONE where a list is shorter."""
    array = np.full((len(lists), width), NONE, dtype=np.int32)
    for row, values in enumerate(lists):
        array[row, : len(values)] = values[:width]
    return array
