"""A trunk of half the depth: every second layer of e5-small-v2, taught by the whole of it.

    python training/student.py DATA_DIR E5_DIR WORK_DIR [--set train.steps=100] [--name student]

No labels decide: the student learns the teacher's states of every token, its vectors, and how a
query's cosines spread over the passages of a step, BM25's near ones among them. Resumable; a
step's draw depends on the seed and its number alone. The result, ``WORK_DIR/NAME``, is a folder
like E5_DIR, for ``transplant.py``.
"""

import argparse
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from arguments import existing_path
from corpus import as_query, token_ids
from data import Query, load_pool
from e5_pipeline import keep_memory, read_config
from e5_train import save
from encoders import PARTS, Encoder, load_encoder, pooled, teachers, unseen
from mine import NONE, bm25_best
from numpy.typing import NDArray
from safetensors.torch import save_file
from states import padded
from tokenizers import Tokenizer
from torch import Tensor, nn

CONFIG = Path(__file__).with_suffix(".toml")
STEP = 8  # widths are multiples of it, so that kernels are reused
BATCH_TOKENS = 1536  # that are read at once
PREFIX = 3  # tokens before a text: [CLS] and "query:" or "passage:"
LEAST_PART, MOST_PART = 3, 40  # tokens of a part of a passage
WATCHED = 80  # held-out queries that are looked at
CHECKPOINT_EVERY, WATCH_EVERY = 50, 300  # steps

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Texts:
    """What is read.

    Attributes:
        queries: with the rows of the passages that answer.
        asked: token ids of the queries, with what is put before them.
        read: likewise of the passages.
        near: rows of passages that BM25 finds for a query and that do not answer, NONE where there
            are fewer: (queries, n), int32.
        chances: of a query to be drawn, (queries,).
    """

    queries: list[Query]
    asked: list[Ids]
    read: list[Ids]
    near: NDArray[np.int32]
    chances: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Said:
    """What an encoder says of several texts, batch by batch.

    Attributes:
        tokens: of each kept layer, states of all tokens, (tokens, WIDTH), float32.
        vectors: unit vectors, in the order of the texts, (n, WIDTH), float32.
    """

    tokens: list[Tensor]
    vectors: Tensor


def main() -> None:
    """Train, or go on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data", "e5"):
        parser.add_argument(name, type=existing_path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--config", type=existing_path, default=CONFIG)
    parser.add_argument("--name", default="student", help="of the run's files")
    parser.add_argument("--set", nargs="*", default=[], help="train.steps=100, for trials")
    parser.add_argument(
        "--start", type=existing_path, help="an earlier student, to go on from its weights"
    )
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_memory()
    config = read_config([given.config], given.set)
    given.work.mkdir(parents=True, exist_ok=True)
    texts = read_texts(given.data, given.e5, given.work, config)
    teacher = load_encoder(given.e5).to(torch.bfloat16)
    student = halved(teacher, config["layers"])
    if given.start:
        student.load_state_dict(load_encoder(given.start).state_dict())
    train(teacher, student, texts, given.work, given.name, config)
    write_folder(student, given.e5, given.work / given.name)


def read_texts(data: Path, e5: Path, work: Path, config: dict[str, Any]) -> Texts:
    """All queries and passages of the training sets, tokenised."""
    settings, weights = config["data"], config["train"]["weights"]
    pool = load_pool(data, settings)
    kind = teachers(e5)["e5"]
    tokenizer = Tokenizer.from_file(str(e5 / "tokenizer.json"))
    asked = [as_query(kind, query.text) for query in pool.queries]
    read = [kind.passage + passage for passage in pool.passages]
    stored = work / "near.npy"
    if not stored.is_file():
        found = bm25_best([q.text for q in pool.queries], pool.passages, 2 * settings["near"])
        near = np.full((len(found), settings["near"]), NONE, dtype=np.int32)
        for row, query in enumerate(pool.queries):
            kept = [c for c in found[row] if c != NONE and c not in query.answers]
            near[row, : len(kept)] = kept[: settings["near"]]
        np.save(stored, near)
    chances = np.array([0.0 if q.held_out else weights.get(q.source, 1.0) for q in pool.queries])
    return Texts(
        pool.queries,
        token_ids(tokenizer, asked, settings["query_tokens"]),
        token_ids(tokenizer, read, settings["long_tokens"]),
        np.load(stored),
        chances / chances.sum(),
    )


def train(
    teacher: Encoder,
    student: Encoder,
    texts: Texts,
    work: Path,
    name: str,
    config: dict[str, Any],
) -> None:
    """All steps; the student ends with averaged weights, in float32."""
    settings = config["train"]
    masters = {k: v.detach().float().clone() for k, v in student.layers.named_parameters()}
    student.to(torch.bfloat16)
    parameters = dict(student.layers.named_parameters())
    average = {key: torch.zeros_like(value) for key, value in masters.items()}
    optimizer = torch.optim.AdamW(
        masters.values(), settings["rate"], (0.9, 0.98), weight_decay=settings["decay"], fused=True
    )
    first = averaged = 0
    checkpoint = work / f"{name}.part.pt"
    if checkpoint.is_file():
        stored = torch.load(checkpoint)
        first, averaged, average = stored["step"], stored["averaged"], stored["average"]
        for key, value in stored["masters"].items():
            masters[key].copy_(value)
        optimizer.load_state_dict(stored["optimizer"])
    watch = Watch(teacher, texts, config)
    steps, losses, began = settings["steps"], [], time.perf_counter()
    for step in range(first, steps):
        with torch.no_grad():
            for key, value in parameters.items():
                value.copy_(masters[key])
        if step % WATCH_EVERY == 0:
            print(f"{name} {step:,}: {watch.figures(student)}", flush=True)
        left = (steps - step) / steps
        for group in optimizer.param_groups:
            group["lr"] = settings["rate"] * min((step + 1) / settings["warm_up"], left)
        student.zero_grad(set_to_none=True)
        drawn, asked = draw(texts, step, config)
        own, parts = loss(teacher, student, drawn, asked, left, config)
        own.backward()
        losses.append(parts)
        for key, value in parameters.items():
            masters[key].grad = value.grad.float()
        norm = nn.utils.clip_grad_norm_(list(masters.values()), 1.0)
        optimizer.step()
        if left <= settings["averaged"] and step % 4 == 3:
            averaged += 1
            for key, value in masters.items():
                average[key].add_((value.detach() - average[key]) / averaged)
        if step % 25 == 24:
            seconds = (time.perf_counter() - began) / (step + 1 - first)
            shown = ", ".join(f"{value:.4f}" for value in np.mean(losses[-25:], axis=0))
            print(
                f"{name} {step + 1:,} of {steps:,}: {shown}; gradient {float(norm):.2f}, "
                f"{seconds:.2f} s a step, {seconds * (steps - step - 1) / 60:.0f} min left",
                flush=True,
            )
        if step % CHECKPOINT_EVERY == CHECKPOINT_EVERY - 1:
            content = {"step": step + 1, "averaged": averaged, "average": average}
            save(checkpoint, content | {"masters": masters, "optimizer": optimizer.state_dict()})
    with torch.no_grad():
        for key, value in parameters.items():
            value.copy_(average[key])
    print(f"{name}, averaged: {watch.figures(student)}", flush=True)
    student.float()
    student.layers.load_state_dict(average)


def halved(teacher: Encoder, kept: list[int]) -> Encoder:
    """The layers of these numbers, counted from 1, and all else, in float32; the rest is frozen."""
    student = Encoder(len(kept))
    found = {k: v for k, v in teacher.state_dict().items() if not k.startswith("layers.")}
    for number, layer in enumerate(kept):
        for key, value in teacher.layers[layer - 1].state_dict().items():
            found[f"layers.{number}.{key}"] = value
    student.load_state_dict(found)
    student.requires_grad_(False)
    student.layers.requires_grad_(True)
    return student


def draw(texts: Texts, step: int, config: dict[str, Any]) -> tuple[list[Ids], int]:
    """A step's texts, its queries first, and how many these are."""
    settings, rng = config["train"], np.random.default_rng([config["seed"], step])
    rows = rng.choice(len(texts.queries), settings["queries"], replace=False, p=texts.chances)
    passages: list[int] = []
    for row in rows:
        near = [place for place in texts.near[row] if place != NONE]
        passages.append(rng.choice(texts.queries[row].answers))
        passages += rng.permutation(near)[: settings["near"]].tolist()
    long = rng.random() < settings["long_steps"]
    most = config["data"]["long_tokens" if long else "passage_tokens"]
    passages = list(dict.fromkeys(passages))
    read = [cut(texts.read[row], most) for row in passages]
    parts = []
    for row in rng.integers(len(texts.read), size=settings["fragments"]):
        before = texts.asked[0] if rng.random() < 0.5 else texts.read[0]
        whole = texts.read[row]
        size = int(rng.integers(LEAST_PART, MOST_PART + 1))
        start = int(rng.integers(PREFIX, max(PREFIX + 1, len(whole) - size)))
        parts.append(np.concatenate([before[:PREFIX], whole[start:-1][:size], whole[-1:]]))
    return [texts.asked[row] for row in rows] + read + parts, len(rows)


def cut(ids: Ids, most: int) -> Ids:
    """At most so many tokens, the last one of them [SEP]."""
    return ids if len(ids) <= most else np.concatenate([ids[: most - 1], ids[-1:]])


def loss(
    teacher: Encoder,
    student: Encoder,
    drawn: list[Ids],
    asked: int,
    left: float,
    config: dict[str, Any],
) -> tuple[Tensor, list[float]]:
    """Of a step, and its parts: states, vectors, lower layers, distribution."""
    settings, kept = config["train"], config["layers"]
    ours_kept = list(range(1, len(kept) + 1))
    # The lower layers are guided in the first half alone.
    guided = settings["lower"] * max(0.0, 2 * left - 1)
    if not guided:
        kept, ours_kept = kept[-1:], ours_kept[-1:]
    with torch.inference_mode():
        right = said(teacher, drawn, kept)
    ours = said(student, drawn, ours_kept)
    lower = [missed(a, b) for a, b in zip(ours.tokens[:-1], right.tokens[:-1], strict=True)]
    found = [
        missed(ours.tokens[-1], right.tokens[-1]),
        missed(ours.vectors, right.vectors),
        torch.stack(lower).mean() if lower else torch.zeros(()),
        spread(ours.vectors, right.vectors, asked, settings["sharpness"]),
    ]
    shares = settings["states"], settings["vectors"], guided, settings["spread"]
    total = torch.stack([share * part for share, part in zip(shares, found, strict=True)]).sum()
    return total, [part.item() for part in found]


def said(encoder: Encoder, texts: list[Ids], kept: list[int]) -> Said:
    """States after the layers of these numbers, and vectors."""
    lengths = np.array([len(text) for text in texts])
    order = np.argsort(lengths, kind="stable")[::-1]
    tokens: list[list[Tensor]] = [[] for _ in kept]
    vectors, start = [], 0
    while start < len(order):
        width = -(-int(lengths[order[start]]) // STEP) * STEP
        rows = order[start : start + max(1, BATCH_TOKENS // width)]
        ids, mask = padded([texts[row] for row in rows], width)
        x = encoder.embed(ids, torch.arange(width))
        hidden_from = unseen(mask.bool()[:, None, None, :], x.dtype)
        there = mask.flatten().nonzero().squeeze(1)
        for place, layer in enumerate(encoder.layers, 1):
            x = layer(x, hidden_from)
            if place in kept:
                tokens[kept.index(place)].append(x.flatten(0, 1).index_select(0, there).float())
        vectors.append(F.normalize(pooled(x.float(), mask.float()), dim=1))
        start += len(rows)
    back = torch.from_numpy(np.argsort(order))
    return Said([torch.cat(several) for several in tokens], torch.cat(vectors)[back])


def missed(ours: Tensor, right: Tensor) -> Tensor:
    """Share of the variance of ``right`` that ``ours`` lacks: both (n, WIDTH)."""
    return (ours - right).square().sum() / (right - right.mean(0)).square().sum()


def spread(ours: Tensor, right: Tensor, asked: int, sharpness: float) -> Tensor:
    """Divergence of the queries' cosines with all other texts, as distributions."""
    own, wanted = (
        torch.log_softmax(sharpness * (v[:asked] @ v[asked:].T), dim=1) for v in (ours, right)
    )
    return (wanted.exp() * (wanted - own)).sum(1).mean()


class Watch:
    """Held-out queries with their candidates, read by the teacher once."""

    def __init__(self, teacher: Encoder, texts: Texts, config: dict[str, Any]) -> None:
        rows = [row for row, q in enumerate(texts.queries) if q.held_out]
        rows = np.random.default_rng(7).permutation(rows)[:WATCHED].tolist()
        self.asked = len(rows)
        self.lists = [
            [texts.queries[row].answers[0], *(r for r in texts.near[row] if r != NONE)]
            for row in rows
        ]
        most = config["data"]["passage_tokens"]
        self.texts = [texts.asked[row] for row in rows]
        self.texts += [cut(texts.read[row], most) for listed in self.lists for row in listed]
        with torch.inference_mode():
            self.right = said(teacher, self.texts, [len(teacher.layers)])
        self.scores = self._scores(self.right.vectors)

    @torch.inference_mode()
    def figures(self, student: Encoder) -> str:
        """How near the student is."""
        ours = said(student, self.texts, [len(student.layers)])
        scores = self._scores(ours.vectors)
        states = F.cosine_similarity(ours.tokens[0], self.right.tokens[0]).mean()
        vectors = (ours.vectors * self.right.vectors).sum(1).mean()
        both = [(a, b) for a, b in zip(scores, self.scores, strict=True) if len(a) > 2]
        alike = np.mean([np.corrcoef(a, b)[0, 1] for a, b in both])
        ranks = [
            np.mean([1 / (1 + (s[1:] >= s[0]).sum()) for s in v]) for v in zip(*both, strict=True)
        ]
        return (
            f"cosine of states {states:.4f}, of vectors {vectors:.4f}; missed "
            f"{missed(ours.tokens[0], self.right.tokens[0]):.4f}, "
            f"{missed(ours.vectors, self.right.vectors):.4f}; correlation of a query's cosines "
            f"{alike:.4f}; reciprocal rank {ranks[0]:.4f}, the teacher's {ranks[1]:.4f}"
        )

    def _scores(self, vectors: Tensor) -> list[NDArray[np.float32]]:
        found, at = [], self.asked
        for row, listed in enumerate(self.lists):
            found.append((vectors[at : at + len(listed)] @ vectors[row]).numpy())
            at += len(listed)
        return found


def write_folder(student: Encoder, e5: Path, folder: Path) -> None:
    """The student in the layout of the published trunk."""
    folder.mkdir(exist_ok=True)
    state = student.state_dict()
    stored = {
        "embeddings.word_embeddings.weight": state["words.weight"],
        "embeddings.position_embeddings.weight": state["positions.weight"],
        "embeddings.token_type_embeddings.weight": state["types.weight"],
        "embeddings.LayerNorm.weight": state["norm.weight"],
        "embeddings.LayerNorm.bias": state["norm.bias"],
    }
    for number in range(len(student.layers)):
        for ours, theirs in PARTS.items():
            for kind in ("weight", "bias"):
                name = f"encoder.layer.{number}.{theirs}.{kind}"
                stored[name] = state[f"layers.{number}.{ours}.{kind}"]
    save_file(
        {name: value.contiguous() for name, value in stored.items()}, folder / "model.safetensors"
    )
    config = json.loads((e5 / "config.json").read_text())
    config["num_hidden_layers"] = len(student.layers)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    shutil.copyfile(e5 / "tokenizer.json", folder / "tokenizer.json")


if __name__ == "__main__":
    main()
