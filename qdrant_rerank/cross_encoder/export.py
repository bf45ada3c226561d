"""A PyTorch cross-encoder -> a directory with an ONNX file, checked before it is kept."""

import importlib.util
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
from qdrant_rerank.cross_encoder.torch_export import LARGE, OUTCOME, PAIRS
from qdrant_rerank.errors import InvalidInputError, MissingDependencyError, ModelFileError
from qdrant_rerank.hub.cache import is_repository
from qdrant_rerank.hub.onnx_files import external_files
from qdrant_rerank.inference.conversion.fp16 import halve
from qdrant_rerank.inference.conversion.int8 import quantized
from qdrant_rerank.inference.cpu import int8_weights
from qdrant_rerank.utils.fork import temporary_directory

__all__ = ["Exported", "export_model"]

ExportPrecision = Literal["fp32", "fp16", "int8"]

# The other process looks for modules where this one does.
WORKER = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from qdrant_rerank.cross_encoder.torch_export import run; run(*sys.argv[2:])"
)
NEEDED = ("torch", "transformers", "onnx")
# Largest difference from PyTorch's logits, as a share of the spread (highest minus lowest) of
# them. Sums in another order differ by far less in fp32; int8 rounds weights and activations.
TOLERANCE: dict[ExportPrecision, float] = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.25}
LEAST_SPREAD = 0.1  # of logits, so that equal ones do not ask for equal bits


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        path: the new directory.
        size: bytes of the ONNX file with its weights.
        difference: largest difference of a logit from PyTorch's.
        pairs: number of pairs that were compared.
    """

    path: Path
    size: int
    difference: float
    pairs: int


def export_model(
    source: str | Path, target: str | Path, *, precision: ExportPrecision = "fp32"
) -> Exported:
    """Export a cross-encoder of PyTorch to a new directory that ``TextCrossEncoder`` loads.

    PyTorch runs in a process of its own. The directory gets its name when the scores of 20 pairs
    are those of PyTorch; until then it is a hidden one beside it.

    Args:
        source: a directory with weights for PyTorch, or a hub repository "owner/name".
        target: the directory to make. It must not exist.
        precision: of the ONNX file.

    Raises:
        InvalidInputError: the target exists or cannot be made.
        MissingDependencyError: PyTorch, transformers or onnx is not installed.
        ModelFileError: the model cannot be exported, or its scores are not those of PyTorch.
    """
    path = Path(target).expanduser().absolute()
    _require_new(path)
    model = _source(source)
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise MissingDependencyError(
            f'Exporting a model needs {", ".join(missing)}: pip install "qdrant-rerank[export]"'
        )
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            room = stack.enter_context(temporary_directory(path.parent, f".{path.name}-"))
        except OSError as error:
            raise InvalidInputError(f"{path} cannot be made: {error.strerror}.") from error
        made = room / path.name
        expected = _by_torch(model, made)
        difference = _checked(made, expected, "fp32")
        file = made / "onnx" / "model.onnx"
        if precision != "fp32":
            file = _convert(file, precision)
            difference = _checked(made, expected, precision)
        size = sum(each.stat().st_size for each in (file, *external_files(file)))
        _require_new(path)
        made.rename(path)
    return Exported(path, size, difference, len(PAIRS))


def _source(source: str | Path) -> str:
    path = Path(source).expanduser()
    if path.is_dir():
        return str(path.absolute())
    if os.path.lexists(path):
        raise InvalidInputError(f"{source} is a file; expected the directory of a model.")
    if isinstance(source, Path) or "/" not in source or not is_repository(source):
        raise InvalidInputError(
            f"No directory {str(source)!r}, and it is not a hub repository: 'owner/name'."
        )
    return source


def _by_torch(source: str, made: Path) -> NDArray[np.float64]:
    """Export in another process; return PyTorch's logits, shape (pairs, labels)."""
    read, write = os.pipe()  # closed if this process is killed, and then the other one ends
    try:
        command = [sys.executable, "-P", "-c", WORKER, json.dumps(sys.path), source, str(made)]
        done = subprocess.run(command, stdin=read, stdout=subprocess.DEVNULL, check=False)
    finally:
        os.close(read)
        os.close(write)
    try:
        outcome = json.loads(made.with_name(OUTCOME).read_text("utf-8"))
    except (OSError, ValueError):
        outcome = {"reason": f"PyTorch's process ended with exit code {done.returncode}"}
    if "reason" in outcome:
        reason = outcome["reason"][:1000].rstrip(".")
        raise ModelFileError(f"{source} cannot be exported: {reason}.")
    return np.array(outcome["scores"], dtype=np.float64)


def _require_new(path: Path) -> None:
    if os.path.lexists(path):
        raise InvalidInputError(f"{path} exists, and nothing is overwritten. Name a new directory.")


def _convert(model: Path, precision: ExportPrecision) -> Path:
    """Replace the fp32 file by one of another precision."""
    data = external_files(model)
    target = model.with_name(f"model_{precision}.onnx")
    with temporary_directory(model.parent.parent.parent) as room:
        if precision == "fp16":
            large = sum(file.stat().st_size for file in (model, *data)) >= LARGE
            halve(model, target, room, large=large)
        else:
            with quantized(model, data, room, int8_weights()) as made:
                for file in external_files(made):  # under the names that the ONNX file knows
                    file.rename(target.with_name(file.name))
                made.rename(target)
    for file in (model, *data):
        if file not in external_files(target):
            file.unlink()
    return target


def _checked(made: Path, expected: NDArray[np.float64], precision: ExportPrecision) -> float:
    """Compare with PyTorch's logits, shape (pairs, labels); return the largest difference."""
    encoder = TextCrossEncoder(
        made,
        device="cpu",
        engine="onnxruntime",
        label=0 if expected.shape[1] > 1 else None,  # all labels are compared
        cache_dir=made.parent,  # what is made to run it is not kept
    )
    found = encoder.score_pairs(PAIRS).label_logits
    spread = max(float(np.ptp(expected)), LEAST_SPREAD)
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE[precision] * spread:
        raise ModelFileError(
            f"The {precision} export differs from PyTorch by {difference:.3g} of a logit; at most "
            f"{TOLERANCE[precision] * spread:.3g} was expected for logits from "
            f"{expected.min():.3g} to {expected.max():.3g}. It was not kept."
        )
    return difference
