"""The effect of fp16 on the scores of a model, found without a GPU.

    python -m benchmarks.gpu.rounding DATA_DIR [--model NAME_OR_DIRECTORY]

A GPU computes a product or a sum of fp16 numbers in fp32 and rounds the result to fp16. A CPU does
the same here: each operator of the fp16 file for GPUs is computed in fp32, and what was fp16 is
rounded to it, so what overflows there does so here. The order of the sums inside an operator is a
CPU's; a GPU's kernels have others. "fp16, all of it" is what onnxruntime's converter makes, which
leaves nothing in fp32 but inputs and outputs. Scores are compared with those of the fp32 file, and
recorded in ``benchmarks/results/fp16_rounding.json``.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arguments import existing_path
from benchmarks.gpu.parity import Judged, Scores, compared
from benchmarks.peers.machine import machine
from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from qdrant_rerank.hub.locate import ModelFiles, locate
from qdrant_rerank.hub.onnx_files import external_files
from qdrant_rerank.inference.conversion.dequantize import dequantized
from qdrant_rerank.inference.conversion.fp16 import quiet
from qdrant_rerank.inference.conversion.gpu import Encoder, convert_for_gpu
from qdrant_rerank.inference.conversion.graph import load_whole
from qdrant_rerank.inference.cpu import available_cores
from qdrant_rerank.utils.atomic_files import atomic_text

RESULTS = Path(__file__).parents[1] / "results"
FLOAT, FLOAT16 = 1, 10  # onnx.TensorProto's
CONTRIB = "com.microsoft"  # operators whose types onnx does not know; their first output is a float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.rounding")
    parser.add_argument("data", type=existing_path, help="folder with eval/dl19")
    parser.add_argument("--model", default=DEFAULT_RERANKER, help="a name or a directory")
    parser.add_argument("--queries", type=int, help="the first so many; not recorded")
    given = parser.parse_args()
    judged = Judged.read(given.data, queries=given.queries)
    with tempfile.TemporaryDirectory() as room:
        files = locate(given.model, precision="fp32")
        made = {"fp16": Path(room) / "ours", "fp16, all of it": Path(room) / "all"}
        for label, directory in made.items():
            make_rounded(files, directory, ours=label == "fp16")

        def scored(model: str | Path) -> Scores:
            encoder = TextCrossEncoder(model, precision="fp32", engine="onnxruntime", cuda=False)
            return encoder.score_pairs(judged.pairs).scores

        ways = {label: partial(scored, directory) for label, directory in made.items()}
        found = compared(judged, scored(given.model), ways)
    results = {"machine": machine(available_cores()), "model": given.model, **found}
    print(json.dumps(results, indent=1))
    if given.queries is None:
        with atomic_text(RESULTS / "fp16_rounding.json") as file:
            json.dump(results, file, indent=1)


def make_rounded(files: ModelFiles, target: Path, *, ours: bool) -> None:
    """A directory with an fp16 model, in fp32 with the same weights and roundings.

    Args:
        files: of an fp32 or int8 model.
        target: the directory to make.
        ours: whether it is the one made for GPUs; else the converter's own.
    """
    shutil.copytree(files.tokenizer, target, ignore=shutil.ignore_patterns("*.onnx", "*.bin"))
    (target / "onnx").mkdir(exist_ok=True)
    with ExitStack() as stack:
        cache = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model, data = files.model, files.external_data
        if files.precision == "int8":
            model = stack.enter_context(dequantized(model, data, cache))
            data = external_files(model)
        if ours:
            encoder = Encoder.read(files.tokenizer)
            made = stack.enter_context(
                convert_for_gpu(model, data, cache, encoder=encoder, half=True)
            )
        else:
            made = cache / "all.onnx"
            convert_all(model, made)
        as_on_card(made, target / "onnx" / "model.onnx")


def convert_all(source: Path, target: Path) -> None:
    """By onnxruntime's converter, as it comes."""
    import onnx
    from onnxruntime.transformers import float16

    with quiet():
        half = float16.convert_float_to_float16(load_whole(source), keep_io_types=True)
    onnx.save(half, target)


def as_on_card(source: Path, target: Path) -> None:
    """Write a copy of an fp16 model that computes in fp32 and rounds what was fp16."""
    import onnx
    from onnx import numpy_helper

    model = load_whole(source)
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    halves = {one.name for one in inferred if one.type.tensor_type.elem_type == FLOAT16}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    halves |= {name for name, tensor in tensors.items() if tensor.data_type == FLOAT16}
    nodes = list(model.graph.node)
    for node in nodes:
        if node.domain == CONTRIB and halves.intersection(node.input):
            halves.add(node.output[0])
        for attribute in node.attribute:
            tensors[f"{node.output[0]}/{attribute.name}"] = attribute.t
    for tensor in tensors.values():
        if tensor.data_type == FLOAT16:
            exact = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(exact, tensor.name))
    del model.graph.node[:], model.graph.value_info[:]
    for node in nodes:
        rounded = [name for name in node.output if name in halves]
        if node.op_type == "Cast" and rounded:
            node.attribute[0].i = FLOAT
        node.output[:] = [f"{name}/exact" if name in rounded else name for name in node.output]
        model.graph.node.append(node)
        for name in rounded:
            model.graph.node.extend(_round(f"{name}/exact", name))
    onnx.save(model, target)


def _round(exact: str, name: str) -> Iterator[Any]:
    from onnx import helper

    yield helper.make_node("Cast", [exact], [f"{name}/half"], to=FLOAT16)
    yield helper.make_node("Cast", [f"{name}/half"], [name], to=FLOAT)


if __name__ == "__main__":
    main()
