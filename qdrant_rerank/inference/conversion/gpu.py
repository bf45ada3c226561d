"""A model's file -> a file for GPUs: fused attention, and fp16 if asked for. Made once.

onnxruntime's transformer optimizer replaces the operators of an attention by one operator,
as well as those of a residual sum with its normalisation and of a GELU with its bias
(https://onnxruntime.ai/docs/performance/transformers-optimization.html). On a CPU that is slower.
An fp16 file keeps the types of its inputs and outputs
(https://onnxruntime.ai/docs/performance/model-optimizations/float16.html).

A fused file whose outputs differ from the original's is not used.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.inference.conversion.artifact_cache import artifact
from qdrant_rerank.inference.conversion.fp16 import (
    converter_options,
    halve,
    join_casts,
    quiet,
    widen,
)
from qdrant_rerank.inference.conversion.graph import load_whole
from qdrant_rerank.inference.conversion.int8 import LARGE
from qdrant_rerank.inference.gpu.devices import CPU, INSTALL_GPU
from qdrant_rerank.inference.inputs import Inputs
from qdrant_rerank.inference.sessions import import_onnxruntime, open_plain_session
from qdrant_rerank.inference.tokenizer_files import read_json
from qdrant_rerank.utils.fork import temporary_directory

__all__ = ["Encoder", "convert_for_gpu", "largest_difference"]

logger = logging.getLogger(__name__)

# Families whose attention onnxruntime's optimizer knows, by the model_type of a config.json.
FAMILIES = {
    "bert": "bert",
    "camembert": "bert",
    "electra": "bert",
    "roberta": "bert",
    "xlm-roberta": "bert",
}
FORMAT = 4  # of the files made here; another number makes another artifact
# Largest difference of logits between the original and the fused file, both in fp32.
SAME = 1e-3
CHECKED = (3, 16)  # pairs and tokens of the batch that compares them


@dataclass(frozen=True, slots=True)
class Encoder:
    """Facts about an architecture that the optimizer needs.

    Attributes:
        family: the optimizer's name for it.
        heads: number of attention heads.
        width: size of its states.
    """

    family: str
    heads: int
    width: int

    @classmethod
    def read(cls, directory: Path) -> "Encoder | None":
        """Read the ``config.json`` of a model; None if the optimizer does not know the model.

        Raises:
            ModelFileError: the file is not a JSON object.
        """
        config = read_json(directory / "config.json")
        family = FAMILIES.get(str(config.get("model_type")))
        heads, width = config.get("num_attention_heads"), config.get("hidden_size")
        if family is None or not isinstance(heads, int) or not isinstance(width, int):
            return None
        return cls(family, heads, width)


@contextmanager
def convert_for_gpu(
    model: Path,
    data: Sequence[Path],
    cache: Path,
    *,
    encoder: Encoder | None,
    half: bool,
    from_half: bool = False,
) -> Iterator[Path]:
    """Give the same model for a GPU, from the cache or made now.

    Args:
        model: an ONNX file that is not quantised.
        data: its external data.
        cache: directory to keep the other file in.
        encoder: how to fuse it; None to keep its operators.
        half: whether the other file is fp16.
        from_half: whether the model is fp16 already.

    Yields:
        The ONNX file, to be loaded inside the ``with`` block; the given one if nothing is to be
        done.

    Raises:
        MissingDependencyError: the model has to be converted, and onnx is not installed.
        ModelFileError: it cannot be converted, or there is no room.
    """
    if encoder is not None and not all(map(find_spec, ("onnx", "sympy"))):
        logger.info("Attention is not fused, which needs onnx and sympy: %s", INSTALL_GPU)
        encoder = None
    if encoder is None and (from_half or not half):
        yield model
        return

    def build(folder: Path) -> None:
        target = folder / "model.onnx"
        logger.info("Making a file for GPUs of %s in %s.", model, cache)
        with temporary_directory(folder.parent) as room:
            if encoder is None:
                halve(model, target, room, large=large)
                return
            source = model
            if from_half:  # the CPU, which folds and compares, has no operators for fp16
                source = room / "full.onnx"
                widen(model, source)
            _fuse(source, encoder, target, room, half=half, large=large)

    size = sum(path.stat().st_size for path in (model, *data))
    large = size * (2 if from_half else 1) >= LARGE
    options = {
        "format": FORMAT,
        "maker": f"onnxruntime {import_onnxruntime().__version__}",
        "encoder": repr(encoder),
        "half": half,
    }
    kind = "fp16" if half else "fused"
    with artifact(cache, kind, [model, *data], options, build) as folder:
        yield folder / "model.onnx"


def _fuse(
    model: Path, encoder: Encoder, target: Path, room: Path, *, half: bool, large: bool
) -> None:
    from onnxruntime.transformers import optimizer

    with quiet():
        folded = room / "folded.onnx"
        _fold(model, folded)
        # The optimizer copies the model ten times, and computes only with projections.
        light = load_whole(folded, largest=encoder.width**2)
        tables = _without_tables(light.graph)
        fused = optimizer.optimize_by_fusion(light, encoder.family, encoder.heads, encoder.width)
        for tensor in fused.model.graph.initializer:
            if tensor.name in tables:
                tensor.CopyFrom(tables[tensor.name])
        trial = room / "fused.onnx"
        fused.save_model_to_file(str(trial), use_external_data_format=large)
        fused = optimizer.OnnxModel(load_whole(trial))
        difference = largest_difference(model, trial)
        same = difference <= SAME  # not if it is NaN
        if not same:
            fused = optimizer.OnnxModel(load_whole(folded))
        if half:
            fused.convert_float_to_float16(**converter_options(fused.model.graph))
            join_casts(fused.model.graph)
        fused.save_model_to_file(str(target), use_external_data_format=large)
    if not same:
        logger.warning(
            "%s is used without fused attention, which changed its logits by %.1e.",
            model,
            difference,
        )


def _without_tables(graph: Any) -> dict[str, Any]:
    """Cut each embedding table whose data was not read to one row; return the tables by name.

    The optimizer reads the tables, though only for their width.
    """
    from onnx import numpy_helper
    from onnx.external_data_helper import uses_external_data

    read = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    tables = {}
    for tensor in graph.initializer:
        if tensor.name in read and uses_external_data(tensor):
            tables[tensor.name] = type(tensor).FromString(tensor.SerializeToString())
            row = np.zeros((1, *tensor.dims[1:]), dtype=np.float32)
            tensor.CopyFrom(numpy_helper.from_array(row, tensor.name))
    return tables


def _fold(model: Path, target: Path) -> None:
    """Replace constant computations by their results, among which the optimizer finds no attention.

    The optimizer can do so itself, but only with torch.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors arrive as exceptions
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    prefix = "session.optimized_model_external_initializers_"
    options.add_session_config_entry(f"{prefix}file_name", f"{target.name}_data")
    options.add_session_config_entry(f"{prefix}min_size_in_bytes", "1024")
    try:
        ort.InferenceSession(
            str(model), options, providers=[CPU], disabled_optimizers=["ConstantSharing"]
        )
    except Exception as error:  # onnxruntime's errors share no base
        raise ModelFileError(f"{model} cannot be loaded by onnxruntime: {error}") from error


def largest_difference(one: Path, other: Path) -> float:
    """Compare the outputs of two files of a model, on a CPU, on pairs with padding."""
    ort = import_onnxruntime()
    rows, width = CHECKED
    ids = np.arange(rows * width, dtype=np.int64).reshape(CHECKED) % 97 + 1
    mask = (np.arange(width) < np.array([[width], [width - 5], [width // 2]])).astype(np.int64)
    types = (np.arange(width) > width // 3).astype(np.int64) * mask

    def outputs(path: Path) -> NDArray[Any]:
        session = open_plain_session(ort, path)
        inputs = dict(Inputs(session.get_inputs(), path)(ids, mask, types))
        found: NDArray[Any] = session.run([session.get_outputs()[0].name], inputs)[0]
        return found

    return float(np.abs(outputs(one) - outputs(other)).max())
