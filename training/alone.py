"""Fit the head that scores by the scalars alone, on whole passages.

The branches are trained on pairs that are cut short, with layers that attend across the pair. What
these learn is partly the manner of the training sets: on other sets, a head that sees the scalars
alone ranks better, and most of the gain stays when a share of the other head is mixed in. The head
is small, so it is fitted on scalars that are computed once, of passages in full length and of the
candidates that recall would bring.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from groups import Sampler, Tokens, micro_batches
from model import Branches, ScalarHead
from torch import Tensor
from train import Trainer, save

PROGRESS_EVERY = 100  # micro-batches


@dataclass(frozen=True, slots=True)
class Groups:
    """Scalars of pairs, and the rows of each group's.

    Attributes:
        scalars: (n, SCALARS), float32.
        rows: (groups, size); the first of a row is the pair that answers.
    """

    scalars: Tensor
    rows: Tensor


def fit_alone(
    trainer: Trainer, branches: Branches, tokens: Tokens, settings: dict[str, Any]
) -> ScalarHead:
    """The head; kept in the trainer's folder and read from there.

    Args:
        trainer: with the trunk of these branches.
        branches: trained.
        tokens: of the pool, passages in full length.
        settings: ``[alone]`` of the configuration.
    """
    fits, hidden = settings["fits"], settings["hidden"]
    head = ScalarHead(fits * hidden)
    stored = trainer.work / "alone.pt"
    if not stored.is_file():
        groups = scalars_of_groups(trainer, branches, tokens, settings, stored.with_suffix(".npz"))
        head.standardise(groups.scalars)
        parts = [fit(head, groups, settings, seed) for seed in range(fits)]
        head.load_mean(parts)
        save(stored, head.state_dict())
    head.load_state_dict(torch.load(stored))
    return head.eval()


@torch.no_grad()
def scalars_of_groups(
    trainer: Trainer, branches: Branches, tokens: Tokens, settings: dict[str, Any], stored: Path
) -> Groups:
    """Draw groups and compute their pairs' scalars; kept in a file."""
    sampler = Sampler(
        trainer.pool, trainer.mined, trainer.weights, settings["negatives"], trainer.seed
    )
    drawn = sampler.step(settings["draw"], settings["groups"], settings["dense_negatives"])
    pairs = [(query, passage) for query, rows in drawn for passage in rows]
    rows = torch.arange(len(pairs)).view(len(drawn), -1)
    if not stored.is_file():
        rng = np.random.default_rng([trainer.seed, settings["draw"]])
        batches = micro_batches(tokens, pairs, settings["tokens"], trainer.device, rng)
        found = np.zeros((len(pairs), len(branches.shift)), dtype=np.float32)
        for number, batch in enumerate(batches):
            _, top, exact = trainer.trunk(batch.ids, batch.mask, batch.types)
            scalars = branches.scalars(top, exact, batch.mask, batch.types)
            found[batch.rows] = scalars[: len(batch.rows)].cpu().numpy()
            if number % PROGRESS_EVERY == 0:
                print(f"  scalars of {number:,} of {len(batches):,} batches", flush=True)
        unfinished = stored.with_suffix(".part.npz")
        np.savez(unfinished, scalars=found)
        unfinished.rename(stored)
    with np.load(stored) as kept:
        return Groups(torch.from_numpy(kept["scalars"]), rows)


def fit(head: ScalarHead, groups: Groups, settings: dict[str, Any], seed: int) -> ScalarHead:
    """One head by cross-entropy in the group, with the standardisation of ``head``."""
    torch.manual_seed(seed)
    made = ScalarHead(settings["hidden"])
    made.shift.copy_(head.shift)
    made.scale.copy_(head.scale)
    steps = settings["epochs"] * len(groups.rows) // settings["groups_a_step"]
    optimizer = torch.optim.AdamW(
        made.parameters(), settings["learning_rate"], weight_decay=settings["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings["learning_rate"], total_steps=steps, pct_start=0.1
    )
    answer = torch.zeros(settings["groups_a_step"], dtype=torch.long)
    for _ in range(steps):
        chosen = groups.rows[torch.randint(len(groups.rows), (len(answer),))]
        logits = made(groups.scalars[chosen.flatten()], settings["dropout"]).view(chosen.shape)
        loss = F.cross_entropy(logits, answer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"  head {seed}: loss of the last step {loss.item():.4f}", flush=True)
    return made
