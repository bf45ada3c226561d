"""Train the branches of a cross-encoder, resumable.

Cross-entropy in the group; with a guide, part of the target is what the guide says of the group.
The cross layers run in bfloat16 with float32 master weights; what comes out is the mean of the
weights over the last part of the steps.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from data import Pool
from groups import LENGTHS, MicroBatch, Sampler, Tokens, micro_batches
from mine import NONE, Mined
from model import Branches, Trunk
from torch import Tensor

CHECKPOINT_EVERY = 100  # steps
VALIDATE_EVERY = 1000
STANDARDISED_ON = 4  # steps
VALIDATION_QUERIES = 15  # of a set
VALIDATION_CANDIDATES = 20


@dataclass(frozen=True, slots=True)
class Course:
    """How long, how fast and on what.

    Attributes:
        name: of its files.
        steps: of the optimiser.
        tokens: of a pair.
        rate: of the cross layers at its highest; the head's is scaled with it.
        dense: negatives of a group that the bi-encoder finds near.
        own_share: of the target that the guide sets.
        first_step: numbers the steps, so that two courses draw different groups.
    """

    name: str
    steps: int
    tokens: int
    rate: float
    dense: int
    own_share: float = 0.0
    first_step: int = 0


#: Logits of a micro-batch by a model that teaches.
Guide = Callable[[MicroBatch], Tensor]


class Trainer:
    """Holds the data, the frozen trunk and the compiled functions."""

    def __init__(
        self,
        pool: Pool,
        mined: Mined,
        tokens: Tokens,
        trunk: Trunk,
        work: Path,
        config: dict[str, Any],
        device: torch.device,
    ) -> None:
        self.pool = pool
        self.mined = mined
        self.tokens = tokens
        self.trunk = trunk.to(device)
        self.device = device
        self.work = work
        self.settings = config["train"]
        self.seed = config["seed"]
        self.weights = config["data"]["weights"]
        self.sampler = Sampler(pool, mined, self.weights, self.settings["negatives"], self.seed)
        self.run_trunk = compiled(trunk)

    def states(self, batch: MicroBatch) -> tuple[Tensor, ...]:
        """What the trunk makes of a micro-batch, for the branches."""
        with torch.no_grad():
            return (*self.run_trunk(batch.ids, batch.mask, batch.types), batch.mask, batch.types)

    def batches_of(self, steps: range) -> list[MicroBatch]:
        """The pairs of the first course's steps."""
        batches = []
        for step in steps:
            groups = self.sampler.step(
                step, self.settings["groups"], self.settings["dense_negatives"]
            )
            pairs = [(query, passage) for query, rows in groups for passage in rows]
            batches += self._batches(pairs, self.settings["tokens"])
        return batches

    def standardise(self, branches: Branches) -> None:
        """Set shift and scale of the scalars from the first groups."""
        found = []
        with torch.no_grad():
            for batch in self.batches_of(range(STANDARDISED_ON)):
                _, top, exact, mask, types = self.states(batch)
                found.append(branches.scalars(top, exact, mask, types))
        scalars = torch.cat(found)
        branches.shift.copy_(scalars.mean(0))
        branches.scale.copy_(scalars.std(0))

    def train(self, branches: Branches, course: Course, guide: Guide | None = None) -> Branches:
        """One course; the branches with averaged weights, in evaluation form."""
        done = self.work / f"{course.name}.pt"
        if done.is_file():
            branches.load_state_dict(torch.load(done, map_location=self.device))
            return branches
        self.standardise(branches)
        self.validate(branches, f"{course.name} before")
        masters = [parameter.detach().float().clone() for parameter in branches.parameters()]
        average = [torch.zeros_like(master) for master in masters]
        averaged = 0
        optimizer = torch.optim.AdamW(
            self._parameter_groups(branches, masters, course.rate),
            betas=(0.9, 0.98),
            weight_decay=self.settings["weight_decay"],
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate(course.steps))
        first = 0
        checkpoint = self.work / f"{course.name}.part.pt"
        if checkpoint.is_file():
            kept = torch.load(checkpoint, map_location=self.device)
            first, averaged = kept["step"], kept["averaged"]
            for ours, theirs in ((masters, kept["masters"]), (average, kept["average"])):
                for here, there in zip(ours, theirs, strict=True):
                    here.copy_(there)
            optimizer.load_state_dict(kept["optimizer"])
            schedule.load_state_dict(kept["schedule"])
            branches.load_state_dict(kept["branches"])
        score = compiled(branches)
        began, losses = time.perf_counter(), []
        for step in range(first, course.steps):
            losses.append(self._step(branches, score, guide, course, step))
            norm = self._gather(branches, masters)
            torch.nn.utils.clip_grad_norm_(masters, 1.0)
            optimizer.step()
            schedule.step()
            self._scatter(branches, masters)
            if step >= self.settings["average_from"] * course.steps and step % 10 == 9:
                averaged += 1
                for kept, master in zip(average, masters, strict=True):
                    kept.add_((master - kept) / averaged)
            if step % 20 == 19:
                seconds = (time.perf_counter() - began) / (step + 1 - first)
                print(
                    f"{course.name} step {step + 1:,} of {course.steps:,}, loss "
                    f"{np.mean(losses[-20:]):.4f}, gradient {norm:.2f}, "
                    f"{seconds * (course.steps - step - 1) / 60:.0f} min left",
                    flush=True,
                )
            if step % CHECKPOINT_EVERY == CHECKPOINT_EVERY - 1:
                save(
                    checkpoint,
                    {
                        "step": step + 1,
                        "averaged": averaged,
                        "masters": masters,
                        "average": average,
                        "optimizer": optimizer.state_dict(),
                        "schedule": schedule.state_dict(),
                        "branches": branches.state_dict(),
                    },
                )
            if step % VALIDATE_EVERY == VALIDATE_EVERY - 1:
                self.validate(branches, f"{course.name} step {step + 1}")
        self._scatter(branches, average)
        self.validate(branches, f"{course.name} averaged")
        save(done, branches.state_dict())
        return branches

    def _batches(
        self, pairs: list[tuple[int, int]], most: int, rng: np.random.Generator | None = None
    ) -> list[MicroBatch]:
        return micro_batches(self.tokens, pairs, most, self.device, rng)

    def _step(
        self, branches: Branches, score: Any, guide: Guide | None, course: Course, step: int
    ) -> float:
        """Gradients of one step, left on the branches; its loss."""
        size = 1 + self.settings["negatives"]
        drawn = self.sampler.step(course.first_step + step, self.settings["groups"], course.dense)
        pairs = [(query, passage) for query, rows in drawn for passage in rows]
        rng = np.random.default_rng([self.seed, step])
        logits = torch.zeros(len(pairs), device=self.device)
        advice = torch.zeros(len(pairs), device=self.device)
        branches.zero_grad(set_to_none=True)
        for batch in self._batches(pairs, course.tokens, rng):
            states = self.states(batch)
            rows = torch.from_numpy(batch.rows).to(self.device)
            logits = logits.index_put((rows,), score(*states)[: len(rows)])
            if guide is not None:
                with torch.no_grad():
                    advice[rows] = guide(batch)[: len(rows)]
        target = torch.zeros(len(drawn), size, device=self.device)
        target[:, 0] = 1.0
        if guide is not None:
            own = torch.softmax(advice.view(-1, size), dim=1)
            target = (1 - course.own_share) * target + course.own_share * own
        loss = F.cross_entropy(logits.view(-1, size), target)
        loss.backward()
        return loss.item()

    def _parameter_groups(
        self, branches: Branches, masters: list[Tensor], rate: float
    ) -> list[dict[str, Any]]:
        """The cross layers learn slowly, what is new faster, the few scalars' weights fastest."""
        head = self.settings["head_learning_rate"] * rate / self.settings["learning_rate"]
        rates = {"cross": rate, "linear": 5 * head, "from_scalars": 5 * head}
        groups: dict[float, list[Tensor]] = defaultdict(list)
        for (name, _), master in zip(branches.named_parameters(), masters, strict=True):
            groups[rates.get(name.partition(".")[0], head)].append(master)
        return [{"params": params, "lr": group_rate} for group_rate, params in groups.items()]

    def _rate(self, steps: int) -> Any:
        warm_up = max(1, int(self.settings["warm_up"] * steps))
        return lambda step: min((step + 1) / warm_up, max(0.0, (steps - step) / (steps - warm_up)))

    @staticmethod
    def _gather(branches: Branches, masters: list[Tensor]) -> float:
        """Copy the gradients to the float32 masters; their norm."""
        for parameter, master in zip(branches.parameters(), masters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
        return float(torch.nn.utils.get_total_norm([m.grad for m in masters if m.grad is not None]))

    @staticmethod
    @torch.no_grad()
    def _scatter(branches: Branches, values: list[Tensor]) -> None:
        for parameter, value in zip(branches.parameters(), values, strict=True):
            parameter.copy_(value)

    @torch.no_grad()
    def logits(self, branches: Branches, pairs: list[tuple[int, int]], most: int) -> Tensor:
        """Scores of pairs (query row, passage row), in their order."""
        found = torch.zeros(len(pairs))
        for batch in self._batches(pairs, most):
            scores = branches(*self.states(batch))[: len(batch.rows)]
            found[torch.from_numpy(batch.rows)] = scores.cpu()
        return found

    def validate(self, branches: Branches, name: str) -> float:
        """Mean over the sets of the mean reciprocal rank on held-out queries."""
        chosen = self.held_out()
        pairs = [(row, passage) for row, passages in chosen for passage in passages]
        scores = self.logits(branches, pairs, self.settings["tokens"]).numpy()
        ranks = defaultdict(list)
        at = 0
        for row, passages in chosen:
            values = scores[at : at + len(passages)]
            at += len(passages)
            query = self.pool.queries[row]
            answers = np.isin(passages, query.answers)
            best = values[answers].max()
            ranks[query.source].append(1 / (1 + (values[~answers] >= best).sum()))
        per_set = {source: float(np.mean(values)) for source, values in sorted(ranks.items())}
        result = float(np.mean(list(per_set.values())))
        listed = ", ".join(f"{source} {value:.3f}" for source, value in per_set.items())
        print(f"{name}: held-out MRR {result:.4f} ({listed})", flush=True)
        return result

    def held_out(self) -> list[tuple[int, list[int]]]:
        """Held-out queries that have an answer among their candidates."""
        chosen = []
        counts: dict[str, int] = defaultdict(int)
        for row, query in enumerate(self.pool.queries):
            candidates = [int(c) for c in self.mined.candidates[row] if c != NONE]
            candidates = candidates[:VALIDATION_CANDIDATES]
            if not query.held_out or set(query.answers).isdisjoint(candidates):
                continue
            if counts[query.source] < VALIDATION_QUERIES:
                counts[query.source] += 1
                chosen.append((row, candidates))
        return chosen


def compiled(module: torch.nn.Module) -> Any:
    """The module compiled once for each length of a micro-batch."""
    torch._dynamo.config.recompile_limit = 4 * len(LENGTHS)
    return torch.compile(module, dynamic=False)


def save(path: Path, content: Any) -> None:
    """Write a checkpoint whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    torch.save(content, unfinished)
    unfinished.rename(path)
