"""Inputs of a session beyond token ids: types, positions, and the empty past of a decoder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import ModelFileError

__all__ = ["STATES", "Inputs"]

TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
# Of each token, from the trunk of a split model: see qdrant_rerank.inference.conversion.split.
STATES = "states"
# A decoder's keys and values of earlier tokens; a reranker has no earlier tokens.
PAST = "past_key_values."
# Of exports that compute the vocabulary's logits only at the last n positions.
LAST_LOGITS = ("num_logits_to_keep", "logits_to_keep")
TYPES = {
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


class Inputs:
    """Fills the inputs that an ONNX file declares.

    Args:
        inputs: the session's inputs (name, type, shape), as onnxruntime describes them.
        path: the ONNX file, for errors.

    Attributes:
        names: of the inputs.
        one_row: whether the graph itself allows only one pair per batch.
        fixed_width: tokens of every row, if the graph allows only rows of one length; else None.

    Raises:
        ModelFileError: the file has an input that no text encoder or decoder has, or takes only
            batches of one size above 1.
    """

    def __init__(self, inputs: Sequence[Any], path: Path) -> None:
        self._inputs = {node.name: node for node in inputs}
        self.names = frozenset(self._inputs)
        known = (*TEXT_INPUTS, *LAST_LOGITS, STATES)
        unknown = sorted(
            name
            for name, node in self._inputs.items()
            if (name not in known and not name.startswith(PAST)) or node.type not in TYPES
        )
        if unknown or "input_ids" not in self._inputs:
            raise ModelFileError(
                f"{path} takes the inputs {sorted(self._inputs)}; a text encoder takes input_ids "
                f"and may take {', '.join(TEXT_INPUTS[1:])}, a decoder also {PAST}* and "
                f"{LAST_LOGITS[0]}. Unknown: {', '.join(unknown) or 'none'}. Is it another kind "
                "of model, or a merged decoder? Export it for text classification or generation "
                "without a cache."
            )
        rows, width = ([*self._inputs["input_ids"].shape, None, None])[:2]
        if isinstance(rows, int) and rows > 1:
            raise ModelFileError(
                f"{path} takes batches of exactly {rows} pairs. Export it with a batch size that "
                "is not fixed, or fixed to 1."
            )
        # Without a mask, padding would be read as text.
        self.one_row = rows == 1 or "attention_mask" not in self._inputs
        self.fixed_width = width if isinstance(width, int) and width > 0 else None

    def __call__(
        self,
        input_ids: NDArray[np.int64],
        attention_mask: NDArray[np.int64],
        token_type_ids: NDArray[np.int64],
        first_position: int = 0,
    ) -> Mapping[str, NDArray[Any]]:
        """Return the arrays of one batch.

        Args:
            input_ids: shape (n, width), int64.
            attention_mask: shape (n, width), int64; 1 on tokens and 0 on padding, on either side.
            token_type_ids: shape (n, width), int64.
            first_position: of the first token; RoBERTa's positions start after its padding id.
        """
        text = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": np.maximum(attention_mask.cumsum(axis=1) - 1, 0) + first_position,
        }
        found: dict[str, NDArray[Any]] = {}
        for name, node in self._inputs.items():
            if name == STATES:
                continue  # the caller adds them
            dtype = TYPES[node.type]
            if name in text:
                found[name] = text[name].astype(dtype)
            elif name in LAST_LOGITS:
                found[name] = np.ones([1] * len(node.shape), dtype=dtype)
            else:
                # A past of no tokens: (rows, heads, 0, size), as far as the file names these.
                sizes = [size if isinstance(size, int) else 0 for size in node.shape]
                sizes[0] = sizes[0] or len(input_ids)
                found[name] = np.zeros(sizes, dtype=dtype)
        return found
