"""The cross-encoder that is grown from a bi-encoder, in plain PyTorch.

    [CLS] query [SEP] [CLS] document [SEP]

*Trunk*: layers of all-MiniLM-L6-v2, frozen. They attend inside each segment only, with the
document's positions counted from 0 again, so that each segment gets the states that the bi-encoder
would give it, and a document's could be computed once for all queries.

*Branches*: (1) 20 x cosine of the mean-pooled segments after the last trunk layer: the bi-encoder's
own score. (2) Soft match: each query token's best cosine among the document's tokens (late
interaction, Khattab and Zaharia 2020), weighted by a learned weight a token. (3) Exact match: what
BM25 knows, from token ids alone. (4) Further layers that start from the trunk's lower states and
attend across the pair.

*Heads*: one adds to (1) what is zero before training, a linear function of the scalars (1) to (3)
and a small network of these and (4): at step 0 the model is the bi-encoder. The other, fitted
after training, sees the scalars alone. The logit is a weighted mean of both.
"""

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from minilm import WIDTH, MiniLM, unseen
from numpy.typing import NDArray
from torch import Tensor, nn

K1, B, AVERAGE_LENGTH = 1.2, 0.75, 128.0  # BM25's; the length in tokens
SCALARS = 6  # cosine, soft match, match, coverage, bigrams, length
TINY = 1e-6


class ExactMatch(nn.Module):
    """Four features of the token ids of a pair.

    Args:
        classes: for each token id the id that stands for its stem, (vocabulary,).
        weights: inverse document frequency of each id's class, 0 for special tokens, (vocabulary,).
    """

    def __init__(self, classes: NDArray[np.int16], weights: NDArray[np.float32]) -> None:
        super().__init__()
        self.register_buffer("classes", torch.from_numpy(classes))
        self.register_buffer("weights", torch.from_numpy(weights))

    def forward(self, ids: Tensor, in_query: Tensor, in_document: Tensor) -> Tensor:
        """(N, 4) of ids (N, L) and float masks (N, L).

        The saturated term frequency of BM25, the share of the query's terms that occur, the same
        of its pairs of neighbours, each weighted and as a share of all; and the log length.
        """
        known = self.classes[ids].int()
        weight = self.weights[ids] * in_query
        equal = (known.unsqueeze(2) == known.unsqueeze(1)).float() * in_document.unsqueeze(1)
        frequency = equal.sum(2)
        length = in_document.sum(1, keepdim=True)
        saturated = frequency / (frequency + K1 * (1 - B + B / AVERAGE_LENGTH * length))
        total = weight.sum(1, keepdim=True) + TINY
        neighbours = (equal[:, :-1, :-1] * equal[:, 1:, 1:]).sum(2).clamp(max=1.0)
        both = torch.minimum(weight[:, :-1], weight[:, 1:])
        return torch.cat(
            [
                (weight * saturated).sum(1, keepdim=True) / total,
                (weight * frequency.clamp(max=1.0)).sum(1, keepdim=True) / total,
                (both * neighbours).sum(1, keepdim=True) / (both.sum(1, keepdim=True) + TINY),
                torch.log(length / AVERAGE_LENGTH),
            ],
            dim=1,
        )


class Trunk(nn.Module):
    """The frozen layers, and the exact match, which has nothing to learn either."""

    def __init__(self, teacher: MiniLM, exact: ExactMatch, layers: int, lower: int) -> None:
        super().__init__()
        self.encoder = teacher
        self.encoder.layers = teacher.layers[:layers]
        self.exact = exact
        self.lower = lower
        self.requires_grad_(False)

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States after the lower and after all layers, (N, L, WIDTH), and exact match, (N, 4)."""
        in_document, in_query = mask * types, mask * (1 - types)
        places = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
        places = (places - types * in_query.sum(1, keepdim=True)).clamp(min=0)
        same = types.unsqueeze(2) == types.unsqueeze(1)
        x = self.encoder.embed(ids, places)
        hidden_from = unseen((same & mask.bool().unsqueeze(1)).unsqueeze(1), x.dtype)
        lower = x
        for number, layer in enumerate(self.encoder.layers):
            x = layer(x, hidden_from)
            if number + 1 == self.lower:
                lower = x
        return lower, x, self.exact(ids, in_query.float(), in_document.float())


class Branches(nn.Module):
    """What is trained."""

    def __init__(self, teacher: MiniLM, settings: dict[str, Any]) -> None:
        super().__init__()
        first = settings["lower"]
        self.cross = nn.ModuleList(
            copy.deepcopy(layer) for layer in teacher.layers[first : first + settings["cross"]]
        )
        self.segments = nn.Parameter(torch.zeros(2, WIDTH))
        self.project = nn.Linear(WIDTH, settings["soft"], bias=False)
        nn.init.orthogonal_(self.project.weight)
        self.weigh = nn.Linear(WIDTH, 1)
        nn.init.zeros_(self.weigh.weight)
        self.linear = nn.Parameter(torch.zeros(SCALARS))
        self.register_buffer("shift", torch.zeros(SCALARS))
        self.register_buffer("scale", torch.ones(SCALARS))
        self.from_scalars = nn.Linear(SCALARS, settings["hidden"])
        self.from_states = nn.Linear(3 * WIDTH, settings["hidden"])
        self.out = nn.Linear(settings["hidden"], 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        lower: Tensor,
        top: Tensor,
        exact: Tensor,
        mask: Tensor,
        types: Tensor,
        alone: "ScalarHead | None" = None,
        across: float = 1.0,
    ) -> Tensor:
        """Logits (N,); with ``alone``, ``across`` of the own head's and the rest of that one's."""
        scalars = self.scalars(top, exact, mask, types)
        logits = self.score(scalars, self.across(lower, mask, types))
        return logits if alone is None else across * logits + (1 - across) * alone(scalars)

    def scalars(self, top: Tensor, exact: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        """Cosine, soft match and exact match: (N, SCALARS)."""
        in_document, in_query = (mask * types).float(), (mask * (1 - types)).float()
        top = top.float()
        cosine = F.cosine_similarity(mean(top, in_query), mean(top, in_document), dim=1)
        tokens = F.normalize(self.project(top), dim=-1)
        similar = tokens @ tokens.transpose(1, 2) - 2.0 * (1 - in_document).unsqueeze(1)
        best = similar.amax(2)
        weight = torch.exp(self.weigh(top).squeeze(2)) * in_query
        soft = (weight * best).sum(1) / weight.sum(1)
        return torch.cat([20 * cosine.unsqueeze(1), 20 * soft.unsqueeze(1), exact], dim=1)

    def across(self, lower: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        """What attention across the pair sees: (N, 3 * WIDTH)."""
        x = lower + self.segments.to(lower.dtype)[types]
        hidden_from = unseen(mask.bool()[:, None, None, :], x.dtype)
        for layer in self.cross:
            x = layer(x, hidden_from)
        x = x.float()
        u = mean(x, (mask * (1 - types)).float())
        v = mean(x, (mask * types).float())
        return torch.cat([x[:, 0], u * v, (u - v).abs()], dim=1)

    def score(self, scalars: Tensor, states: Tensor) -> Tensor:
        """Logits (N,)."""
        z = (scalars - self.shift) / self.scale
        bent = self.out(F.gelu(self.from_scalars(z) + self.from_states(states))).squeeze(1)
        return scalars[:, 0] + (z * self.linear).sum(1) + bent


class ScalarHead(nn.Module):
    """A small network of the scalars alone; several fits of it are one of more units."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(SCALARS))
        self.register_buffer("scale", torch.ones(SCALARS))
        self.linear = nn.Parameter(torch.zeros(SCALARS))
        self.inner = nn.Linear(SCALARS, hidden)
        self.out = nn.Linear(hidden, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, scalars: Tensor, dropout: float = 0.0) -> Tensor:
        """Logits (N,) of scalars (N, SCALARS)."""
        z = (scalars - self.shift) / self.scale
        units = F.dropout(F.gelu(self.inner(z)), dropout, training=dropout > 0)
        logits: Tensor = (z * self.linear).sum(1) + self.out(units).squeeze(1)
        return logits

    @torch.no_grad()
    def standardise(self, scalars: Tensor) -> None:
        """Take shift and scale from scalars (n, SCALARS)."""
        self.shift.copy_(scalars.mean(0))
        self.scale.copy_(scalars.std(0))

    @torch.no_grad()
    def load_mean(self, heads: "list[ScalarHead]") -> None:
        """Become the mean of heads whose units add up to this one's."""
        self.linear.copy_(torch.stack([h.linear for h in heads]).mean(0))
        self.inner.weight.copy_(torch.cat([h.inner.weight for h in heads]))
        self.inner.bias.copy_(torch.cat([h.inner.bias for h in heads]))
        self.out.weight.copy_(torch.cat([h.out.weight for h in heads], 1) / len(heads))
        self.out.bias.copy_(torch.stack([h.out.bias for h in heads]).mean(0))


class CrossEncoder(nn.Module):
    """The whole graph, as it is exported.

    Args:
        trunk: frozen.
        branches: trained.
        alone: fitted; None for the branches' own head.
        across: share of the branches' own head in the logit, beside ``alone``.
    """

    def __init__(
        self,
        trunk: Trunk,
        branches: Branches,
        alone: ScalarHead | None = None,
        across: float = 1.0,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.branches = branches
        self.alone = alone
        self.share = across

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Logits (N, 1)."""
        states = self.trunk(input_ids, attention_mask, token_type_ids)
        masks = attention_mask, token_type_ids
        logits: Tensor = self.branches(*states, *masks, self.alone, self.share)
        return logits.unsqueeze(1)


def mean(states: Tensor, weight: Tensor) -> Tensor:
    """Mean of the states (N, L, W) with weights (N, L): (N, W)."""
    return (states * weight.unsqueeze(2)).sum(1) / weight.sum(1, keepdim=True)
