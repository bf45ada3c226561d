"""all-MiniLM-L6-v2 in plain PyTorch: the teacher, and the trunk of the bundled cross-encoder."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

LAYERS, WIDTH, HEADS, INNER, POSITIONS, VOCABULARY = 6, 384, 12, 1536, 512, 30522


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

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """(N, L, WIDTH), where each token sees the ``visible`` ones, bool (N, 1, 1 or L, L)."""
        q, k, v = (
            part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        x = self.norm_attention(x + self.output(mixed.transpose(1, 2).flatten(2)))
        hidden: Tensor = self.norm_output(x + self.down(F.gelu(self.up(x))))
        return hidden


class MiniLM(nn.Module):
    """The encoder without its pooler."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.types = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states (N, L, WIDTH) of ids (N, L) where ``mask`` is 1."""
        places = torch.arange(ids.shape[1])
        x = self.norm(self.words(ids) + self.positions(places) + self.types.weight[0])
        visible = mask.bool()[:, None, None, :]
        for layer in self.layers:
            x = layer(x, visible)
        return x


def mean_pooled(model: MiniLM, ids: Tensor, mask: Tensor) -> Tensor:
    """Mean of the last states where ``mask`` is 1: (N, WIDTH)."""
    weights = mask.unsqueeze(-1)
    pooled: Tensor = (model(ids, mask) * weights).sum(1) / weights.sum(1)
    return pooled


def load_teacher(folder: Path) -> MiniLM:
    """The published weights, in evaluation mode."""
    stored = load_file(folder / "model.safetensors")
    stored = {name.removeprefix("bert."): value for name, value in stored.items()}
    parts = {
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
        "words.weight": stored["embeddings.word_embeddings.weight"],
        "positions.weight": stored["embeddings.position_embeddings.weight"],
        "types.weight": stored["embeddings.token_type_embeddings.weight"],
        "norm.weight": stored["embeddings.LayerNorm.weight"],
        "norm.bias": stored["embeddings.LayerNorm.bias"],
    }
    for number in range(LAYERS):
        for ours, theirs in parts.items():
            for kind in ("weight", "bias"):
                name = f"encoder.layer.{number}.{theirs}.{kind}"
                state[f"layers.{number}.{ours}.{kind}"] = stored[name]
    model = MiniLM()
    model.load_state_dict(state)
    return model.eval()
