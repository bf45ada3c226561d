"""The grown cross-encoder: a frozen bi-encoder trunk and a trained query-side reader.

A pair is written ``[CLS] query [SEP] [CLS] document [SEP]``. The trunk (six MiniLM layers)
attends inside each segment only, so ``20 * cosine`` of the two mean-pooled segments is the
bi-encoder's own score. On top of it the *reader* adds a residual that is zero before training:

* reader layers, initialised from the trunk's upper layers, in which the **query** tokens attend to
  themselves and to the trunk's states of the document (as in MORES, Gao et al. 2020). Document
  tokens are never updated, so a layer costs two projections a document token;
* soft-match features (as in K-NRM and CEDR): for every query token, how well and how often it
  is matched in the document, exactly and by cosine at several trunk layers, weighted by a learned
  term importance.

Shapes: N pairs, B queries, L tokens a pair, Q query tokens, D document tokens, H = 384 wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

BASE_SCALE = 20.0  # logit of a perfect bi-encoder match; the scale MiniLM was trained with
KERNELS = (0.95, 0.85, 0.7, 0.55, 0.4, 0.2)  # centres of the soft-match kernels, in cosine
KERNEL_WIDTH = 0.08
NEGATIVE = -1e4  # masked attention score; finite, so an empty segment cannot give NaN


@dataclass(frozen=True)
class ReaderConfig:
    """What the reader is made of; saved with its weights."""

    layers: int = 2  # query-side transformer layers
    match_layers: tuple[int, ...] = (0, 4, 6)  # trunk layers compared by cosine
    features: bool = True  # soft-match features
    hidden: int = 128  # width of the scoring networks
    dropout: float = 0.1


class Layer(nn.Module):
    """One BERT layer, split so that queries, keys and values may come from different states."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.norm_attention = nn.LayerNorm(width, eps=1e-12)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.norm_output = nn.LayerNorm(width, eps=1e-12)

    def split(self, x: Tensor) -> Tensor:
        """(N, L, H) -> (N, heads, L, H / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def attend(self, x: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Update ``x`` (N, Q, H) from ``key`` and ``value`` (N, K, H) under ``bias`` (N, 1, ., K)."""
        q, k, v = self.split(self.query(x)), self.split(key), self.split(value)
        scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5) + bias
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = self.norm_attention(x + self.output(mixed))
        return self.norm_output(x + self.down(F.gelu(self.up(x))))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Plain self-attention."""
        return self.attend(x, self.key(x), self.value(x), bias)


class Trunk(nn.Module):
    """all-MiniLM-L6-v2, run on one segment or on two segments that do not see each other."""

    def __init__(self, vocabulary: int = 30522, width: int = 384, layers: int = 6) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(512, width)
        self.types = nn.Parameter(torch.zeros(width))  # row 0 only: the bi-encoder knows no other
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(Layer(width, 12, 4 * width) for _ in range(layers))

    @classmethod
    def load(cls, folder: Path) -> Trunk:
        """Read ``model.safetensors`` of all-MiniLM-L6-v2 as published."""
        weights = load_file(folder / "model.safetensors")
        weights = {name.removeprefix("bert."): value for name, value in weights.items()}
        names = {
            "query": "attention.self.query",
            "key": "attention.self.key",
            "value": "attention.self.value",
            "output": "attention.output.dense",
            "norm_attention": "attention.output.LayerNorm",
            "up": "intermediate.dense",
            "down": "output.dense",
            "norm_output": "output.LayerNorm",
        }
        state = {
            "words.weight": weights["embeddings.word_embeddings.weight"],
            "positions.weight": weights["embeddings.position_embeddings.weight"],
            "types": weights["embeddings.token_type_embeddings.weight"][0],
            "norm.weight": weights["embeddings.LayerNorm.weight"],
            "norm.bias": weights["embeddings.LayerNorm.bias"],
        }
        for number in range(6):
            for ours, theirs in names.items():
                for part in ("weight", "bias"):
                    source = f"encoder.layer.{number}.{theirs}.{part}"
                    state[f"layers.{number}.{ours}.{part}"] = weights[source]
        trunk = cls()
        trunk.load_state_dict(state)
        return trunk.eval().requires_grad_(False)

    def forward(self, ids: Tensor, positions: Tensor, bias: Tensor) -> list[Tensor]:
        """States after each layer, embeddings first: seven tensors (N, L, H)."""
        x = self.norm(self.words(ids) + self.positions(positions) + self.types)
        states = [x]
        for layer in self.layers:
            x = layer(x, bias)
            states.append(x)
        return states


def mean_pool(states: Tensor, mask: Tensor) -> Tensor:
    """Unit-length mean of the states where ``mask`` is 1: (N, L, H), (N, L) -> (N, H)."""
    weights = mask.to(states.dtype).unsqueeze(-1)
    total = (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)
    return unit(total)


def unit(x: Tensor) -> Tensor:
    """Scale the last axis to length 1."""
    return x / (x * x).sum(-1, keepdim=True).clamp(min=1e-12).sqrt()


class Reader(nn.Module):
    """The trained part: trunk states of a query and a document -> a residual logit."""

    def __init__(self, config: ReaderConfig, idf: Tensor, width: int = 384) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("idf", idf.float())
        self.layers = nn.ModuleList(Layer(width, 12, 4 * width) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        count = 1 + 3  # idf; exact: present, saturated count; document length
        if config.features:
            count += (2 + len(KERNELS)) * len(config.match_layers)
        self.features = count
        self.importance = nn.Linear(width, 1)
        self.importance_idf = nn.Parameter(torch.tensor(0.5))
        self.token_state = nn.Linear(width, config.hidden)
        self.token_match = nn.Linear(count, config.hidden)
        self.token_score = nn.Linear(config.hidden, 1)
        self.pair = nn.Linear(2 * width, config.hidden)
        self.pair_score = nn.Linear(config.hidden, 1)
        self.base_scale = nn.Parameter(torch.tensor(1.0))
        for score in (self.token_score, self.pair_score):
            nn.init.zeros_(score.weight)
            nn.init.zeros_(score.bias)
        nn.init.zeros_(self.importance.weight)
        nn.init.zeros_(self.importance.bias)

    def grow_from(self, trunk: Trunk) -> None:
        """Copy the trunk's last layers into the reader's."""
        first = len(trunk.layers) - len(self.layers)
        for ours, theirs in zip(self.layers, trunk.layers[first:], strict=True):
            ours.load_state_dict(theirs.state_dict())

    @property
    def document_layers(self) -> tuple[int, ...]:
        """Trunk layers whose document states the reader layers attend to."""
        return tuple(range(6 - self.config.layers, 6))

    def match(
        self,
        query_ids: Tensor,
        document_ids: Tensor,
        document_mask: Tensor,
        pairs: Sequence[tuple[Tensor, Tensor]],
    ) -> Tensor:
        """Match features of every query token.

        Args:
            query_ids: (N, Q).
            document_ids: (N, D).
            document_mask: (N, D), 1.0 on document tokens.
            pairs: query (N, Q, H) and document (N, D, H) states, a pair a match layer.

        Returns:
            (N, Q, features), float32.
        """
        mask = document_mask.float().unsqueeze(1)
        length = document_mask.float().sum(1).clamp(min=1.0)[:, None, None]
        exact = (query_ids.unsqueeze(2) == document_ids.unsqueeze(1)).float() * mask
        count = exact.sum(-1, keepdim=True)
        idf = self.idf[query_ids].unsqueeze(-1)
        saturated = count / (count + 0.3 + 0.9 * length / 100.0)
        columns = [idf / 5.0, count.clamp(max=1.0), saturated, (length / 100.0).log() + 0.0 * count]
        if self.config.features:
            for query, document in pairs:
                cosine = (unit(query.float()) @ unit(document.float()).transpose(1, 2)) * mask
                top = cosine - 2.0 * (1.0 - mask)
                columns.append(top.amax(-1, keepdim=True))
                columns.append(cosine.sum(-1, keepdim=True) / length)
                for centre in KERNELS:
                    near = torch.exp((cosine - centre) ** 2 * (-0.5 / KERNEL_WIDTH**2)) * mask
                    columns.append(near.sum(-1, keepdim=True).clamp(min=1e-3).log() * 0.2)
        return torch.cat(columns, -1)

    def score(
        self,
        base: Tensor,
        query_mask: Tensor,
        query_top: Tensor,
        read: Tensor,
        features: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Logit and residual from what was read and matched.

        Args:
            base: (N,) the bi-encoder's logit.
            query_mask: (N, Q), 1.0 on words of the query (not on ``[CLS]`` and ``[SEP]``).
            query_top: (N, Q, H) last trunk states of the query, for the term importance.
            read: (N, Q, H) query states after the reader layers.
            features: (N, Q, features).

        Returns:
            logits (N,) and residuals (N,).
        """
        idf = features[..., :1]
        weight = F.softplus(self.importance(query_top) + self.importance_idf * idf)
        weight = weight * query_mask.unsqueeze(-1)
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-6)
        token = self.token_state(self.dropout(read)) + self.token_match(features)
        token = self.token_score(F.gelu(token))
        pooled = torch.cat([read[:, 0], (read * weight).sum(1)], -1)
        pair = self.pair_score(F.gelu(self.pair(self.dropout(pooled))))
        residual = 10.0 * (token * weight).sum((1, 2)) + pair.squeeze(-1)
        return self.base_scale * base + residual, residual


class GrownCrossEncoder(nn.Module):
    """Trunk and reader as one network over padded pairs; what is exported."""

    def __init__(self, trunk: Trunk, reader: Reader) -> None:
        super().__init__()
        self.trunk = trunk
        self.reader = reader

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """All inputs (N, L) int64; returns logits (N, 1) float32."""
        reader = self.reader
        query_mask = attention_mask * (1 - token_type_ids)
        document_mask = (attention_mask * token_type_ids).float()
        lengths = query_mask.sum(1)
        same = token_type_ids.unsqueeze(2) == token_type_ids.unsqueeze(1)
        visible = same.float() * attention_mask.float().unsqueeze(1)
        bias = ((1.0 - visible) * NEGATIVE).unsqueeze(1)
        places = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        positions = (places - token_type_ids * lengths.unsqueeze(1)).clamp(0, 511)
        states = self.trunk(input_ids, positions, bias)
        query_vector = mean_pool(states[-1], query_mask)
        document_vector = mean_pool(states[-1], document_mask)
        base = BASE_SCALE * (query_vector * document_vector).sum(-1)

        longest = lengths.max()
        q_mask = query_mask[:, :longest].float()
        x = states[6 - len(reader.layers)][:, :longest]
        key_mask = torch.cat([q_mask, document_mask], 1)
        key_bias = ((1.0 - key_mask) * NEGATIVE)[:, None, None]
        for layer, number in zip(reader.layers, reader.document_layers, strict=True):
            document = states[number]
            key = torch.cat([layer.key(x), layer.key(document)], 1)
            value = torch.cat([layer.value(x), layer.value(document)], 1)
            x = layer.attend(x, key, value, key_bias)
        q_ids = input_ids[:, :longest]
        pairs = [
            (self.match_state(states, n, q_ids)[:, :longest], self.match_state(states, n, input_ids))
            for n in reader.config.match_layers
        ]
        features = reader.match(q_ids, input_ids, document_mask, pairs)
        words = q_mask * (q_ids != 101).float() * (q_ids != 102).float()
        logits, _ = reader.score(base, words, states[-1][:, :longest], x, features)
        return logits.unsqueeze(-1)

    def match_state(self, states: list[Tensor], number: int, ids: Tensor) -> Tensor:
        """States compared at a match layer; layer 0 means the bare word embeddings."""
        return self.trunk.words(ids) if number == 0 else states[number]
