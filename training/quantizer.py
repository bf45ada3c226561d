"""Learn the quantizer of a bundled model's states, for ``document_states="pq"``.

    python training/quantizer.py DATA_DIR E5_DIR [--model NAME] [--seed N]

Takes a model that is grown on e5-small-v2, and writes its quantizer beside it. In closed form: what
the embedding of a token predicts of a state; a rotation by what the gradients of the logits weigh;
k-means in groups of columns of equal spread. It learns of queries and passages of the sets in
``DATA_DIR/train``, and is measured with others of them. Deterministic by seed and processor.
"""

import argparse
import gzip
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from arguments import existing_path
from e5_pipeline import CONFIG, read_config
from encoders import load_encoder
from exported import lexical_of, load_head
from numpy.typing import NDArray
from reader import Branches, Lexical, texts_of
from tokenizers import Tokenizer
from torch import Tensor

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from qdrant_rerank.cross_encoder.document_states import DIGEST_BYTES, Passage, pack, unpack
from qdrant_rerank.cross_encoder.state_quantizer import (
    CENTROIDS,
    ROW_SCALES,
    ROWS,
    StateQuantizer,
    quantizer_file,
)
from qdrant_rerank.hub.onnx_files import external_array
from qdrant_rerank.hub.specs import BUNDLED_DIRECTORY
from qdrant_rerank.qdrant.stored_states import encoded

LEARNT, MEASURED = 40, 1  # queries of a set; those that are measured are others
CANDIDATES = 25  # of a query that is measured
POOL = 600  # passages of a set, of which they are drawn
LETTERS = 900  # of a passage
WIDTH, RANK = 384, 64  # numbers of a state; those that an embedding predicts it by
GROUPS = 84  # bytes of a token, before Huffman's code
PENALTY = 0.0016  # squared distance, of 384 in all weights, that a bit of a code has to be worth
FLOOR = 0.1  # weight of what no gradient asks for, as a share of the mean
RIDGE = 1e-3  # as a share of the embeddings' mean variance
CLUSTERED, ITERATIONS = 30_000, 8  # tokens and rounds of k-means


@dataclass(frozen=True, slots=True)
class Group:
    """A query and passages.

    Attributes:
        ids: of the query, (n,), int64.
        states: of the query, (n, WIDTH), float32.
        passages: each with its ids and states, float16.
    """

    ids: NDArray[np.int64]
    states: NDArray[np.float32]
    passages: list[tuple[NDArray[np.int64], NDArray[np.float16]]]


def main() -> None:
    """Learn, write, measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data", "e5"):
        parser.add_argument(name, type=existing_path)
    parser.add_argument("--model", default=DEFAULT_RERANKER, help="a bundled model")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    torch.set_num_threads(1)
    model = BUNDLED_DIRECTORY / given.model / "onnx" / "model.onnx"
    scorer = Scorer(given.e5, model)
    encoder = TextCrossEncoder(given.model, threads=1)
    shown: list[Group] = []
    held: list[Group] = []
    for file in sorted((given.data / "train").glob("*.jsonl.gz")):
        to_learn, to_measure = groups_of(file, encoder, given.seed)
        shown += to_learn
        held += to_measure
    print(f"{len(shown)} queries to learn of, {len(held)} to measure", flush=True)
    rows = external_array(model, ROWS, "i1").reshape(-1, WIDTH)
    embeddings = rows * external_array(model, ROW_SCALES, "<f4").reshape(-1, 1)
    np.savez_compressed(quantizer_file(model), **learnt(scorer, embeddings, shown))
    measure(StateQuantizer.read(model), scorer, held)


class Scorer:
    """The head of an exported model, which gives gradients.

    Args:
        e5: folder of the trunk.
        model: the ONNX file.
    """

    def __init__(self, e5: Path, model: Path) -> None:
        stored = onnx.load(model)
        tokenizer = Tokenizer.from_file(str(model.parent.parent / "tokenizer.json"))
        self.branches = Branches(load_encoder(e5), read_config([CONFIG], [])["model"])
        load_head(self.branches, stored)
        self.branches.requires_grad_(False)
        self.lexical: Lexical = lexical_of(stored, tokenizer)

    def __call__(self, group: Group, states: Sequence[Tensor]) -> Tensor:
        """Logits of the group's passages, (n,), by other states of these, (tokens, WIDTH) each."""
        query = len(group.ids)
        length = query + max(map(len, states))
        ids = torch.zeros(len(states), length, dtype=torch.long)
        mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
        rows = []
        for row, own in enumerate(states):
            end = query + len(own)
            ids[row, :query] = torch.from_numpy(group.ids)
            ids[row, query:end] = torch.from_numpy(group.passages[row][0])
            types[row, query:end] = 1
            mask[row, :end] = 1
            filled = torch.zeros(length - end, WIDTH)
            rows.append(torch.cat([torch.from_numpy(group.states), own, filled]))
        top = torch.stack(rows)
        front = torch.arange(query)
        features, new = self.lexical(ids, *texts_of(mask, types), front)
        found = self.branches(top, top, features, new, mask, types, front, read=False)
        logits: Tensor = found[1]
        return logits


def groups_of(file: Path, encoder: TextCrossEncoder, seed: int) -> tuple[list[Group], list[Group]]:
    """Queries of a set: some to learn of, each with its passage and another; others to measure.

    Those have the passages that share their words.
    """
    with gzip.open(file, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    rng = np.random.default_rng([seed, len(rows)])
    rows = [rows[at] for at in rng.permutation(len(rows))[:POOL]]
    own = [states_of(encoder, row["positive"][:LETTERS]) for row in rows[:LEARNT]]
    to_learn = [
        group(encoder, row["query"], [passage, other])
        for row, passage, other in zip(rows, own, [*own[1:], own[0]], strict=False)
    ]
    seen = {row["positive"][:LETTERS] for row in rows[:LEARNT]}
    pool = list(dict.fromkeys(row["positive"][:LETTERS] for row in rows[LEARNT:]))
    pool = [text for text in pool if text not in seen]
    words = [set(re.findall(r"\w+", text.lower())) for text in pool]
    counts = Counter(word for own_words in words for word in own_words)
    to_measure = []
    for row in rows[LEARNT : LEARNT + MEASURED]:
        asked = set(re.findall(r"\w+", row["query"].lower()))
        matches = [
            sum(math.log(len(pool) / counts[word]) for word in asked & own_words)
            / math.sqrt(20 + len(own_words))
            for own_words in words
        ]
        best = np.argsort(matches, kind="stable")[::-1][:CANDIDATES]
        passages = [states_of(encoder, pool[at]) for at in best]
        to_measure.append(group(encoder, row["query"], passages))
    return to_learn, to_measure


def group(
    encoder: TextCrossEncoder, query: str, passages: list[tuple[NDArray[Any], NDArray[Any]]]
) -> Group:
    """Make a group."""
    read = encoder.states().query(query)
    return Group(read.ids[0], read.states[0], passages)


def states_of(
    encoder: TextCrossEncoder, text: str
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Ids and states of a passage."""
    record = unpack(encoder.encode_documents([text], precision="float16", progress=False)[0])
    assert record is not None
    [passage] = record.passages
    return passage.ids, passage.states.astype(np.float16)


def learnt(
    scorer: Scorer, embeddings: NDArray[np.float32], groups: Sequence[Group]
) -> dict[str, NDArray[Any]]:
    """Learn a quantizer: the arrays of its file.

    Args:
        scorer: gives the gradients.
        embeddings: the trunk's, of all tokens, (vocabulary, WIDTH).
        groups: to learn of.
    """
    passages = {id(ids): (ids, states) for group in groups for ids, states in group.passages}
    texts = [(ids, states.astype(np.float32)) for ids, states in passages.values()]
    means = np.stack([states.mean(0) for _, states in texts])
    centred = np.concatenate([states - states.mean(0) for _, states in texts])
    own = np.concatenate([embeddings[ids] - embeddings[ids].mean(0) for ids, _ in texts])
    values, basis = np.linalg.eigh(gradient_weights(scorer, groups))
    root = ((basis * np.sqrt(values)) @ basis.T).astype(np.float32)
    back = ((basis / np.sqrt(values)) @ basis.T).astype(np.float32)
    ridge = RIDGE * np.trace(own.T @ own) / WIDTH * np.eye(WIDTH, dtype=np.float32)
    predict = np.linalg.solve(own.T @ own + ridge, own.T @ (centred @ root)).astype(np.float32)
    directions = principal(own @ predict)[0][:, :RANK]
    left = centred @ root - own @ predict @ directions @ directions.T
    rotation, spread = principal(left)
    sizes, order = balanced(spread, GROUPS)
    turn = rotation[:, order]
    made: dict[str, NDArray[Any]] = {"groups": np.cumsum([0, *sizes]).astype(np.int16)}
    project = rounded(made, "project", predict @ directions, 0)
    expand = rounded(made, "expand", directions.T @ turn, 1)
    decode = rounded(made, "decode", turn.T @ back, 1)
    columns = torch.from_numpy(centred @ np.linalg.inv(decode) - own @ project @ expand)
    columns = columns[torch.randperm(len(columns))[:CLUSTERED]]
    centroids, penalties = clustered(columns.split(sizes, 1))
    rounded(made, "centroids", centroids, 0)
    return made | {"penalties": penalties, "centre": means.mean(0)}


def rounded(
    made: dict[str, NDArray[Any]], name: str, matrix: NDArray[np.float32], axis: int
) -> NDArray[np.float32]:
    """Put a matrix into the arrays as int8, with a scale for all along an axis; returns it so."""
    scales = np.abs(matrix).max(axis, keepdims=True) / np.float32(127)
    made[name] = np.rint(matrix / scales).astype(np.int8)
    made[f"{name}_scales"] = scales
    whole: NDArray[np.float32] = made[name].astype(np.float32) * scales
    return whole


def gradient_weights(scorer: Scorer, groups: Sequence[Group]) -> NDArray[np.float64]:
    """What the logits weigh of a state: the mean outer product of their gradients, (WIDTH, WIDTH).

    The gradients are those of tokens less the mean of their passage, which is kept apart.
    """
    found = np.zeros((WIDTH, WIDTH))
    for group in groups:
        states = [
            torch.from_numpy(kept.astype(np.float32)).requires_grad_() for _, kept in group.passages
        ]
        scorer(group, states).sum().backward()
        for one in states:
            assert one.grad is not None
            gradient = (one.grad - one.grad.mean(0)).numpy()
            found += gradient.T @ gradient
    return found / np.trace(found) * WIDTH + FLOOR * np.eye(WIDTH)


def principal(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Principal directions of rows as columns, the largest first, and the variances."""
    values, vectors = np.linalg.eigh(rows.T.astype(np.float64) @ rows / len(rows))
    return vectors[:, ::-1].astype(np.float32), values[::-1]


def balanced(variances: NDArray[np.float64], count: int) -> tuple[list[int], list[int]]:
    """Groups of columns whose variances have about equal products (Ge et al. 2013).

    Returns:
        The groups' sizes, and their columns one after the other.
    """
    # What 7 bits of 8 would leave of the variances, spread as is best; less does not count.
    low, high = 1e-12, float(variances.max())
    for _ in range(60):
        level = math.sqrt(low * high)
        enough = np.maximum(0, np.log2(variances / level)).sum() / 2 < 7 * count
        low, high = (low, level) if enough else (level, high)
    columns: list[list[int]] = [[] for _ in range(count)]
    product = np.zeros(count)
    for column, variance in enumerate(variances):
        group = int(np.argmin(product + [0.02 * len(own) for own in columns]))
        columns[group].append(column)
        product[group] += math.log(max(variance / level, 1.0001))
    return [len(own) for own in columns], [column for own in columns for column in own]


def clustered(parts: Sequence[Tensor]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Find centroids of groups of columns whose codes take few bits after Huffman's code.

    k-means in which a centroid that few rows have costs more (Chou et al. 1989). Those that most
    rows have come first, so that the codes of all groups share one code of Huffman's.

    Returns:
        The centroids of all groups side by side, (CENTROIDS, WIDTH), and the cost of each place,
        (CENTROIDS,).
    """
    centroids = [rows[:CENTROIDS].clone() for rows in parts]
    costs = torch.zeros(CENTROIDS)
    for _ in range(ITERATIONS):
        uses = torch.zeros(CENTROIDS)
        for group, rows in enumerate(parts):
            now = centroids[group]
            code = ((now * now).sum(1) + costs - 2 * rows @ now.T).argmin(1)
            counts = torch.bincount(code, minlength=CENTROIDS)
            sums = torch.zeros_like(now).index_add_(0, code, rows)
            moved = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], now)
            order = counts.argsort(descending=True, stable=True)
            centroids[group] = moved[order]
            uses += counts[order]
        costs = -PENALTY * torch.log2((uses + 1) / (uses + 1).sum())
    return torch.cat(centroids, 1).numpy(), costs.numpy()


@torch.no_grad()
def measure(quantizer: StateQuantizer, scorer: Scorer, groups: Sequence[Group]) -> None:
    """Print Kendall's tau with float states within a query, and the bytes of a token."""
    taus, stored, tokens = [], 0, 0
    for group in groups:
        whole = [states.astype(np.float32) for _, states in group.passages]
        made = []
        for ids, states in zip([ids for ids, _ in group.passages], whole, strict=True):
            record = packed(quantizer, ids, states)
            stored, tokens = stored + len(encoded(record)), tokens + len(ids)
            found = unpack(record, quantizer)
            assert found is not None
            made.append(found.passages[0].states)
        both = [scorer(group, list(map(torch.from_numpy, one))).numpy() for one in (whole, made)]
        signs = [np.sign(np.subtract.outer(one, one)) for one in both]
        taus.append((signs[0] * signs[1]).sum() / (len(whole) * (len(whole) - 1)))
    print(
        f"{len(groups)} other queries: tau {np.mean(taus):.4f}, least "
        f"{np.min(taus):.4f}; {stored / tokens:.1f} bytes per token in the payload"
    )


def packed(quantizer: StateQuantizer, ids: NDArray[np.int64], states: NDArray[np.float32]) -> bytes:
    """The record of a passage."""
    passage = Passage(ids, states, (0, LETTERS))
    return pack(
        [passage],
        precision="pq",
        model=bytes(DIGEST_BYTES),
        text=bytes(DIGEST_BYTES),
        truncated=False,
        quantizer=quantizer,
    )


if __name__ == "__main__":
    main()
