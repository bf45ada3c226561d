"""The cross-encoder that is grown from e5-small-v2, in plain PyTorch.

    [CLS] query: ... [SEP] [CLS] passage: ... [SEP]

*Trunk*: the twelve layers of e5-small-v2, frozen. They attend inside each segment only, with the
document's positions counted from 0 again, so that each segment gets the states that the bi-encoder
would give it: the mean of a segment's last states is e5's own vector, and a document's states could
be computed once for all queries.

*Branches*, which are trained: (1) scalars of a pair, from the last states and from the token ids.
(2) A reader: a layer that attends across the pair, on the trunk's lower states, then layers that
only the query's tokens go through, which read the document's states.

*Head*: a function of the scalars, trained first, plus a bounded one of the reader's states, trained
on what the scalars leave over. The reader's share of the logit is chosen after training, on whole
sets that it has not seen.
"""

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from encoders import WIDTH, Encoder, pooled, unseen
from numpy.typing import NDArray
from torch import Tensor, nn

K1, B, AVERAGE_LENGTH = 1.2, 0.75, 128.0  # BM25's; the length in tokens
PREFIX = 3  # tokens of a segment before its text: [CLS] and "query:" or "passage:"
WINDOW, STRIDE = 32, 8  # tokens of a part of the document that is compared on its own
LEAST_REST = 0.5  # stands for no words beyond the query's
SHARPNESS = 60.0  # of the cosine in the logit before training
# Weight of the exact match in it: for each token of the query beyond some, and its bounds. On the
# training sets, more helps where queries are long.
PER_TOKEN, FREE_TOKENS, LEAST_MATCH, MOST_MATCH = 1.3, 3.0, 5.0, 26.0
DOUBT = 0.3  # taken from the cosine of a token that asks instead of saying something
SCALARS = (
    "cosine",
    "window",
    "rest",
    "rest_window",
    "learned",
    "answer",
    "soft",
    "soft_rest",
    "asking",
    "stated",
    "soft_stated",
    "match",
    "coverage",
    "bigrams",
    "trigrams",
    "new_share",
    "new",
    "questions",
    "length",
    "asked",
)
# Longer documents than those of the training count as the longest of these.
LONGEST, MOST_NEW = 250.0, 7.0
LONGEST_QUERY = 48.0
TINY = 1e-6


class Lexical(nn.Module):
    """What the token ids alone say of a pair.

    Args:
        classes: for each token id the id that stands for its stem, (vocabulary,).
        weights: inverse document frequency of each id's class, 0 for special tokens, (vocabulary,).
        question_mark: its id.
        stops: ids of the marks that end a sentence.
    """

    def __init__(
        self,
        classes: NDArray[np.int16],
        weights: NDArray[np.float32],
        question_mark: int,
        stops: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.register_buffer("classes", torch.from_numpy(classes))
        self.register_buffer("weights", torch.from_numpy(weights))
        self.question_mark = question_mark
        self.stops = stops

    def forward(
        self, ids: Tensor, in_query: Tensor, in_document: Tensor, front: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Nine features (N, 9), and which of the document's tokens the query lacks, (N, L).

        Args:
            ids: (N, L).
            in_query: 1 for tokens of the query's text, (N, L).
            in_document: 1 for tokens of the document's text, (N, L).
            front: the first positions, which hold all queries, (n,).
        """
        known = self.classes[ids].float()
        table = self.weights[ids]
        in_query, in_document = in_query * (table > 0), in_document * (table > 0)
        asked = in_query.index_select(1, front)
        weight = table.index_select(1, front) * asked
        equal = (known.index_select(1, front).unsqueeze(2) == known.unsqueeze(1)).float()
        equal = equal * in_document.unsqueeze(1) * asked.unsqueeze(2)
        frequency = equal.sum(2)
        length = in_document.sum(1, keepdim=True)
        saturated = frequency / (frequency + K1 * (1 - B + B / AVERAGE_LENGTH * length) + TINY)
        total = weight.sum(1, keepdim=True) + TINY
        two = equal[:, :-1, :-1] * equal[:, 1:, 1:]
        three = two[:, :-1, :-1] * equal[:, 2:, 2:]
        both = torch.minimum(weight[:, :-1], weight[:, 1:])
        triples = (asked.sum(1, keepdim=True) - 2).clamp(min=1.0)
        new = in_document * (1 - equal.amax(1))
        carried = (table * in_document).sum(1, keepdim=True)
        added = (table * new).sum(1, keepdim=True)
        asks = ((ids == self.question_mark).float() * in_document).sum(1, keepdim=True)
        ends = sum((ids == stop).float() for stop in self.stops)
        ends = (ends * in_document).sum(1, keepdim=True)
        features = [
            (weight * saturated).sum(1, keepdim=True) / total,
            (weight * frequency.clamp(max=1.0)).sum(1, keepdim=True) / total,
            (both * two.sum(2).clamp(max=1.0)).sum(1, keepdim=True)
            / (both.sum(1, keepdim=True) + TINY),
            three.sum(2).clamp(max=1.0).sum(1, keepdim=True) / triples,
            added / (carried + TINY),
            torch.log1p(added).clamp(max=MOST_NEW),
            asks / (asks + ends + 1.0),
            torch.log(length.clamp(min=1.0, max=LONGEST) / AVERAGE_LENGTH),
            torch.log(asked.sum(1, keepdim=True).clamp(min=1.0, max=LONGEST_QUERY)),
        ]
        return torch.cat(features, dim=1), new


class Trunk(nn.Module):
    """The frozen layers, and the lexical features, which have nothing to learn either."""

    def __init__(self, encoder: Encoder, lexical: Lexical, lower: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.lexical = lexical
        self.lower = lower
        self.requires_grad_(False)

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> tuple[Tensor, Tensor]:
        """States after the lower and after all layers, (N, L, WIDTH)."""
        places = positions(mask, types)
        same = types.unsqueeze(2) == types.unsqueeze(1)
        x = self.encoder.embed(ids, places)
        hidden_from = unseen((same & mask.bool().unsqueeze(1)).unsqueeze(1), x.dtype)
        lower = x
        for number, layer in enumerate(self.encoder.layers):
            x = layer(x, hidden_from)
            if number + 1 == self.lower:
                lower = x
        return lower, x


class Branches(nn.Module):
    """What is trained."""

    def __init__(self, encoder: Encoder, settings: dict[str, Any]) -> None:
        super().__init__()
        first = settings["lower"]
        joint, reading = settings["joint"], settings["reading"]
        last = len(encoder.layers)
        layers = [encoder.layers[min(first + at, last - 1)] for at in range(joint + reading)]
        self.joint = nn.ModuleList(copy.deepcopy(layer) for layer in layers[:joint])
        self.reading = nn.ModuleList(copy.deepcopy(layer) for layer in layers[joint:])
        self.segments = nn.Parameter(torch.zeros(2, WIDTH))
        self.project = nn.Linear(WIDTH, settings["soft"], bias=False)
        nn.init.orthogonal_(self.project.weight)
        self.weigh = nn.Linear(WIDTH, 1)
        nn.init.zeros_(self.weigh.weight)
        answer = settings["answer"]
        self.wanted = nn.Linear(2 * WIDTH, answer)
        self.given = nn.Linear(WIDTH, answer)
        self.about_query = nn.Linear(WIDTH, answer, bias=False)
        self.about_document = nn.Linear(WIDTH, answer, bias=False)
        nn.init.orthogonal_(self.about_query.weight)
        self.about_document.weight.data.copy_(self.about_query.weight.data)
        self.asks_in = nn.Linear(WIDTH, settings["asks_hidden"])
        self.asks_out = nn.Linear(settings["asks_hidden"], 1)
        nn.init.zeros_(self.asks_out.weight)
        nn.init.constant_(self.asks_out.bias, -1.0)
        count, hidden = len(SCALARS), settings["hidden"]
        self.bound = settings["bound"]
        self.register_buffer("shift", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))
        self.linear = nn.Parameter(torch.zeros(count))
        self.scalars_in = nn.Linear(count, settings["scalar_hidden"])
        self.scalars_out = nn.Linear(settings["scalar_hidden"], 1)
        self.reader_in = nn.Linear(3 * WIDTH, hidden)
        self.reader_scalars = nn.Linear(count, hidden, bias=False)
        self.reader_out = nn.Linear(hidden, 1)
        for out in (self.scalars_out, self.reader_out):
            nn.init.zeros_(out.weight)
            nn.init.zeros_(out.bias)
        self.register_buffer("share", torch.ones(()))

    def forward(
        self,
        lower: Tensor,
        top: Tensor,
        features: Tensor,
        new: Tensor,
        mask: Tensor,
        types: Tensor,
        front: Tensor,
        read: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What is said before training, by the scalars, and what the reader adds, all (N,).

        Args:
            lower: the trunk's states after its lower layers, (N, L, WIDTH).
            top: those after its last layer.
            features: of ``Lexical``, (N, 9).
            new: of ``Lexical``, (N, L).
            mask: of the model's inputs, (N, L).
            types: likewise.
            front: the first positions, which hold all queries, (n,).
            read: False leaves the reader out.
        """
        z = self.scalars(top, features, new, mask, types, front)
        prior = self.prior(z)
        sure = prior + self.corrected(z)
        if not read:
            return prior, sure, torch.zeros_like(sure)
        return prior, sure, self.residual(z, self.read(lower, mask, types, front))

    def scalars(
        self,
        top: Tensor,
        features: Tensor,
        new: Tensor,
        mask: Tensor,
        types: Tensor,
        front: Tensor,
    ) -> Tensor:
        """The scalars, standardised: (N, len(SCALARS))."""
        in_document = (mask * types).float()
        in_query = (mask * (1 - types)).float()
        asked = in_query.index_select(1, front)
        top = top.float()
        query_top = top.index_select(1, front)
        query_mean, mean = pooled(query_top, asked), pooled(top, in_document)
        query = F.normalize(query_mean, dim=1).unsqueeze(2)
        window, rest_window = (
            (F.normalize(windows(top, weight, mask), dim=2, eps=1e-2) @ query).amax(1)
            for weight in (in_document, new)
        )
        cosine = F.normalize(mean, dim=1).unsqueeze(1) @ query
        rest = F.normalize(pooled(top, new), dim=1).unsqueeze(1) @ query
        about = F.normalize(self.about_query(query_mean), dim=1)
        learned = (about * F.normalize(self.about_document(mean), dim=1)).sum(1, keepdim=True)
        # What the query expects as an answer, beside the best token that it does not have itself.
        wanted = self.wanted(torch.cat([query_top[:, 0], query_mean], dim=1))
        given = F.normalize(self.given(top), dim=2) @ F.normalize(wanted, dim=1).unsqueeze(2)
        answer = (given.squeeze(2) - 2.0 * (1 - new)).amax(1, keepdim=True).clamp(min=-1.0)
        tokens = F.normalize(self.project(top), dim=-1)
        similar = tokens.index_select(1, front) @ tokens.transpose(1, 2)
        best = (similar - 2.0 * (1 - in_document).unsqueeze(1)).amax(2)
        best_rest = (similar - 2.0 * (1 - new).unsqueeze(1)).amax(2).clamp(min=LEAST_REST)
        # Of the document alone: which tokens stand in a question, or where nothing is said.
        asking = torch.sigmoid(self.asks_out(F.gelu(self.asks_in(top))).squeeze(2))
        stating = in_document * (1 - asking)
        stated = F.normalize(pooled(top, stating), dim=1).unsqueeze(1) @ query
        doubtful = similar - (2.0 * (1 - in_document) + DOUBT * asking).unsqueeze(1)
        weight = torch.exp(self.weigh(query_top).squeeze(2)) * asked
        total = weight.sum(1, keepdim=True)
        found = [
            cosine.squeeze(2),
            window,
            rest.squeeze(2).clamp(min=LEAST_REST),
            rest_window.clamp(min=LEAST_REST),
            learned,
            answer,
            (weight * best).sum(1, keepdim=True) / total,
            (weight * best_rest).sum(1, keepdim=True) / total,
            (in_document * asking).sum(1, keepdim=True) / in_document.sum(1, keepdim=True),
            stated.squeeze(2),
            (weight * doubtful.amax(2)).sum(1, keepdim=True) / total,
            features,
        ]
        return (torch.cat(found, dim=1) - self.shift) / self.scale

    def read(self, lower: Tensor, mask: Tensor, types: Tensor, front: Tensor) -> Tensor:
        """What the reader says: (N, 3 * WIDTH)."""
        x = lower + self.segments.to(lower.dtype)[types]
        hidden_from = unseen(mask.bool()[:, None, None, :], x.dtype)
        for layer in self.joint:
            x = layer(x, hidden_from)
        asked = (mask * (1 - types)).index_select(1, front).float()
        query = x.index_select(1, front)
        # The query's own states move on; the document's stay as they are.
        beyond = (mask * types).bool()[:, None, None, :]
        own = asked.bool()[:, None, None, :]
        visible = unseen(torch.cat([own, beyond], dim=3), x.dtype)
        for layer in self.reading:
            query = layer(query, visible, torch.cat([query, x], dim=1))
        query = query.float()
        document = pooled(x.float(), (mask * types).float())
        return torch.cat([query[:, 0], pooled(query, asked), document], dim=1)

    def prior(self, z: Tensor) -> Tensor:
        """Cosine and exact match, the logit before training: (N,)."""
        raw = z * self.scale + self.shift
        at = {name: raw[:, SCALARS.index(name)] for name in ("cosine", "match", "asked")}
        tokens = torch.exp(at["asked"]) - FREE_TOKENS
        weight = (PER_TOKEN * tokens).clamp(LEAST_MATCH, MOST_MATCH)
        return SHARPNESS * (at["cosine"] - self.shift[0]) + weight * at["match"]

    def corrected(self, z: Tensor) -> Tensor:
        """What training adds to it: (N,)."""
        linear = (z * self.linear).sum(1)
        return linear + self.scalars_out(F.gelu(self.scalars_in(z))).squeeze(1)

    def residual(self, z: Tensor, states: Tensor) -> Tensor:
        """What the reader adds, within ``bound`` of 0: (N,)."""
        read = F.gelu(self.reader_in(states) + self.reader_scalars(z))
        raw = self.reader_out(read).squeeze(1)
        return self.bound * torch.tanh(raw / self.bound)


class CrossEncoder(nn.Module):
    """The whole graph, as it is exported."""

    def __init__(self, trunk: Trunk, branches: Branches, read: bool = True) -> None:
        super().__init__()
        self.trunk = trunk
        self.branches = branches
        self.reads = read
        if not read:
            branches.joint, branches.reading = nn.ModuleList(), nn.ModuleList()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, 1), and the trunk's own vectors of the first texts, (N, WIDTH)."""
        mask, types = attention_mask, token_type_ids
        lower, top = self.trunk(input_ids, mask, types)
        asked = mask * (1 - types)
        front = torch.arange(asked.sum(1).amax(), device=mask.device)
        in_query, in_document = texts_of(mask, types)
        features, new = self.trunk.lexical(input_ids, in_query, in_document, front)
        _, sure, added = self.branches(lower, top, features, new, mask, types, front, self.reads)
        logits: Tensor = sure + self.branches.share * added if self.reads else sure
        first = pooled(top.index_select(1, front), asked.index_select(1, front).to(top.dtype))
        return logits.unsqueeze(1), F.normalize(first, dim=1)


def windows(states: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Means of the weighted states in overlapping parts, but for a factor: (N, parts, WIDTH).

    Parts whose middle is padding are 0, so that a pair has the same parts in every batch.
    """
    places = torch.arange(states.shape[1], device=states.device)
    starts = places[::STRIDE].unsqueeze(1) - WINDOW // 2
    inside = ((places >= starts) & (places < starts + WINDOW)).to(states.dtype)
    there = mask[:, ::STRIDE].to(states.dtype).unsqueeze(2)
    return (inside * there * weight.unsqueeze(1)) @ states


def positions(mask: Tensor, types: Tensor) -> Tensor:
    """Places of tokens in their own segment, (N, L)."""
    places = torch.arange(mask.shape[1], device=mask.device).unsqueeze(0)
    places = places - types * (mask * (1 - types)).sum(1, keepdim=True)
    return places.clamp(min=0)


def texts_of(mask: Tensor, types: Tensor) -> tuple[Tensor, Tensor]:
    """Where the query's and the document's own words are: two of (N, L), float.

    Without what the template puts before a text; the closing token has no weight.
    """
    own = (positions(mask, types) >= PREFIX).long() * mask
    return (own * (1 - types)).float(), (own * types).float()
