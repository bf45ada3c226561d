"""Train the reader on the scalars of a finished model, resumable.

    python training/reader_train.py DATA_DIR E5_DIR EXPORTED_DIR WORK_DIR OUT_DIR

A step has four kinds of groups. *Passages of the sets*: the reader stays near the scalars' logits,
which are raised for the answer, and by the second teacher where queries are topical; labels decide
about what rules made of it. *Sentences*: likewise, with labels for those of the question's own
paragraph. *Pairs*: relations both ways, and questions changed as an answer was. *Templates*, filled
anew at every step. What is decided by labels is learned by cross-entropy. All else is as in
``e5_train.py``.
"""

import argparse
import random
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from arguments import existing_path
from corpus import draw_corpus, token_ids
from data import share
from e5_groups import Group, Sampler, Texts, micro_batches
from e5_pipeline import CONFIG, keep_memory, new_trainer, publish, read_config
from e5_train import Second, Trainer
from encoders import Encoder, teachers
from exported import lexical_of, load_head
from making import PAIRED
from mine import NONE
from numpy.typing import NDArray
from pools import SENTENCES, Neighbours, neighbours
from prepare import Prepared, prepare
from rules import names_in, sentences
from states import States, cached_states, states_of
from templates import Fill, Template, template
from tokenizers import Tokenizer
from torch import Tensor

CHANGES = Path(__file__).with_name("reader.toml")
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the reader, to choose from
MOST_NAMED, NAME_WORDS = 20, 2  # passages that a name occurs in, words that it has
WATCHED_TEMPLATES = 400
NEAREST = 30  # sentences of a question
STRANGER = 2**31  # seeds of what is watched are beyond those of the steps


@dataclass(slots=True)
class Live:
    """Fills templates and reads them with the trunk.

    Attributes:
        encoder: the trunk, bfloat16.
        names, around: see ``Fill``.
    """

    encoder: Encoder
    tokenizer: Tokenizer
    lower: int
    scales: NDArray[np.float32]
    names: list[str]
    around: list[str]
    texts: dict[str, Any]

    def drawn(self, count: int, seed: int, held_out: bool = False) -> list[Template]:
        """So many, which depend on the seed alone."""
        fill = Fill(random.Random(seed), self.names, self.around)
        return [template(fill, held_out) for _ in range(count)]

    def states(self, texts: list[str], prefix: str, most: int) -> States:
        """What the trunk says of texts."""
        ids = token_ids(self.tokenizer, [prefix + text for text in texts], most)
        return states_of(self.encoder, ids, self.lower, self.scales)

    def read(self, drawn: list[Template]) -> tuple[States, States]:
        """States of the questions, and of all passages one after the other."""
        passages = [text for one in drawn for text in (one.better, *one.worse)]
        asked = self.states([t.query for t in drawn], "query: ", self.texts["query_tokens"])
        return asked, self.states(passages, "passage: ", self.texts["passage_tokens"])


def live_of(prepared: Prepared, passages: list[str], config: dict[str, Any]) -> Live:
    """Names and sentences of the training sets."""
    counts = Counter(name for text in passages for name in set(names_in(text)))
    names = [
        name
        for name, count in counts.items()
        if count <= MOST_NAMED
        and name.isascii()
        and 4 <= len(name) <= 22
        and len(name.split()) <= NAME_WORDS
        and "\n" not in name
    ]
    around = [s for text in passages for s in sentences(text) if 4 <= len(s.split()) <= 25]
    scales = prepared.texts.read[0].scales
    lower = config["model"]["lower"]
    return Live(prepared.encoder, prepared.tokenizer, lower, scales, names, around, config["texts"])


class ReaderTrainer(Trainer):
    """Draws four kinds of groups."""

    live: Live
    near: Neighbours
    pairs: Sampler
    answers: tuple[int, int]  # first rows of SQuAD's questions and sentences
    dense: NDArray[np.int64]  # sentences near each of SQuAD's questions
    selqa: list[int]
    seen: list[list[float]]  # losses

    def prepare(self, live: Live, near: Neighbours, cached: tuple[States, States]) -> None:
        """Take what a plain trainer has not."""
        self.live, self.near, self.seen = live, near, []
        self.dense = near_sentences(near, cached, self.settings["teacher_margin"])
        passages = len(self.plan.texts) + len(self.texts.read[0].offsets) - 1
        self.answers = len(self.plan.queries), passages
        self.texts = Texts([*self.texts.asked, cached[0]], [*self.texts.read, cached[1]])
        more = (np.full(len(states.offsets) - 1, NONE) for states in cached)  # not asked about
        known = self.second.queries, self.second.passages
        places = [np.concatenate(both) for both in zip(known, more, strict=True)]
        self.second = Second(*places, self.second.asked, self.second.read)
        sources = {query.source for query in self.plan.queries}
        weights = {source: float(source in PAIRED) for source in sources}
        settings = self.settings | {"weights": weights, "negatives": 2, "same": 0, "dense": 1}
        self.pairs = Sampler(self.plan, settings | {"lexical": 0}, passages, self.sampler.seed)
        self.selqa = [
            row
            for row, query in enumerate(self.plan.queries)
            if query.source == SENTENCES
            and not query.held_out
            and any(other not in query.answers for other in self.plan.same[row])
        ]

    def sentence_groups(self, step: int, count: int, size: int) -> list[Group]:
        """A question, the sentence that answers, others of its text, and near ones of others."""
        rng = np.random.default_rng([self.sampler.seed, step, 1])
        first_query, first_text = self.answers
        groups = []
        for _ in range(count):
            if rng.random() < self.settings["selqa"]:
                row = int(rng.choice(self.selqa))
                query = self.plan.queries[row]
                answer = int(rng.choice(query.answers))
                others = [other for other in self.plan.same[row] if other not in query.answers]
                near = [int(other) for other in self.plan.dense[row] if other != NONE]
            else:
                at = int(rng.integers(len(self.near.queries)))
                while share("held out " + self.near.queries[at]) < self.settings["held_out"]:
                    at = int(rng.integers(len(self.near.queries)))
                row, answer = first_query + at, first_text + self.near.answers[at]
                others = [first_text + other for other in self.near.others[at]]
                near = [first_text + int(other) for other in self.dense[at] if other != NONE]
            near = [other for other in near if other != answer and other not in others]
            taken = [answer, *(int(o) for o in rng.permutation(others)[: size // 2])]
            same = len(taken) - 1
            taken += [int(o) for o in rng.permutation(near)[: size - len(taken)]]
            while len(taken) < size:
                taken.append(first_text + int(rng.integers(len(self.near.texts))))
            ordinary = [True] + [False] * same + [True] * (size - 1 - same)
            groups.append(Group(row, taken, ordinary))
        return groups

    def _step(self, step: int, settings: dict[str, Any]) -> tuple[float, float]:
        ordinary = self.sampler.step(step, settings["groups"])
        paired = self.pairs.step(step, settings["paired"])
        sentence = self.sentence_groups(step, settings["sentences"], settings["sentence_size"])
        drawn = self.live.drawn(settings["templates"], step)
        texts, filled = self._with(drawn)
        sections = (ordinary, sentence, paired)
        pairs = [pair for groups in sections for pair in self.pairs_of(groups)]
        pairs += [pair for group in filled for pair in group]
        _, sure, added = self._forward(texts, pairs)
        logits, base = sure + added, sure.detach()
        self.runner.zero_grad(set_to_none=True)
        losses, stray, at = [], [], 0
        for groups in (ordinary, sentence):
            count = sum(len(group.passages) for group in groups)
            own, teacher = (v[at : at + count].view(len(groups), -1) for v in (logits, base))
            made, apart = self._ordinary(groups, own, teacher, settings)
            losses.append(made)
            stray.append(apart)
            at += count
        sizes = [len(g.passages) for g in paired] + [len(group) for group in filled]
        parts = [-torch.log_softmax(own, 0)[0] for own in logits[at:].split(sizes)]
        losses.append(torch.stack(parts[: len(paired)]).mean())
        losses.append(torch.stack(parts[len(paired) :]).mean())
        loss = torch.stack(losses).sum() + settings["taught"] * torch.stack(stray).mean()
        loss.backward()
        self.seen.append([value.item() for value in (*losses, *stray)])
        return float(np.sum(self.seen[-1][: len(losses)])), torch.stack(stray).mean().item()

    def _ordinary(
        self, groups: list[Group], logits: Tensor, base: Tensor, settings: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """By labels, against what rules made; and how far from the scalars, on all else."""
        hidden = ~torch.tensor([group.ordinary for group in groups])
        others = ~hidden
        others[:, 0] = False
        first = torch.zeros(len(groups), dtype=torch.long)
        made = F.cross_entropy(logits.masked_fill(others, -1e4), first)
        second = torch.from_numpy(self.second_logits(self.pairs_of(groups))).view_as(base)
        second = second - second.nanmean(1, keepdim=True)
        hidden |= second.isnan()
        teacher = base + settings["second"] * second.nan_to_num()
        teacher[:, 0] += settings["raised"]
        hidden[:, 0] = False
        softness = settings["softness"]
        asked = torch.log_softmax((teacher / softness).masked_fill(hidden, -1e4), dim=1)
        said = torch.log_softmax((logits / softness).masked_fill(hidden, -1e4), dim=1)
        return made, (asked.exp() * (asked - said)).sum(1).mean()

    def _with(self, drawn: list[Template]) -> tuple[Texts, list[list[tuple[int, int]]]]:
        """All texts with those of templates at the end, and the pairs of each template."""
        asked, read = self.live.read(drawn)
        texts = Texts([*self.texts.asked, asked], [*self.texts.read, read])
        query = sum(len(states.offsets) - 1 for states in self.texts.asked)
        row = sum(len(states.offsets) - 1 for states in self.texts.read)
        filled = []
        for at, one in enumerate(drawn):
            filled.append([(query + at, row + place) for place in range(1 + len(one.worse))])
            row += 1 + len(one.worse)
        return texts, filled

    def _forward(self, texts: Texts, pairs: list[tuple[int, int]]) -> Tensor:
        """Prior, scalars and reader of pairs: (3, n)."""
        batches = micro_batches(texts, pairs, self.settings["most_tokens"])
        parts = [torch.stack(self.runner(batch, True)) for batch in batches]
        order = torch.from_numpy(np.argsort(np.concatenate([batch.rows for batch in batches])))
        return torch.cat(parts, dim=1)[:, order]

    @torch.no_grad()
    def templates_right(self, shares: tuple[float, ...]) -> dict[str, list[float]]:
        """Shares of templates whose answer is first, by kind; those not trained on in capitals."""
        found: dict[str, list[list[bool]]] = defaultdict(list)
        for held_out in (False, True):
            drawn = self.live.drawn(WATCHED_TEMPLATES, STRANGER + held_out, held_out)
            texts, filled = self._with(drawn)
            _, sure, added = self._forward(texts, [pair for group in filled for pair in group])
            at = 0
            for one, group in zip(drawn, filled, strict=True):
                own = [sure[at : at + len(group)] + s * added[at : at + len(group)] for s in shares]
                at += len(group)
                kind = one.kind.upper() if held_out else one.kind
                right = [bool(logits[0] > logits[1:].amax()) for logits in own]
                for label in (kind, "ALL" if held_out else "all"):
                    found[label].append(right)
        return {kind: np.round(np.mean(v, axis=0), 2).tolist() for kind, v in sorted(found.items())}

    @torch.no_grad()
    def sentences_right(self, shares: tuple[float, ...]) -> list[float]:
        """Reciprocal ranks among the sentences of SQuAD's paragraphs, of questions held out."""
        first_query, first_text = self.answers
        held_out = [
            at
            for at, text in enumerate(self.near.queries)
            if share("held out " + text) < self.settings["held_out"] and self.near.others[at]
        ][: self.settings["validation"]]
        pairs, sizes = [], []
        for at in held_out:
            rows = [self.near.answers[at], *self.near.others[at]]
            pairs += [(first_query + at, first_text + row) for row in rows]
            sizes.append(len(rows))
        _, sure, added = self.logits(pairs)
        ranks = []
        for s in shares:
            own = np.split(sure + s * added, np.cumsum(sizes)[:-1])
            ranks.append(float(np.mean([1 / (1 + (o[1:] >= o[0]).sum()) for o in own])))
        return [round(rank, 3) for rank in ranks]

    def watch(self, name: str, shares: tuple[float, ...] = (0.0, 1.0)) -> None:
        """Print what is held out."""
        recent = np.mean(self.seen[-100:], axis=0).round(3).tolist() if self.seen else []
        print(f"{name} losses of rules, sentences, pairs, templates; apart: {recent}", flush=True)
        self.validate(name, True, shares)
        print(f"{name} templates: {self.templates_right(shares)}", flush=True)
        print(f"{name} SQuAD's sentences: {self.sentences_right(shares)}", flush=True)


def near_sentences(
    near: Neighbours, cached: tuple[States, States], margin: float
) -> NDArray[np.int64]:
    """Sentences of all texts that are near each question and not above the answer: (n, NEAREST)."""
    asked, read = (torch.from_numpy(np.ascontiguousarray(states.vectors)) for states in cached)
    found = np.full((len(near.queries), NEAREST), NONE, dtype=np.int64)
    for start in range(0, len(found), 1024):
        cosines, rows = (asked[start : start + 1024] @ read.T).topk(NEAREST, dim=1)
        own = (asked[start : start + 1024] * read[near.answers[start : start + 1024]]).sum(1)
        fits = cosines < own.unsqueeze(1) + margin
        found[start : start + 1024] = torch.where(fits, rows, NONE).numpy()
    return found


def main() -> None:
    """Run the steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data", "e5", "exported"):
        parser.add_argument(name, type=existing_path)
    for name in ("work", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--config", type=existing_path, nargs="+", default=[CONFIG, CHANGES])
    parser.add_argument("--name", default="model", help="of the run's checkpoints")
    parser.add_argument(
        "--start", type=existing_path, help="an earlier reader, to go on from its weights"
    )
    parser.add_argument("--share", type=float, help="of the reader; None to train and watch alone")
    parser.add_argument("--set", nargs="*", default=[], help="train.reader.steps=100, for trials")
    given = parser.parse_args()
    torch.set_num_threads(1)
    config = read_config(given.config, given.set)
    keep_memory()
    prepared, trainer = reader_trainer(given.data, given.e5, given.exported, given.work, config)
    if given.start:  # it may have more layers
        own = trainer.runner.branches.state_dict()
        earlier = torch.load(given.start)
        trainer.runner.branches.load_state_dict({key: earlier[key] for key in own})
    trainer.train(given.name, "reader")
    trainer.watch(f"{given.name}, all steps", SHARES)
    if given.share is not None:
        trainer.runner.branches.share.fill_(given.share)
        publish(prepared, trainer, given.e5, given.out, config, True)


def reader_trainer(
    data: Path, e5: Path, exported: Path, work: Path, config: dict[str, Any]
) -> tuple[Prepared, ReaderTrainer]:
    """Everything that a run needs, with an untrained reader."""
    prepared = prepare(data, e5, work, config)
    stored = onnx.load(exported / "onnx" / "model.onnx")
    lexical = lexical_of(stored, prepared.tokenizer)
    prepared = Prepared(
        prepared.encoder, prepared.tokenizer, lexical, prepared.plan, prepared.texts,
        prepared.second,
    )  # fmt: skip
    trainer = new_trainer(prepared, work, config, ReaderTrainer)
    assert isinstance(trainer, ReaderTrainer)
    load_head(trainer.runner.branches, stored)
    kind, settings, lower = teachers(e5)["e5"], config["texts"], config["model"]["lower"]
    near = neighbours(data, config)
    listed = [kind.query + text for text in near.queries], [kind.passage + t for t in near.texts]
    most = settings["query_tokens"], settings["passage_tokens"]
    names = ("squad_queries", "squad_sentences")
    cached = [
        cached_states(
            prepared.encoder,
            token_ids(prepared.tokenizer, own, length),
            lower,
            work / name,
            prepared.texts.read[0].scales,
        )
        for own, length, name in zip(listed, most, names, strict=True)
    ]
    passages = draw_corpus(data, work, prepared.tokenizer, config["data"]).passages
    trainer.prepare(live_of(prepared, passages, config), near, (cached[0], cached[1]))
    return prepared, trainer


if __name__ == "__main__":
    main()
