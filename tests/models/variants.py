"""Edited copies of the tiny models: other heads, other layouts, and every kind of damage."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ONNX = Path("onnx") / "model.onnx"
LAST_STATES = {
    "tiny-bert": "/bert/encoder/layer.1/output/LayerNorm/Add_1_output_0",
    "tiny-xlmr": "/roberta/encoder/layer.1/output/LayerNorm/Add_1_output_0",
}


def copy_of(source: Path, target: Path) -> Path:
    """A plain copy to damage."""
    shutil.copytree(source, target)
    return target


def flat(source: Path, target: Path) -> Path:
    """``model.onnx`` beside ``tokenizer.json``, and nothing else."""
    target.mkdir(parents=True)
    shutil.copy(source / ONNX, target / "model.onnx")
    shutil.copy(source / "tokenizer.json", target)
    return target


def two_labels(source: Path, target: Path) -> Path:
    """A (no, yes) head: column 1 is the old logit, column 0 its opposite."""

    def edit(model: onnx.ModelProto) -> None:
        weights = np.array([[-1.0, 1.0]], dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weights, "no_yes"))
        add_after(model, helper.make_node("MatMul", ["one_label", "no_yes"], ["logits"]), 2)

    return edited(source, target, edit)


def one_dimension(source: Path, target: Path) -> Path:
    """Output of shape (n,)."""

    def edit(model: onnx.ModelProto) -> None:
        axes = numpy_helper.from_array(np.array([1], dtype=np.int64), "axis_1")
        model.graph.initializer.append(axes)
        add_after(model, helper.make_node("Squeeze", ["one_label", "axis_1"], ["logits"]), None)

    return edited(source, target, edit)


def three_labels(source: Path, target: Path) -> Path:
    """A classifier that is no reranker."""

    def edit(model: onnx.ModelProto) -> None:
        weights = np.ones((1, 3), dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weights, "three"))
        add_after(model, helper.make_node("MatMul", ["one_label", "three"], ["logits"]), 3)

    return edited(source, target, edit)


def configured(source: Path, target: Path, **content: object) -> Path:
    """A copy whose ``config.json`` says more."""
    copy_of(source, target)
    path = target / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | content))
    return target


def nan_logits(source: Path, target: Path) -> Path:
    """Logits that are not numbers."""

    def edit(model: onnx.ModelProto) -> None:
        nan = numpy_helper.from_array(np.array(np.nan, dtype=np.float32), "nan")
        model.graph.initializer.append(nan)
        add_after(model, helper.make_node("Mul", ["one_label", "nan"], ["logits"]), 1)

    return edited(source, target, edit)


def embedding(source: Path, target: Path) -> Path:
    """The encoder alone: token vectors, as an embedding model returns them."""

    def edit(model: onnx.ModelProto) -> None:
        states = LAST_STATES[source.name]
        model.graph.node.append(helper.make_node("Identity", [states], ["last_hidden_state"]))
        del model.graph.output[:]
        model.graph.output.append(
            helper.make_tensor_value_info(
                "last_hidden_state", TensorProto.FLOAT, ["batch_size", "sequence_length", None]
            )
        )

    return edited(source, target, edit)


def truncated(source: Path, target: Path) -> Path:
    """The ONNX file breaks off half-way."""
    copy_of(source, target)
    content = (source / ONNX).read_bytes()
    (target / ONNX).write_bytes(content[: len(content) // 2])
    return target


def edited(source: Path, target: Path, edit: Callable[[onnx.ModelProto], None]) -> Path:
    """A copy with another graph."""
    copy_of(source, target)
    model = onnx.load(target / ONNX)
    edit(model)
    onnx.checker.check_model(model)
    onnx.save(model, target / ONNX)
    return target


def add_after(model: onnx.ModelProto, node: onnx.NodeProto, labels: int | None) -> None:
    """Put a node behind the head, whose own output becomes ``one_label``."""
    for part in model.graph.node:
        part.output[:] = ["one_label" if name == "logits" else name for name in part.output]
    model.graph.node.append(node)
    shape = ["batch_size"] if labels is None else ["batch_size", labels]
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape))
