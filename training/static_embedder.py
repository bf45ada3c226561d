"""Make the bundled static embedder from all-MiniLM-L6-v2, or one from e5-small-v2, or from both.

    python training/static_embedder.py DATA_DIR WORK_DIR [OUT_DIR]
    python training/static_embedder.py DATA_DIR WORK_DIR OUT_DIR --teachers e5 [minilm] --e5 E5_DIR

DATA_DIR holds ``train/*.jsonl.gz`` (query, positive) and ``eval/*/corpus.jsonl.gz``; of the
latter only the overlap check reads anything. WORK_DIR keeps the teacher's vectors, so that a
second run, or one that was cut off, goes on where it was. Needs the dependency group
``training``. About 25 minutes on two CPU cores.

1. *Distil* (model2vec): every token alone through the teacher, mean-pooled; PCA to 256
   dimensions on the teacher's sentence vectors; weight a / (a + p(token)), the smooth inverse
   frequency of Arora et al. 2017.
2. *Fit* (tokenlearn, and the static models of sentence-transformers): move the token vectors so
   that the mean of a text's tokens points where the teacher's sentence vector points, and so that a
   query is nearer to its passage than to the other passages of the batch (InfoNCE).
3. *Quantise*: int8, one scale a token.
"""

import argparse
import gzip
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from arguments import existing_path
from encoders import Kind, load_encoder, teachers
from encoders import pooled as mean_of
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

NAME = "static-minilm-l6-v1"
DIMENSION = 256
SIF = 1e-3  # a: tokens more frequent than this in running text count less than half
TEACHER_TOKENS = 128  # of a text, read by the teacher
TEACHER_BATCH = 3072  # tokens that it reads at once, about
STUDENT_TOKENS = 256  # of a text, read by the student in training
MOST_PASSAGES = 60_000  # that the teacher embeds
SEED = 7
EPOCHS = 6
BATCH = 1024
LEARNING_RATE = 3e-3
TEMPERATURE = 0.05
CONTRAST = 0.2  # weight of InfoNCE beside the teacher's cosine
HELD_OUT = 2000  # pairs for validation
OVERLAP_CHARACTERS = 80  # a passage that starts like an evaluation passage is left out


def main() -> None:
    """Run the three steps and write the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=existing_path)
    parser.add_argument("work", type=Path)
    default = Path(__file__).parents[1] / "qdrant_rerank" / "bundled" / NAME
    parser.add_argument("out", type=Path, nargs="?", help="the bundled one's folder, by default")
    parser.add_argument("--teachers", nargs="+", default=["minilm"], choices=["minilm", "e5"])
    parser.add_argument("--e5", type=existing_path, help="folder of e5-small-v2")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    if "e5" in given.teachers and given.e5 is None:
        parser.error("--teachers e5 needs --e5, the folder of e5-small-v2")
    if given.teachers != ["minilm"] and given.out is None:
        parser.error(
            "other teachers than the bundled embedder's need OUT_DIR, another folder than its"
        )
    given.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(given.threads)

    known = teachers(given.e5 or Path())
    kinds = {name: known[name] for name in given.teachers}
    tokenizer = Tokenizer.from_file(str(known["minilm"].folder / "tokenizer.json"))
    tokenizer.no_padding()
    queries, passages = training_pairs(given.data)
    print(f"{len(queries):,} pairs")
    query_ids = token_ids(tokenizer, queries)
    passage_ids = token_ids(tokenizer, passages)

    said = [vectors_of(kind, name, given.work, queries, passages) for name, kind in kinds.items()]
    token_vectors, query_targets, passage_targets = (np.hstack(x) for x in zip(*said, strict=True))
    held = query_targets[:HELD_OUT] @ passage_targets[:HELD_OUT].T
    print(f"teachers: held-out MRR {reciprocal_rank(torch.from_numpy(held)):.4f}")
    mean, basis = principal_axes(np.concatenate([query_targets, passage_targets]))
    weights = smooth_inverse_frequency(passage_ids, len(token_vectors))
    start = ((token_vectors - mean) @ basis) * weights[:, None]
    start /= np.linalg.norm(start, axis=1).mean()
    save(start, tokenizer, given.work / "distilled")
    fitted = fit(
        torch.from_numpy(start.astype(np.float32)),
        query_ids,
        passage_ids,
        torch.from_numpy((query_targets @ basis).astype(np.float32)),
        torch.from_numpy((passage_targets @ basis).astype(np.float32)),
    )
    save(fitted, tokenizer, given.out or default)


def training_pairs(data: Path) -> tuple[list[str], list[str]]:
    """Shuffled queries and their passages, without passages that an evaluation set holds too."""
    seen = {
        opening(f"{document.get('title') or ''} {document['text']}")
        for path in sorted(data.glob("eval/*/corpus.jsonl.gz"))
        if path.parent.name != "scifact"  # its training split shares the corpus, as published
        for document in records(path)
    } | {
        opening(document["text"])
        for path in sorted(data.glob("eval/*/corpus.jsonl.gz"))
        if path.parent.name != "scifact"
        for document in records(path)
    }
    pairs = [
        (record["query"], f"{record.get('title') or ''} {record['positive']}".strip())
        for path in sorted(data.glob("train/*.jsonl.gz"))
        for record in records(path)
        if opening(record["positive"]) not in seen
    ]
    order = np.random.default_rng(SEED).permutation(len(pairs))
    return [pairs[i][0] for i in order], [pairs[i][1] for i in order]


def records(path: Path) -> Iterator[dict[str, str]]:
    """The objects of a gzipped JSONL file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def opening(text: str) -> str:
    """What a text starts with, for the overlap check."""
    return "".join(c for c in text.lower() if c.isalnum())[:OVERLAP_CHARACTERS]


def token_ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Ids without special tokens, cut to what the student reads."""
    tokenizer.enable_truncation(STUDENT_TOKENS)
    return [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def cached(path: Path, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    """The array in a file, made first if it is not there."""
    if not path.is_file():
        began = time.perf_counter()
        made = make()
        unfinished = path.with_suffix(".part.npy")
        np.save(unfinished, made)
        unfinished.rename(path)
        print(f"{path.name}: {made.shape} in {time.perf_counter() - began:.0f} s")
    loaded: NDArray[np.float32] = np.load(path)
    return loaded


def vectors_of(
    kind: Kind, name: str, work: Path, queries: list[str], passages: list[str]
) -> tuple[NDArray[np.float32], ...]:
    """Return a teacher's vectors of tokens, queries and passages, each (n, 384), kept in ``work``.

    Those of a teacher that reads queries and passages with different openings are centred, each
    kind for itself: e5's vectors lie in a narrow cone.
    """
    whole = Tokenizer.from_file(str(kind.folder / "tokenizer.json"))
    whole.no_padding()
    tokens = cached(work / f"{name}-tokens.npy", lambda: token_vectors_of(kind, whole))
    asked = cached(
        work / f"{name}-queries.npy", lambda: teacher_vectors(kind, whole, queries, kind.query)
    )
    read = cached(
        work / f"{name}-passages.npy",
        lambda: teacher_vectors(kind, whole, passages[:MOST_PASSAGES], kind.passage),
    )
    if kind.query != kind.passage:
        asked, read = (
            F.normalize(torch.from_numpy(v - v.mean(0)), dim=1).numpy() for v in (asked, read)
        )
    return tokens, asked, read


@torch.inference_mode()
def token_vectors_of(kind: Kind, tokenizer: Tokenizer) -> NDArray[np.float32]:
    """The teacher's vector of every token alone: shape (vocabulary, 384)."""
    teacher = load_encoder(kind.folder)
    before, after = np.split(tokenizer.encode(kind.passage).ids, [-1])
    parts = []
    for tokens in torch.arange(teacher.words.num_embeddings).split(2048):
        ids = torch.cat(
            [
                torch.tensor(before).expand(len(tokens), -1),
                tokens[:, None],
                torch.tensor(after).expand(len(tokens), -1),
            ],
            1,
        )
        mask = torch.ones_like(ids)
        parts.append(mean_of(teacher.states(ids, mask, 0)[1], mask.float()).numpy())
    return np.concatenate(parts)


@torch.inference_mode()
def teacher_vectors(
    kind: Kind, tokenizer: Tokenizer, texts: list[str], opening: str
) -> NDArray[np.float32]:
    """The teacher's unit vector of every text, input order: shape (n, 384)."""
    teacher = load_encoder(kind.folder).to(torch.bfloat16)
    tokenizer.enable_truncation(TEACHER_TOKENS)
    encoded = [e.ids for e in tokenizer.encode_batch_fast([opening + text for text in texts])]
    order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
    vectors = np.zeros((len(texts), 384), dtype=np.float32)
    began, start = time.perf_counter(), 0
    while start < len(order):
        rows = order[start : start + TEACHER_BATCH // len(encoded[order[start]])]
        width = max(len(encoded[i]) for i in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(rows):
            ids[row, : len(encoded[i])] = torch.tensor(encoded[i])
            mask[row, : len(encoded[i])] = 1
        hidden = teacher.states(ids, mask, 0)[1]
        vectors[rows] = F.normalize(mean_of(hidden.float(), mask.float()), dim=-1).numpy()
        start += len(rows)
        if start // 6400 != (start - len(rows)) // 6400:
            print(f"  {start:,} of {len(texts):,}, {time.perf_counter() - began:.0f} s", flush=True)
    return vectors


def principal_axes(
    vectors: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean (384,) and the axes of largest variance (384, DIMENSION)."""
    mean = vectors.mean(axis=0)
    centred = (vectors - mean).astype(np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return mean, np.ascontiguousarray(axes[:, ::-1][:, :DIMENSION].astype(np.float32))


def smooth_inverse_frequency(texts: list[list[int]], vocabulary: int) -> NDArray[np.float32]:
    """Weight a / (a + p) of each token."""
    counts = np.bincount(
        np.concatenate([np.array(ids, dtype=np.int64) for ids in texts]), minlength=vocabulary
    )
    share = (counts + 1) / (counts.sum() + vocabulary)
    return (SIF / (SIF + share)).astype(np.float32)


def fit(
    start: Tensor,
    query_ids: list[list[int]],
    passage_ids: list[list[int]],
    query_targets: Tensor,
    passage_targets: Tensor,
) -> NDArray[np.float32]:
    """Token vectors after training: shape (vocabulary, DIMENSION)."""
    bag = torch.nn.EmbeddingBag.from_pretrained(start, mode="sum", freeze=False)
    optimizer = torch.optim.Adam(bag.parameters(), lr=LEARNING_RATE)
    rows = torch.arange(HELD_OUT, len(query_ids))
    held = torch.arange(HELD_OUT)
    steps = EPOCHS * (len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1
    )
    best, best_rank = start.numpy().copy(), validate(bag, query_ids, passage_ids, held)
    print(f"before: held-out MRR {best_rank:.4f}")
    for epoch in range(EPOCHS):
        shuffled = rows[torch.randperm(len(rows))]
        for first in range(0, len(rows) - BATCH + 1, BATCH):
            chosen = shuffled[first : first + BATCH]
            queries = pooled(bag, [query_ids[i] for i in chosen])
            passages = pooled(bag, [passage_ids[i] for i in chosen])
            teach = 1 - (queries * F.normalize(query_targets[chosen], dim=-1)).sum(-1).mean()
            known = chosen < len(passage_targets)
            teach = (
                teach
                + 1
                - (passages[known] * F.normalize(passage_targets[chosen[known]], dim=-1))
                .sum(-1)
                .mean()
            )
            contrast = F.cross_entropy(
                queries @ passages.T / TEMPERATURE, torch.arange(len(chosen)), label_smoothing=0.1
            )
            loss = teach + CONTRAST * contrast
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        rank = validate(bag, query_ids, passage_ids, held)
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}, held-out MRR {rank:.4f}", flush=True)
        if rank > best_rank:
            best, best_rank = bag.weight.detach().numpy().copy(), rank
    return best


def pooled(bag: torch.nn.EmbeddingBag, ids: list[list[int]]) -> Tensor:
    """Unit-length sums of token vectors: shape (n, DIMENSION)."""
    lengths = torch.tensor([0, *(len(item) for item in ids[:-1])])
    flat = torch.tensor([token for item in ids for token in item], dtype=torch.long)
    return F.normalize(bag(flat, lengths.cumsum(0)), dim=-1)


@torch.inference_mode()
def validate(
    bag: torch.nn.EmbeddingBag,
    query_ids: list[list[int]],
    passage_ids: list[list[int]],
    rows: Tensor,
) -> float:
    """Mean reciprocal rank of the own passage among all held-out ones."""
    scores = (
        pooled(bag, [query_ids[i] for i in rows]) @ pooled(bag, [passage_ids[i] for i in rows]).T
    )
    return reciprocal_rank(scores)


def reciprocal_rank(scores: Tensor) -> float:
    """Mean reciprocal rank of the diagonal's entry in its row."""
    ranks = (scores >= scores.diagonal().unsqueeze(1)).sum(1)
    return float((1.0 / ranks).mean())


def save(vectors: NDArray[np.float32], tokenizer: Tokenizer, out: Path) -> None:
    """Write int8 vectors, their scales, the tokenizer and the configuration."""
    out.mkdir(parents=True, exist_ok=True)
    scales = np.maximum(np.abs(vectors).max(axis=1), 1e-9) / 127
    np.save(out / "vectors.npy", np.rint(vectors / scales[:, None]).astype(np.int8))
    np.save(out / "scales.npy", scales.astype(np.float32))
    tokenizer.no_truncation()
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    config = {"name": out.name, "dimension": int(vectors.shape[1]), "model_type": "static"}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
