"""An fp32 model -> int8, made once by onnxruntime's own quantiser.

Weights of matrix products become int8 with one scale per column. Activations are quantised at run
time (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
"""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from qdrant_rerank.errors import MissingDependencyError, ModelFileError
from qdrant_rerank.hub.onnx_files import is_quantized
from qdrant_rerank.inference.conversion.artifact_cache import artifact
from qdrant_rerank.inference.cpu import Int8Weights
from qdrant_rerank.inference.sessions import import_onnxruntime
from qdrant_rerank.utils.fork import temporary_directory

__all__ = ["quantized"]

# From this size of the source, weights are written beside the ONNX file: protobuf ends at 2 GiB.
LARGE = 1 << 31  # bytes


@contextmanager
def quantized(
    model: Path, data: Sequence[Path], cache: Path, weights: Int8Weights
) -> Iterator[Path]:
    """Give the same model in int8, from the cache or made now.

    Args:
        model: an fp32 ONNX file.
        data: its external data, in or below its folder.
        cache: directory to keep the other file in.
        weights: signed or unsigned.

    Yields:
        The int8 ONNX file, to be loaded inside the ``with`` block.

    Raises:
        MissingDependencyError: onnx is not installed, and the file is not in the cache.
        ModelFileError: nothing in the model can be quantised, or there is no room.
    """

    def build(folder: Path) -> None:
        _quantize(model, data, folder / "model.onnx", signed=weights.signed)

    options = {
        "quantiser": f"onnxruntime {import_onnxruntime().__version__}",
        "signed": weights.signed,
        "operators": "MatMul",
        "per_channel": True,
    }
    with artifact(cache, "int8", [model, *data], options, build) as folder:
        yield folder / "model.onnx"


def _quantize(model: Path, data: Sequence[Path], target: Path, *, signed: bool) -> None:
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise MissingDependencyError(
            f"precision='int8' of {model} means to quantise it, since it has no int8 file: "
            "onnxruntime's quantiser needs onnx, which is not installed: "
            'pip install "qdrant-rerank[quantize]".'
        ) from error

    # The quantiser writes beside its source, which may be the hub's cache or read-only.
    with _without_root_handlers(), temporary_directory(target.parent.parent) as room:
        source = room / "source.onnx"
        for path in data:
            beside = room / path.relative_to(model.parent)
            beside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, beside)  # onnx refuses links of either kind
        graph = onnx.load(model, load_external_data=False)
        # Without it, the quantiser logs advice to the root logger.
        quantization.quant_utils.add_pre_process_metadata(graph)
        onnx.save(graph, source)
        size = sum(path.stat().st_size for path in (model, *data))
        quantization.quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=quantization.QuantType.QInt8 if signed else quantization.QuantType.QUInt8,
            use_external_data_format=size >= LARGE,
        )
    if not is_quantized(target):
        raise ModelFileError(
            f"{model} has no matrix product with constant weights, so nothing of it can be "
            "quantised. Load it with precision='auto'."
        )


@contextmanager
def _without_root_handlers() -> Iterator[None]:
    """Keep logging as the application set it up.

    The quantiser calls ``logging.info`` and ``logging.warning``, which set up logging for the whole
    process if the application has not.
    """
    if logging.root.handlers:
        yield
        return
    silent = logging.NullHandler()
    logging.root.addHandler(silent)
    try:
        yield
    finally:
        logging.root.removeHandler(silent)
