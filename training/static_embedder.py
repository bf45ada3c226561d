"""Make the bundled static embedder from all-MiniLM-L6-v2.

    python training/static_embedder.py DATA_DIR WORK_DIR OUT_DIR [--config training/config.toml]

Uses the pool, the bi-encoder's vectors and the negatives that ``pipeline.py`` keeps in WORK_DIR,
and makes them where they are not there yet.

1. *Distil* (model2vec): every token alone through the bi-encoder, mean-pooled; PCA on its sentence
   vectors; weight a / (a + p(token)), the smooth inverse frequency of Arora et al. 2017.
2. *Fit* (tokenlearn, and the static models of sentence-transformers): move the token vectors so
   that the mean of a text's tokens points where the bi-encoder's vector points, and so that a query
   is nearer to its answer than to the other answers of the batch and to hard negatives (InfoNCE).
3. *Quantise*: int8, one scale a token.
"""

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from data import Pool, load_pool
from groups import Tokens, tokenize
from mine import NONE, Mined, embedded, mine
from minilm import load_teacher, mean_pooled, model_folder
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor


def main() -> None:
    """Run the three steps and write the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "config.toml")
    given = parser.parse_args()
    config = tomllib.loads(given.config.read_text())
    settings = config["static"]
    given.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config["seed"])
    pool = load_pool(given.data, config["data"])
    mined = mine(pool, given.work, config["mining"])
    texts = [query.text for query in pool.queries] + pool.passages
    targets = embedded(texts, given.work / "vectors.pt", config["mining"]["tokens"]).float()
    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokens = tokenize(pool, tokenizer, settings["tokens"], settings["tokens"])
    mean, basis = principal_axes(targets.numpy(), settings["dimension"])
    weights = smooth_inverse_frequency(tokens.passages, tokenizer.get_vocab_size(), settings["sif"])
    start = ((token_vectors() - mean) @ basis) * weights[:, None]
    start /= np.linalg.norm(start, axis=1).mean()
    fitted = Fit(pool, mined, tokens, targets @ torch.from_numpy(basis), settings).run(
        torch.from_numpy(start.astype(np.float32)), config["seed"]
    )
    save(fitted, tokenizer, given.out, settings["name"])


@torch.inference_mode()
def token_vectors() -> NDArray[np.float32]:
    """The bi-encoder's vector of every token alone: shape (vocabulary, 384)."""
    teacher = load_teacher(model_folder())
    count = teacher.words.num_embeddings
    cls, sep = 101, 102
    parts = []
    for first in range(0, count, 2048):
        tokens = torch.arange(first, min(first + 2048, count))
        ids = torch.stack([torch.full_like(tokens, cls), tokens, torch.full_like(tokens, sep)], 1)
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
    texts: list[NDArray[np.int32]], vocabulary: int, a: float
) -> NDArray[np.float32]:
    """Weight a / (a + p) of each token."""
    counts = np.bincount(np.concatenate(texts), minlength=vocabulary)
    share = (counts + 1) / (counts.sum() + vocabulary)
    return (a / (a + share)).astype(np.float32)


class Fit:
    """Moves the token vectors; ``targets`` are the bi-encoder's, queries first, (n, dimension)."""

    def __init__(
        self, pool: Pool, mined: Mined, tokens: Tokens, targets: Tensor, settings: dict[str, Any]
    ) -> None:
        self.pool = pool
        self.mined = mined
        self.tokens = tokens
        self.targets = F.normalize(targets, dim=-1)
        self.settings = settings
        held = [query.held_out for query in pool.queries]
        self.rows = np.flatnonzero(~np.array(held))
        self.held = np.flatnonzero(held)

    def run(self, start: Tensor, seed: int) -> NDArray[np.float32]:
        """The best token vectors by held-out rank: shape (vocabulary, dimension)."""
        rng = np.random.default_rng(seed)
        batch, epochs = self.settings["batch"], self.settings["epochs"]
        bag = torch.nn.EmbeddingBag.from_pretrained(start.clone(), mode="sum", freeze=False)
        rate = self.settings["learning_rate"]
        optimizer = torch.optim.Adam(bag.parameters(), lr=rate)
        steps = epochs * (len(self.rows) // batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rate, total_steps=steps, pct_start=0.1
        )
        best, best_rank = start.numpy(), self.validate(bag)
        print(f"before: held-out MRR {best_rank:.4f}", flush=True)
        for epoch in range(epochs):
            shuffled = rng.permutation(self.rows)
            for first in range(0, len(shuffled) - batch + 1, batch):
                loss = self.loss(bag, shuffled[first : first + batch], rng)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            rank = self.validate(bag)
            print(f"epoch {epoch + 1}: loss {loss.item():.4f}, held-out MRR {rank:.4f}", flush=True)
            if rank > best_rank:
                best, best_rank = bag.weight.detach().numpy().copy(), rank
        return best

    def loss(
        self, bag: torch.nn.EmbeddingBag, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> Tensor:
        """Distance to the bi-encoder's vectors, and InfoNCE."""
        answers = [int(rng.choice(self.pool.queries[row].answers)) for row in rows]
        negatives = [int(rng.choice(self.mined.dense[row])) for row in rows]
        queries = pooled(bag, [self.tokens.queries[row] for row in rows])
        passages = pooled(bag, [self.tokens.passages[row] for row in answers])
        hard = pooled(bag, [self.tokens.passages[row] for row in negatives if row != NONE])
        offset = len(self.pool.queries)
        teach = 2 - (queries * self.targets[rows]).sum(-1).mean()
        teach = teach - (passages * self.targets[[offset + row for row in answers]]).sum(-1).mean()
        near = queries @ torch.cat([passages, hard]).T / self.settings["temperature"]
        contrast = F.cross_entropy(near, torch.arange(len(rows)), label_smoothing=0.1)
        loss: Tensor = teach + self.settings["contrast"] * contrast
        return loss

    @torch.inference_mode()
    def validate(self, bag: torch.nn.EmbeddingBag) -> float:
        """Mean reciprocal rank of the first answer among those of all held-out queries."""
        queries = pooled(bag, [self.tokens.queries[row] for row in self.held])
        answers = [self.pool.queries[row].answers[0] for row in self.held]
        scores = queries @ pooled(bag, [self.tokens.passages[row] for row in answers]).T
        ranks = (scores >= scores.diagonal().unsqueeze(1)).sum(1)
        return float((1.0 / ranks).mean())


def pooled(bag: torch.nn.EmbeddingBag, ids: list[NDArray[np.int32]]) -> Tensor:
    """Unit-length sums of token vectors: shape (n, dimension)."""
    lengths = torch.tensor([0, *(len(item) for item in ids[:-1])])
    flat = torch.from_numpy(np.concatenate(ids).astype(np.int64))
    return F.normalize(bag(flat, lengths.cumsum(0)), dim=-1)


def save(vectors: NDArray[np.float32], tokenizer: Tokenizer, out: Path, name: str) -> None:
    """Write int8 vectors, their scales, the tokenizer and the configuration."""
    out.mkdir(parents=True, exist_ok=True)
    scales = np.maximum(np.abs(vectors).max(axis=1), 1e-9) / 127
    np.save(out / "vectors.npy", np.rint(vectors / scales[:, None]).astype(np.int8))
    np.save(out / "scales.npy", scales.astype(np.float32))
    tokenizer.no_truncation()
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    config = {"name": name, "dimension": int(vectors.shape[1]), "model_type": "static"}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
