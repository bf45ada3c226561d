"""The head of scalars, read from an exported model, since no checkpoint of it need be left."""

import numpy as np
import onnx
import torch
from lexical import stem_classes
from numpy.typing import NDArray
from onnx.numpy_helper import to_array
from reader import Branches, Lexical
from tokenizers import Tokenizer
from torch import Tensor

# Of the reader, which an exported model of scalars alone does not have.
READER = ("joint.", "reading.", "segments", "reader_", "share")


def load_head(branches: Branches, stored: onnx.ModelProto) -> None:
    """Every weight of the scalars and their head, int8 matrices multiplied out."""
    known = {tensor.name: tensor for tensor in stored.graph.initializer}
    found: dict[str, Tensor] = {
        name.removeprefix("branches."): torch.from_numpy(to_array(tensor).copy())
        for name, tensor in known.items()
        if name.startswith("branches.") and "_Transposed" not in name
    }
    for node in stored.graph.node:
        if node.op_type == "MatMulInteger" and node.name.startswith("/branches/"):
            weight = to_array(known[node.input[1]]).astype(np.float32)  # its zero point is 0
            matrix = weight * to_array(known[node.input[1].removesuffix("_quantized") + "_scale"])
            found[f"{node.name.split('/')[2]}.weight"] = torch.from_numpy(matrix.T.copy())
    missing, unexpected = branches.load_state_dict(found, strict=False)
    assert not unexpected, unexpected
    assert all(name.startswith(READER) for name in missing), missing


def lexical_of(stored: onnx.ModelProto, tokenizer: Tokenizer) -> Lexical:
    """The weights of stems, from the graph."""
    known = {tensor.name: tensor for tensor in stored.graph.initializer}
    mark, *others = (tokenizer.token_to_id(token) for token in "?.!")
    classes = to_array(known["trunk.lexical.classes"]).copy()
    assert (classes == stem_classes(tokenizer)).all()
    weights: NDArray[np.float32] = to_array(known["trunk.lexical.weights"]).copy()
    return Lexical(classes, weights, mark, (mark, *others))
