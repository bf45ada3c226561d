"""all-MiniLM-L6-v2, the teacher of the static embedder."""

from encoders import Encoder, load_encoder
from torch import Tensor

__all__ = ["load_teacher", "mean_pooled"]

load_teacher = load_encoder


def mean_pooled(model: Encoder, ids: Tensor, mask: Tensor) -> Tensor:
    """Mean of the last states where ``mask`` is 1: (N, WIDTH)."""
    weights = mask.unsqueeze(-1).to(model.words.weight.dtype)
    pooled: Tensor = (model.states(ids, mask, 0)[1] * weights).sum(1) / weights.sum(1)
    return pooled
