"""Train the scalars and their head on the states of a frozen trunk, resumable.

The loss is the cross-entropy of the answer against the passages made by rules, a part of that
against all of the group, and the divergence from a teacher on the passages of the sets: e5's cosine
and exact match, with all-MiniLM-L6-v2's cosine where queries are topical, so that ordinary passages
are not reordered without evidence. What comes out is the mean of the weights over the last part of
the steps. ``reader_train.py`` trains the reader by the same loop.
"""

import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from e5_groups import Group, MicroBatch, Sampler, Texts, micro_batches
from making import Plan
from mine import NONE
from numpy.typing import NDArray
from pools import SENTENCES
from reader import SHARPNESS, Branches, Lexical, texts_of
from torch import Tensor, nn

CHECKPOINT_EVERY = 50  # steps
STANDARDISED_ON, STANDARDISED_GROUPS = 6, 16  # steps, groups a step
PAIRS_AT_ONCE = 2048
SECOND_SHARPNESS = 18.0  # of the second teacher's cosine, which spreads more than e5's
READER = ("joint", "reading", "segments", "reader_in", "reader_scalars", "reader_out")


@dataclass(frozen=True, slots=True)
class Second:
    """The second teacher's unit vectors of the queries that it is asked about.

    Attributes:
        queries: row of its vectors for a query, NONE where it is not asked.
        passages: likewise for a passage.
        asked: vectors of queries.
        read: vectors of passages.
    """

    queries: NDArray[np.int64]
    passages: NDArray[np.int64]
    asked: NDArray[np.float32]
    read: NDArray[np.float32]


class Runner(nn.Module):
    """Branches on int8 states."""

    def __init__(self, branches: Branches, lexical: Lexical, scales: NDArray[np.float32]) -> None:
        super().__init__()
        self.branches = branches
        self.lexical = lexical
        self.register_buffer("scales", torch.from_numpy(scales))

    def inputs(self, batch: MicroBatch) -> tuple[Tensor, ...]:
        """Last states, features, new tokens, masks and places."""
        places = torch.arange(batch.front)
        masks = batch.mask, batch.types
        features, new = self.lexical(batch.ids, *texts_of(*masks), places)
        return batch.top.float() * self.scales[1], features, new, *masks, places

    def forward(self, batch: MicroBatch, read: bool) -> tuple[Tensor, ...]:
        """The prior, what the scalars say and what the reader adds, all (n,)."""
        lower = batch.lower
        if read:
            lower = (lower.float() * self.scales[0]).to(torch.bfloat16)
        found: tuple[Tensor, ...] = self.branches(lower, *self.inputs(batch), read)
        return found

    def scalars(self, batch: MicroBatch) -> Tensor:
        """Scalars of a micro-batch, (n, scalars)."""
        return self.branches.scalars(*self.inputs(batch))


class Trainer:
    """Holds the data and the branches.

    Args:
        plan: to draw groups from.
        texts: states of all texts.
        second: the second teacher.
        runner: to be trained; its reader's layers in bfloat16.
        work: folder of the checkpoints.
        settings: ``[train]`` of the configuration.
        seed: of the groups.
    """

    def __init__(
        self,
        plan: Plan,
        texts: Texts,
        second: Second,
        runner: Runner,
        work: Path,
        settings: dict[str, Any],
        seed: int,
    ) -> None:
        self.plan = plan
        self.texts = texts
        self.second = second
        self.runner = runner
        self.work = work
        self.settings = settings
        self.sampler = Sampler(plan, settings, len(texts.read[0].offsets) - 1, seed)

    def pairs_of(self, groups: list[Group]) -> list[tuple[int, int]]:
        """A group's pairs one after the other."""
        return [(group.query, row) for group in groups for row in group.passages]

    @torch.no_grad()
    def standardise(self) -> None:
        """Set shift and scale of the scalars from the first groups."""
        found = []
        for step in range(STANDARDISED_ON):
            groups = self.sampler.step(step, STANDARDISED_GROUPS)
            for batch in micro_batches(self.texts, self.pairs_of(groups)):
                found.append(self.runner.scalars(batch))  # noqa: PERF401
        scalars = torch.cat(found)
        self.runner.branches.shift.copy_(scalars.mean(0))
        self.runner.branches.scale.copy_(scalars.std(0).clamp(min=1e-3))

    def train(self, name: str, stage: str) -> None:  # noqa: PLR0912
        """All steps of a stage, "scalars" or "reader"; the weights end averaged."""
        settings, branches = self.settings | self.settings[stage], self.runner.branches
        done = self.work / f"{name}.{stage}.pt"
        if done.is_file():
            branches.load_state_dict(torch.load(done))
            return
        read = stage == "reader"
        for key, value in branches.named_parameters():
            value.requires_grad_((key.partition(".")[0] in READER) == read)
        parameters = {k: p for k, p in branches.named_parameters() if p.requires_grad}
        masters = {key: value.detach().float().clone() for key, value in parameters.items()}
        average = {key: torch.zeros_like(value) for key, value in masters.items()}
        averaged, first = 0, 0
        listed = self._parameter_groups(masters)
        rates = [group["lr"] for group in listed]
        optimizer = torch.optim.AdamW(listed, betas=(0.9, 0.98), weight_decay=settings["decay"])
        checkpoint = self.work / f"{name}.{stage}.part.pt"
        if checkpoint.is_file():
            kept = torch.load(checkpoint)
            first, averaged, average = kept["step"], kept["averaged"], kept["average"]
            branches.load_state_dict(kept["branches"])
            for key, value in kept["masters"].items():
                masters[key].copy_(value)
            optimizer.load_state_dict(kept["optimizer"])
        elif not read:
            self.standardise()
        steps, warm_up = settings["steps"], settings["warm_up"]
        began, losses = time.perf_counter(), []
        for step in range(first, steps):
            left = (steps - step) / steps
            share = min((step + 1) / warm_up, 1.0, max(0.02, left / settings["falling"]))
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share
            losses.append(self._step(settings["first"] + step, settings))
            for key, value in parameters.items():
                masters[key].grad = None if value.grad is None else value.grad.float()
            norm = nn.utils.clip_grad_norm_(list(masters.values()), 1.0)
            optimizer.step()
            with torch.no_grad():
                for key, value in parameters.items():
                    value.copy_(masters[key])
            if left <= settings["averaged"] and step % 5 == 4:
                averaged += 1
                for key, value in masters.items():
                    average[key].add_((value.detach() - average[key]) / averaged)
            if step % 50 == 49:
                seconds = (time.perf_counter() - began) / (step + 1 - first)
                rate = settings["groups"] * (1 + settings["negatives"]) / seconds
                label, own = np.mean(losses[-100:], axis=0)
                print(
                    f"{name} {stage} {step + 1:,} of {steps:,}, labels {label:.4f}, teacher "
                    f"{own:.4f}, gradient {float(norm):.2f}, {rate:.0f} pairs/s, "
                    f"{seconds * (steps - step - 1) / 60:.0f} min left",
                    flush=True,
                )
            if step % CHECKPOINT_EVERY == CHECKPOINT_EVERY - 1:
                content = {"step": step + 1, "averaged": averaged, "masters": masters}
                content |= {"average": average, "optimizer": optimizer.state_dict()}
                save(checkpoint, content | {"branches": branches.state_dict()})
            if step % settings.get("watch_every", steps) == settings.get("watch_every", steps) - 1:
                self.watch(f"{name} {stage} {step + 1:,}")
        with torch.no_grad():
            for key, value in parameters.items():
                value.copy_(average[key])
        save(done, branches.state_dict())

    def _step(self, step: int, settings: dict[str, Any]) -> tuple[float, float]:
        """Gradients of one step, left on the branches; its two losses."""
        groups = self.sampler.step(step, settings["groups"])
        self.runner.zero_grad(set_to_none=True)
        pairs = self.pairs_of(groups)
        batches = micro_batches(self.texts, pairs)
        parts = [torch.stack(self.runner(batch, False)) for batch in batches]
        order = torch.from_numpy(np.argsort(np.concatenate([batch.rows for batch in batches])))
        prior, sure, _ = torch.cat(parts, dim=1)[:, order]
        logits = sure.view(len(groups), -1)
        hidden = ~torch.tensor([group.ordinary for group in groups])
        teacher = self.teacher(pairs, prior.detach())
        hidden |= torch.isnan(teacher).view_as(logits)
        first = torch.zeros(len(groups), dtype=torch.long)
        # Labels decide about passages made by rules; among those of the sets the teacher does.
        others = ~hidden
        others[:, 0] = False
        made = F.cross_entropy(logits.masked_fill(others, -1e4), first)
        loss = made + settings["labels"] * F.cross_entropy(logits, first)
        asked = torch.log_softmax(teacher.view_as(logits).masked_fill(hidden, -1e4), dim=1)
        said = torch.log_softmax(logits.masked_fill(hidden, -1e4), dim=1)
        own = (asked.exp() * (asked - said)).sum(1).mean()
        (loss + settings["taught"] * own).backward()
        return loss.item(), own.item()

    def teacher(self, pairs: list[tuple[int, int]], prior: Tensor) -> Tensor:
        """Logits of pairs; NaN where the second teacher is asked and has no vector."""
        found = prior.numpy().copy()
        own, second = SHARPNESS * self.cosines(pairs), self.second_logits(pairs)
        asked = np.array([self.second.queries[query] != NONE for query, _ in pairs])
        found[asked] += (second[asked] - own[asked]) / 2
        return torch.from_numpy(found)

    def second_logits(self, pairs: list[tuple[int, int]]) -> NDArray[np.float32]:
        """The second teacher's score of pairs: 0 where it is not asked, NaN without a vector."""
        second, found = self.second, np.zeros(len(pairs), dtype=np.float32)
        for at, (query, passage) in enumerate(pairs):
            if (row := second.queries[query]) != NONE:
                place = second.passages[passage]
                cosine = second.asked[row] @ second.read[place] if place != NONE else np.nan
                found[at] = SECOND_SHARPNESS * cosine
        return found

    def cosines(self, pairs: list[tuple[int, int]]) -> NDArray[np.float32]:
        """The trunk's own score of pairs."""
        found = np.empty(len(pairs), dtype=np.float32)
        for at, (query, passage) in enumerate(pairs):
            (asked, row), (read, place) = self.texts.query(query), self.texts.passage(passage)
            found[at] = asked.vectors[row] @ read.vectors[place]
        return found

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
    def logits(self, pairs: list[tuple[int, int]], read: bool = True) -> NDArray[np.float32]:
        """Prior, scalars and reader, in the order of the pairs: (3, n)."""
        found = np.zeros((3, len(pairs)), dtype=np.float32)
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            several = pairs[start : start + PAIRS_AT_ONCE]
            for batch in micro_batches(self.texts, several):
                found[:, start + batch.rows] = torch.stack(self.runner(batch, read)).numpy()
        return found

    def watched(self, source: str) -> list[tuple[int, list[int]]]:
        """Queries of a set that is held out with their candidates; "others" are all held out."""
        settings, plan = self.settings, self.plan
        found = []
        for row, query in enumerate(plan.queries):
            own = query.source == source
            if source in ("others", SENTENCES):
                own = query.held_out and (query.source == SENTENCES) == (source == SENTENCES)
                own = own and query.source not in settings["without"]
            if not own or not query.answers:
                continue
            listed = [int(r) for r in plan.candidates[row] if r != NONE][: settings["depth"]]
            listed = plan.same[row] if source == SENTENCES else listed + plan.same[row]
            listed = list(dict.fromkeys([*query.answers, *listed]))
            if len(listed) > len(query.answers):
                found.append((row, listed))
        order = np.random.default_rng(7).permutation(len(found))[: settings["validation"]]
        return [found[at] for at in order]

    def validate(self, name: str, read: bool, shares: tuple[float, ...] = (1.0,)) -> None:
        """Print reciprocal ranks on what is held out, of e5 and for shares of the reader."""
        for source in (*self.settings["watched"], SENTENCES, "others"):
            listed = self.watched(source)
            pairs = [(row, passage) for row, passages in listed for passage in passages]
            echoes = [
                (r, self.plan.made[r].echoes[0]) for r, _ in listed if self.plan.made[r].echoes
            ]
            prior, sure, added = self.logits(pairs, read)
            echoed = self.logits(echoes, read)[1:]
            scores = {"e5": self.cosines(pairs), "prior": prior} | {
                f"{s:g}": sure + s * added for s in shares
            }
            figures = {}
            for label, values in scores.items():
                ranks, first, at = [], [], 0
                best: dict[int, float] = {}
                for row, passages in listed:
                    own = values[at : at + len(passages)]
                    at += len(passages)
                    answers = np.isin(passages, self.plan.queries[row].answers)
                    ranks.append(1 / (1 + (own[~answers] >= own[answers].max()).sum()))
                    best[row] = own.max()
                if label not in ("e5", "prior"):
                    sums = echoed[0] + float(label) * echoed[1]
                    first = [sums[i] >= best[row] for i, (row, _) in enumerate(echoes)]
                figures[label] = f"{np.mean(ranks):.3f}" + (
                    f" ({np.mean(first):.2f})" if first else ""
                )
            print(f"{name} {source} {len(listed)}: {figures}", flush=True)
        print(f"{name} made: {self.made_figures(read, shares)}", flush=True)

    def watch(self, name: str) -> None:
        """Look at what is held out, in between; nothing here."""

    def made_figures(self, read: bool, shares: tuple[float, ...]) -> dict[str, list[float]]:
        """Shares of held-out queries whose answer is above what was made of it, by kind."""
        by_kind: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        watched = set(self.settings["watched"])
        for row, (query, made) in enumerate(zip(self.plan.queries, self.plan.made, strict=True)):
            if not (query.held_out or query.source in watched):
                continue
            if made.part != NONE:
                by_kind[made.kind].append((row, made.part, made.changed))
            if made.echoes and query.answers:
                by_kind[f"echo {made.echo_kind}"].append((row, query.answers[0], made.echoes[0]))
            if made.diluted != NONE and self.plan.dense[row][0] != NONE:
                by_kind["diluted"].append((row, made.diluted, int(self.plan.dense[row][0])))
        found = {}
        for kind, several in sorted(by_kind.items()):
            most = self.settings["validation"] // 2
            listed = several[:: max(1, len(several) // most)][:most]
            pairs = [(row, which) for row, *both in listed for which in both]
            _, sure, added = self.logits(pairs, read)
            found[kind] = [
                round(float(np.diff((sure + s * added).reshape(-1, 2)).__lt__(0).mean()), 2)
                for s in shares
            ]
        return found


def save(path: Path, content: Any) -> None:
    """Write a checkpoint whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    torch.save(content, unfinished)
    unfinished.rename(path)
