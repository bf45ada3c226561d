"""A cross-encoder whose lower layers see each text alone -> two ONNX files.

The *trunk* reads one text alone, so the states of a document serve every query. The *branches* read
the states of both texts. The cut is found by the exporter's names: values that lead from
``/trunk/...`` to ``/branches/...`` and hold one state per token.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qdrant_rerank.errors import InvalidInputError, MissingDependencyError
from qdrant_rerank.hub.registry import supported_models
from qdrant_rerank.inference.conversion.artifact_cache import artifact
from qdrant_rerank.inference.conversion.graph import load_whole
from qdrant_rerank.inference.inputs import STATES

__all__ = ["JOINT_PRODUCTS", "split"]

TRUNK, BRANCHES = "/trunk/", "/branches/"
#: Pattern of the products in layers that attend across the pair, which take most of the branches'
#: time. Not the values: of these, integers cost a score more than they save time.
JOINT_PRODUCTS = rf"^{BRANCHES}joint\.\d+/(query|key|output|up|down)/"
FLOAT = 1  # onnx.TensorProto.FLOAT; onnx is imported on use
FORMAT = 2  # of the two files; another number makes another artifact


@contextmanager
def split(model: Path, data: Sequence[Path], cache: Path) -> Iterator[tuple[Path, Path]]:
    """Give a model's trunk and branches, from the cache or made now.

    Args:
        model: an ONNX file.
        data: its external data.
        cache: directory to keep both files in.

    Yields:
        The trunk, which returns ``states`` (batch, sequence, width) of a text, and the branches,
        which take the states of the query and then those of the document as one more input. Both
        are to be loaded inside the ``with`` block.

    Raises:
        InvalidInputError: the model has no such trunk.
        MissingDependencyError: onnx is not installed, and the files are not in the cache.
        ModelFileError: there is no room for them.
    """

    def build(folder: Path) -> None:
        _split(model, folder / "trunk.onnx", folder / "branches.onnx")

    with artifact(cache, "split", [model, *data], {"format": FORMAT}, build) as folder:
        yield folder / "trunk.onnx", folder / "branches.onnx"


def _split(model: Path, trunk: Path, branches: Path) -> None:
    try:
        import onnx
        from onnx import helper, numpy_helper
        from onnx.utils import Extractor
    except ImportError as error:
        raise MissingDependencyError(
            "States of documents need onnx to split the model, once, and it is not installed: "
            'pip install "qdrant-rerank[cache]".'
        ) from error
    import numpy as np

    cut = _cut(onnx.load(model, load_external_data=False).graph)
    if not cut:
        grown = ", ".join(spec.model for spec in supported_models() if spec.bi_encoder)
        raise InvalidInputError(
            f"document_cache and states of documents are for a model whose lower layers see each "
            f"text alone; those of {model} do not. Models that do: {grown}. score_cache is for any "
            "model."
        )
    whole = load_whole(model)
    widths = list(cut.values())
    inputs = [node.name for node in whole.graph.input]
    outputs = [node.name for node in whole.graph.output]
    for name, width in cut.items():
        shape: list[str | int | None] = ["batch", "sequence", width]
        whole.graph.value_info.append(helper.make_tensor_value_info(name, FLOAT, shape))
    states = helper.make_tensor_value_info(STATES, FLOAT, ["batch", "sequence", sum(widths)])
    extractor = Extractor(whole)

    lower = extractor.extract_model(inputs, list(cut))
    lower.graph.node.append(helper.make_node("Concat", list(cut), [STATES], "join_states", axis=-1))
    del lower.graph.output[:]
    lower.graph.output.append(states)
    # Beside the file: then onnxruntime maps the weights, and holds no second copy while it loads.
    onnx.save(lower, trunk, save_as_external_data=True, location=f"{trunk.stem}.data")

    upper = extractor.extract_model([*inputs, *cut], outputs)
    sizes = numpy_helper.from_array(np.array(widths, dtype=np.int64), "widths_of_states")
    upper.graph.initializer.append(sizes)
    part = helper.make_node("Split", [STATES, sizes.name], list(cut), "part_states", axis=-1)
    upper.graph.node.insert(0, part)
    kept = [node for node in upper.graph.input if node.name not in cut]
    del upper.graph.input[:]
    upper.graph.input.extend([*kept, states])
    onnx.save(upper, branches)


def _cut(graph: Any) -> dict[str, int]:
    """Return the states that lead from the trunk to the branches, in order, and their widths.

    A layer ends with a normalisation, whose scale is as wide as its states.
    """
    used = {name for node in graph.node if node.name.startswith(BRANCHES) for name in node.input}
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    return {
        node.output[0]: int(sizes[node.input[1]][0])
        for node in graph.node
        if node.name.startswith(TRUNK)
        and node.op_type == "LayerNormalization"
        and node.output[0] in used
    }
