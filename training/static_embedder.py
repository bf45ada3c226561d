"""Make the bundled static embedder from all-MiniLM-L6-v2.

    python training/static_embedder.py DATA_DIR WORK_DIR OUT_DIR [--config FILE]

The pool, its vectors and its hard negatives are those of ``pipeline.py``, read from WORK_DIR where
that left them. The same seed gives the same vectors.

1. *Distil* (model2vec): every token alone through the teacher, mean-pooled; PCA on the teacher's
   vectors of the pool; weight a / (a + p(token)), the smooth inverse frequency (Arora et al. 2017).
2. *Fit* (tokenlearn, and the static models of sentence-transformers): move the token vectors so
   that the sum of a text's tokens points where the teacher's vector points, and so that a query is
   nearer to its passage than to the other passages of the batch and to a hard negative (InfoNCE).
3. *Quantise*: int8, one scale a token.
"""

import argparse
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from data import Pool, load_pool
from mine import NONE, Mined, embedded, mine
from minilm import load_teacher, mean_pooled, model_folder
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

CONFIG = Path(__file__).parent / "config.toml"
CLS, SEP = 101, 102


@dataclass(frozen=True, slots=True)
class Texts:
    """The pool as the embedder sees it.

    Attributes:
        ids: of each text, without special tokens; queries first, then passages.
        vectors: the teacher's of each text, on the kept axes, unit length: (n, dimension).
        queries: how many of the texts are queries.
    """

    ids: list[NDArray[np.int64]]
    vectors: Tensor
    queries: int


def main() -> None:
    """Run the three steps and write the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data", "work", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--config", type=Path, default=CONFIG)
    given = parser.parse_args()
    config = tomllib.loads(given.config.read_text())
    given.work.mkdir(parents=True, exist_ok=True)
    pool = load_pool(given.data, config["data"])
    mined = mine(pool, given.work, config["mining"])
    save(make(pool, mined, given.work, config), given.out)


def make(pool: Pool, mined: Mined, work: Path, config: dict[str, Any]) -> NDArray[np.float32]:
    """Token vectors: (vocabulary, dimension)."""
    settings = config["static"]
    torch.manual_seed(config["seed"])
    texts = [query.text for query in pool.queries] + pool.passages
    vectors = embedded(texts, work / "vectors.pt", config["mining"]["tokens"]).float().numpy()
    mean, axes = principal_axes(vectors, settings["dimension"])
    tokenizer = new_tokenizer()
    tokenizer.enable_truncation(settings["tokens"])
    encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    ids = [np.array(e.ids, dtype=np.int64) for e in encoded]
    start = (distil_tokens() - mean) @ axes
    if settings["frequency"]:
        weights = smooth_inverse_frequency(ids, len(start), settings["frequency"])
        start *= weights[:, None]
    start /= np.linalg.norm(start, axis=1).mean()
    targets = F.normalize(torch.from_numpy(vectors @ axes), dim=-1)
    seen = Texts(ids, targets, len(pool.queries))
    return fit(torch.from_numpy(start), seen, pool, mined, settings, config["seed"])


@torch.inference_mode()
def distil_tokens() -> NDArray[np.float32]:
    """The teacher's vector of every token alone: (vocabulary, 384)."""
    teacher = load_teacher(model_folder())
    parts = []
    for tokens in torch.arange(teacher.words.num_embeddings).split(2048):
        ids = torch.stack([torch.full_like(tokens, CLS), tokens, torch.full_like(tokens, SEP)], 1)
        parts.append(mean_pooled(teacher, ids, torch.ones_like(ids)).numpy())
    return np.concatenate(parts)


def principal_axes(
    vectors: NDArray[np.float32], dimension: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean (384,) and the axes of largest variance (384, dimension)."""
    mean = vectors.mean(axis=0)
    centred = (vectors - mean).astype(np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return mean, np.ascontiguousarray(axes[:, ::-1][:, :dimension].astype(np.float32))


def smooth_inverse_frequency(
    texts: list[NDArray[np.int64]], vocabulary: int, a: float
) -> NDArray[np.float32]:
    """Weight a / (a + p) of each token: (vocabulary,)."""
    counts = np.bincount(np.concatenate(texts), minlength=vocabulary)
    share = (counts + 1) / (counts.sum() + vocabulary)
    return (a / (a + share)).astype(np.float32)


def fit(
    start: Tensor, texts: Texts, pool: Pool, mined: Mined, settings: dict[str, Any], seed: int
) -> NDArray[np.float32]:
    """Token vectors after training: (vocabulary, dimension)."""
    bag = torch.nn.EmbeddingBag.from_pretrained(start, mode="sum", freeze=False)
    optimizer = torch.optim.Adam(bag.parameters(), lr=settings["learning_rate"])
    held = np.array([row for row, query in enumerate(pool.queries) if query.held_out])
    rows = np.array([row for row, query in enumerate(pool.queries) if not query.held_out])
    batch = settings["batch"]
    steps = settings["epochs"] * (len(rows) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings["learning_rate"], total_steps=steps, pct_start=0.1
    )
    print(f"before: held-out MRR {validate(bag, texts, pool, held):.4f}")
    step = 0
    for epoch in range(settings["epochs"]):
        for chosen, answers, negatives in draws(rows, pool, mined, batch, [seed, epoch]):
            queries = pooled(bag, texts, chosen)
            passages = pooled(bag, texts, np.concatenate([answers, negatives]) + texts.queries)
            taught = torch.cat([queries, passages])
            wanted = np.concatenate([chosen, np.concatenate([answers, negatives]) + texts.queries])
            teach = 1 - (taught * texts.vectors[wanted]).sum(-1).mean()
            logits = queries @ passages.T / settings["temperature"]
            logits = logits.masked_fill(repeats(chosen, answers, negatives, pool), -torch.inf)
            contrast = F.cross_entropy(logits, torch.arange(len(chosen)))
            loss = teach + settings["contrast"] * contrast
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
        rank = validate(bag, texts, pool, held)
        print(
            f"epoch {epoch + 1} of {settings['epochs']}: loss {loss.item():.4f}, "
            f"held-out MRR {rank:.4f}",
            flush=True,
        )
    fitted: NDArray[np.float32] = bag.weight.detach().numpy()
    return fitted


def draws(
    rows: NDArray[np.int64], pool: Pool, mined: Mined, batch: int, seed: list[int]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """An epoch's batches: rows of queries, of an answer each, and of a hard negative each."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(rows)
    for first in range(0, len(rows) - batch + 1, batch):
        chosen = shuffled[first : first + batch]
        answers = np.array([rng.choice(pool.queries[row].answers) for row in chosen])
        negatives = []
        for row in chosen:
            hard = np.concatenate([mined.dense[row], mined.lexical[row]])
            hard = hard[hard != NONE]
            negatives.append(rng.choice(hard) if len(hard) else rng.integers(len(pool.passages)))
        yield chosen, answers, np.array(negatives)


def repeats(
    chosen: NDArray[np.int64], answers: NDArray[np.int64], negatives: NDArray[np.int64], pool: Pool
) -> Tensor:
    """Where a passage of the batch answers another of its queries, too: (batch, 2 * batch)."""
    passages = np.concatenate([answers, negatives])
    mask = np.zeros((len(chosen), len(passages)), dtype=bool)
    for at, row in enumerate(chosen):
        mask[at] = np.isin(passages, pool.queries[row].answers)
        mask[at, at] = False
    return torch.from_numpy(mask)


def pooled(bag: torch.nn.EmbeddingBag, texts: Texts, rows: NDArray[np.int64]) -> Tensor:
    """Unit-length sums of the texts' token vectors: (n, dimension)."""
    ids = [texts.ids[row] for row in rows]
    starts = np.cumsum([0, *(len(item) for item in ids[:-1])])
    flat = torch.from_numpy(np.concatenate(ids))
    return F.normalize(bag(flat, torch.from_numpy(starts)), dim=-1)


@torch.inference_mode()
def validate(
    bag: torch.nn.EmbeddingBag, texts: Texts, pool: Pool, held: NDArray[np.int64]
) -> float:
    """Mean reciprocal rank of a held-out query's answer among all passages."""
    everything = np.arange(texts.queries, len(texts.ids))
    passages = torch.cat([pooled(bag, texts, rows) for rows in np.array_split(everything, 50)])
    scores = pooled(bag, texts, held) @ passages.T
    best = torch.stack([scores[at, pool.queries[row].answers].max() for at, row in enumerate(held)])
    ranks = (scores >= best.unsqueeze(1)).sum(1)
    return float((1.0 / ranks).mean())


def new_tokenizer() -> Tokenizer:
    """The teacher's, neither padding nor cutting."""
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def save(vectors: NDArray[np.float32], out: Path) -> None:
    """Write int8 vectors, their scales, the tokenizer and the configuration."""
    out.mkdir(parents=True, exist_ok=True)
    scales = np.maximum(np.abs(vectors).max(axis=1), 1e-9) / 127
    np.save(out / "vectors.npy", np.rint(vectors / scales[:, None]).astype(np.int8))
    np.save(out / "scales.npy", scales.astype(np.float32))
    new_tokenizer().save(str(out / "tokenizer.json"), pretty=False)
    config = {"name": out.name, "dimension": int(vectors.shape[1]), "model_type": "static"}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
