"""Train the branches on the states of a frozen trunk, resumable.

Cross-entropy in the group against a target that the labels and the bi-encoders that teach set
together; the teachers are not asked about passages made by rules. The reader's layers run in
bfloat16 with float32 master weights; what comes out is the mean of the weights over the last part
of the steps.
"""

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from e5_groups import Group, MicroBatch, Sampler, Texts, micro_batches
from making import Plan
from mine import NONE
from numpy.typing import NDArray
from reader import Branches, Lexical, texts_of
from torch import Tensor, distributed, nn

CHECKPOINT_EVERY = 25  # steps
STANDARDISED_ON = 4  # steps
PAIRS_AT_ONCE = 2048


class Runner(nn.Module):
    """Branches on int8 states."""

    def __init__(self, branches: Branches, lexical: Lexical, scales: NDArray[np.float32]) -> None:
        super().__init__()
        self.branches = branches
        self.lexical = lexical
        self.register_buffer("scales", torch.from_numpy(scales))

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        types: Tensor,
        lower: Tensor,
        top: Tensor,
        keep: Tensor,
        front: int,
    ) -> Tensor:
        """Logits (N,)."""
        lower = (lower.float() * self.scales[0]).to(torch.bfloat16)
        places = torch.arange(front)
        features, new = self.lexical(ids, *texts_of(mask, types), places)
        logits: Tensor = self.branches(
            lower, top.float() * self.scales[1], features, new, mask, types, places, keep
        )
        return logits

    def scalars(self, batch: MicroBatch) -> Tensor:
        """Scalars of a micro-batch, (ROWS, scalars)."""
        places = torch.arange(batch.front)
        masks = batch.mask, batch.types
        features, new = self.lexical(batch.ids, *texts_of(*masks), places)
        top = batch.top.float() * self.scales[1]
        return self.branches.scalars(top, features, new, *masks, places)


class Trainer:
    """Holds the data and the compiled functions.

    Args:
        plan: to draw groups from.
        texts: states of all texts.
        taught: vectors of queries and passages by each teacher, and its weight.
        runner: to be trained; its reader's layers in bfloat16.
        work: folder of the checkpoints.
        settings: ``[train]`` of the configuration.
        seed: of the groups.
    """

    def __init__(
        self,
        plan: Plan,
        texts: Texts,
        taught: list[tuple[NDArray[np.float32], NDArray[np.float32], float]],
        runner: Runner,
        work: Path,
        settings: dict[str, Any],
        seed: int,
    ) -> None:
        self.plan = plan
        self.texts = texts
        self.taught = taught
        self.runner = runner
        self.work = work
        self.settings = settings
        self.sampler = Sampler(plan, settings, len(texts.read[0].offsets) - 1, seed)
        self.rank, self.workers = 0, 1
        if distributed.is_initialized():
            self.rank, self.workers = distributed.get_rank(), distributed.get_world_size()

    def advice(self, groups: list[Group]) -> NDArray[np.float32]:
        """What the teachers say, a group a row; minus infinity where they are not asked."""
        found = np.full((len(groups), len(groups[0].passages)), -np.inf, dtype=np.float32)
        for at, group in enumerate(groups):
            asked = [place for place, row in enumerate(group.advised) if row != NONE]
            if len(asked) < 2 or 0 not in asked:
                continue
            rows = [group.advised[place] for place in asked]
            for queries, passages, weight in self.taught:
                scores = weight * (passages[rows] @ queries[group.query])
                found[at, asked] = (
                    np.where(np.isinf(found[at, asked]), 0, found[at, asked]) + scores
                )
        return found

    def pairs_of(self, groups: list[Group]) -> list[tuple[int, int, bool]]:
        """A group's pairs one after the other."""
        return [(g.query, row, g.blind) for g in groups for row in g.passages]

    @torch.no_grad()
    def standardise(self) -> None:
        """Set shift and scale of the scalars from the first groups."""
        found = []
        for step in range(STANDARDISED_ON):
            groups = self.sampler.step(step, self.settings["groups"])
            for batch in micro_batches(self.texts, self.pairs_of(groups)):
                found.append(self.runner.scalars(batch))  # noqa: PERF401
        scalars = torch.cat(found)
        self.runner.branches.shift.copy_(scalars.mean(0))
        self.runner.branches.scale.copy_(scalars.std(0).clamp(min=1e-3))

    def train(self, name: str) -> None:  # noqa: PLR0912
        """All steps; the weights end averaged."""
        settings, branches = self.settings, self.runner.branches
        done = self.work / f"{name}.pt"
        if done.is_file():
            branches.load_state_dict(torch.load(done))
            return
        parameters = dict(branches.named_parameters())
        masters = {key: value.detach().float().clone() for key, value in parameters.items()}
        average = {key: torch.zeros_like(value) for key, value in masters.items()}
        averaged, first = 0, 0
        optimizer = torch.optim.AdamW(
            self._parameter_groups(masters), betas=(0.9, 0.98), weight_decay=settings["decay"]
        )
        checkpoint = self.work / f"{name}.part.pt"
        if checkpoint.is_file():
            kept = torch.load(checkpoint)
            first, averaged, average = kept["step"], kept["averaged"], kept["average"]
            branches.load_state_dict(kept["branches"])
            for key, value in kept["masters"].items():
                masters[key].copy_(value)
            optimizer.load_state_dict(kept["optimizer"])
        else:
            self.standardise()
        rates = [group["lr"] for group in self._parameter_groups(masters)]
        steps, warm_up = settings["steps"], settings["warm_up"]
        began, losses = time.perf_counter(), []
        for step in range(first, steps):
            falling = (steps - step) / (settings["falling"] * steps)
            share = min((step + 1) / warm_up, 1.0, max(0.02, falling))
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share
            losses.append(self._step(step))
            for key, value in parameters.items():
                masters[key].grad = None if value.grad is None else value.grad.float()
            self._share(masters)
            norm = nn.utils.clip_grad_norm_(list(masters.values()), 1.0)
            optimizer.step()
            with torch.no_grad():
                for key, value in parameters.items():
                    value.copy_(masters[key])
            if step >= (1 - settings["averaged"]) * steps and step % 5 == 4:
                averaged += 1
                for key, value in masters.items():
                    average[key].add_((value.detach() - average[key]) / averaged)
            if step % 20 == 19 and self.rank == 0:
                seconds = (time.perf_counter() - began) / (step + 1 - first)
                rate = settings["groups"] * (1 + settings["negatives"]) / seconds
                print(
                    f"{name} step {step + 1:,} of {steps:,}, loss {np.mean(losses[-40:]):.4f}, "
                    f"gradient {float(norm):.2f}, {rate:.0f} pairs/s, "
                    f"{seconds * (steps - step - 1) / 60:.0f} min left",
                    flush=True,
                )
            if step % CHECKPOINT_EVERY == CHECKPOINT_EVERY - 1 and self.rank == 0:
                save(
                    checkpoint,
                    {
                        "step": step + 1,
                        "averaged": averaged,
                        "masters": masters,
                        "average": average,
                        "optimizer": optimizer.state_dict(),
                        "branches": branches.state_dict(),
                    },
                )
            if step + 1 in settings["validate_at"]:
                self.validate(f"{name} step {step + 1}")
        with torch.no_grad():
            for key, value in parameters.items():
                value.copy_(average[key])
        if self.rank == 0:
            save(done, branches.state_dict())
        self.validate(f"{name} averaged")

    def _step(self, step: int) -> float:
        """Gradients of one step, left on the branches; its loss."""
        groups = self.sampler.step(step, self.settings["groups"])[self.rank :: self.workers]
        size = len(groups[0].passages)
        batches = micro_batches(self.texts, self.pairs_of(groups))
        self.runner.zero_grad(set_to_none=True)
        logits = torch.zeros(len(groups) * size)
        for batch in batches:
            scores = self.scores(batch)
            logits = logits.index_put((torch.from_numpy(batch.rows),), scores[: len(batch.rows)])
        loss = F.cross_entropy(logits.view(-1, size), self.target(groups))
        loss.backward()
        return loss.item()

    def _share(self, masters: dict[str, Tensor]) -> None:
        """Mean of the gradients over the workers."""
        if self.workers > 1:
            gradients = [master.grad for master in masters.values() if master.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            distributed.all_reduce(flat)
            for gradient, part in zip(
                gradients, (flat / self.workers).split([g.numel() for g in gradients]), strict=True
            ):
                gradient.copy_(part.view_as(gradient))

    def target(self, groups: list[Group]) -> Tensor:
        """What the softmax of a group should be, a group a row."""
        advice = torch.from_numpy(self.advice(groups))
        asked = torch.isfinite(advice).any(1, keepdim=True)
        own = torch.softmax(advice.where(asked, torch.zeros(())), dim=1)
        target = torch.zeros_like(own)
        target[:, 0] = 1.0
        share = self.settings["taught_share"] * asked.float()
        return (1 - share) * target + share * own

    def scores(self, batch: MicroBatch) -> Tensor:
        """Logits of a micro-batch, (ROWS,)."""
        logits: Tensor = self.runner(
            batch.ids, batch.mask, batch.types, batch.lower, batch.top, batch.keep, batch.front
        )
        return logits

    def _parameter_groups(self, masters: dict[str, Tensor]) -> list[dict[str, Any]]:
        """The reader's layers learn slowly, what is new faster, the scalars' weights fastest."""
        rate, head = self.settings["rate"], self.settings["head_rate"]
        rates = {"joint": rate, "reading": rate, "segments": rate}
        rates |= {"linear": 5 * head, "scalars_in": 2 * head, "scalars_out": 2 * head}
        groups: dict[float, list[Tensor]] = defaultdict(list)
        for key, master in masters.items():
            groups[rates.get(key.partition(".")[0], head)].append(master)
        return [{"params": params, "lr": group_rate} for group_rate, params in groups.items()]

    @torch.no_grad()
    def logits(self, pairs: list[tuple[int, int, bool]]) -> NDArray[np.float32]:
        """Scores of pairs, in their order."""
        found = torch.zeros(len(pairs))
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            several = pairs[start : start + PAIRS_AT_ONCE]
            for batch in micro_batches(self.texts, several)[self.rank :: self.workers]:
                found[start + batch.rows] = self.scores(batch)[: len(batch.rows)]
        if self.workers > 1:
            distributed.all_reduce(found)
        scores: NDArray[np.float32] = found.numpy()
        return scores

    def validate(self, name: str) -> dict[str, float]:
        """Figures on the queries that are held out, and on whole sources that are."""
        settings, plan = self.settings, self.plan
        by_set: dict[str, list[int]] = defaultdict(list)
        watched = set(settings["watched"])
        for row, query in enumerate(plan.queries):
            listed = [r for r in plan.candidates[row] if r != NONE][: settings["depth"]]
            kept_out = query.source in watched or query.held_out
            if kept_out and set(query.answers) & set(listed):
                by_set[query.source if query.source in watched else "others"].append(row)
        figures: dict[str, float] = {}
        picked = np.random.default_rng(7)
        for source, found in sorted(by_set.items()):
            most = settings["validation"] if source in watched else 3 * settings["validation"]
            rows = [found[at] for at in picked.permutation(len(found))[:most]]
            pairs, ends = [], []
            for row in rows:
                listed = [int(r) for r in plan.candidates[row] if r != NONE][: settings["depth"]]
                pairs += [(row, passage, False) for passage in listed]
                ends.append(len(pairs))
            several = {"": self.logits(pairs), " e5": self._teacher_scores(pairs)}
            if settings["see_blind"]:
                several[" blind"] = self.logits([(*pair[:2], True) for pair in pairs])
            for label, scores in several.items():
                ranks, begin = [], 0
                for row, end in zip(rows, ends, strict=True):
                    passages = np.array([p[1] for p in pairs[begin:end]])
                    values = scores[begin:end]
                    answers = np.isin(passages, plan.queries[row].answers)
                    best = values[answers].max()
                    ranks.append(1 / (1 + (values[~answers] >= best).sum()))
                    begin = end
                figures[source + label] = float(np.mean(ranks))
        figures |= self._made_figures(watched)
        listed = ", ".join(f"{key} {value:.3f}" for key, value in figures.items())
        if self.rank == 0:
            print(f"{name}: {listed}", flush=True)
        return figures

    def _teacher_scores(self, pairs: list[tuple[int, int, bool]]) -> NDArray[np.float32]:
        queries, passages = self.taught[0][:2]
        rows, read = [p[0] for p in pairs], [p[1] for p in pairs]
        scores: NDArray[np.float32] = (queries[rows] * passages[read]).sum(1)
        return scores

    def _made_figures(self, watched: set[str]) -> dict[str, float]:
        """Shares of held-out queries whose answer is above what was made of it, by kind."""
        by_kind: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for row, (query, made) in enumerate(zip(self.plan.queries, self.plan.made, strict=True)):
            if not (query.held_out or query.source in watched):
                continue
            if made.part != NONE:
                by_kind[made.kind].append((row, made.part, made.changed))
            if made.echoes and query.answers:
                by_kind["echo"].append((row, query.answers[0], made.echoes[0]))
            if made.diluted != NONE and self.plan.dense[row][0] != NONE:
                by_kind["diluted"].append((row, made.diluted, int(self.plan.dense[row][0])))
        found = {}
        for kind, several in sorted(by_kind.items()):
            most = self.settings["validation"]
            listed = several[:: max(1, len(several) // most)][:most]
            pairs = [(row, which, False) for row, *both in listed for which in both]
            scores = self.logits(pairs).reshape(-1, 2)
            found[kind] = float((scores[:, 0] > scores[:, 1]).mean())
        return found


def save(path: Path, content: Any) -> None:
    """Write a checkpoint whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    torch.save(content, unfinished)
    unfinished.rename(path)
