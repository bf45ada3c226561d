"""Fused attention: the same scores, made once into the cache, and only where it is the same."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qdrant_rerank import TextCrossEncoder
from qdrant_rerank.inference.conversion.attention import with_fused_attention
from qdrant_rerank.inference.plan import make_plan
from qdrant_rerank.inference.request import Request
from qdrant_rerank.inference.runtime import Runtime
from tests.models.build import WORDS

QUERY = "which bread rises?"
DOCUMENTS = [" ".join(WORDS[n : n + 3 + n % 90]) for n in range(0, 400, 10)]
HEADS, SIZE = 2, 8
PLAN = make_plan(Request(threads=1, engine="onnxruntime", cuda=False), "fp32")
WITHOUT_ONNX = """
import sys
sys.modules["onnx"] = None
from qdrant_rerank import TextCrossEncoder
print(TextCrossEncoder(sys.argv[1], cache_dir=sys.argv[2]).rerank("a", ["b", "a b c"]))
"""


def fused(cache):
    """The models with fused attention in a cache, and for how many there was nothing to fuse."""
    folders = list(cache.rglob("attention-*"))
    made = [folder / "model.onnx" for folder in folders if (folder / "model.onnx").exists()]
    return made, len(folders) - len(made)


def operators(path):
    """Names of the operators of a graph and of its branches."""
    graph = onnx.load(path).graph
    inner = [node for outer in graph.node for part in outer.attribute for node in part.g.node]
    return [node.op_type for node in [*graph.node, *inner]]


def attention(path, mask):
    """A model of one attention over token ids, with a mask: logits (batch, 1)."""
    draw = np.random.default_rng(0)
    width = HEADS * SIZE
    weights = {
        "words": draw.normal(size=(60, width)),
        **{name: draw.normal(size=(width, width)) / 2 for name in ("wq", "wk", "wv")},
        "head": draw.normal(size=(width, 1)),
        "far": np.array(-1e4),
        "one": np.array(1.0),
        "scale": np.array(SIZE**0.5),
    }
    numbers = {"apart": [0, 0, HEADS, SIZE], "flat": [0, 0, width], "axes": [1, 2], "last": [1]}
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["states"]),
        *(
            node
            for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3]))
            for node in (
                helper.make_node("MatMul", ["states", f"w{name}"], [f"{name}0"]),
                helper.make_node("Reshape", [f"{name}0", "apart"], [f"{name}1"]),
                helper.make_node("Transpose", [f"{name}1"], [name], perm=order),
            )
        ),
        helper.make_node("Cast", ["attention_mask"], ["kept"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "kept"], ["padding"]),
        helper.make_node("Unsqueeze", ["padding", "axes"], ["wide"]),
        helper.make_node("Mul", ["wide", "far"], ["of_padding"]),
        *mask,
        helper.make_node("MatMul", ["q", "k"], ["products"]),
        helper.make_node("Div", ["products", "scale"], ["scores"]),
        helper.make_node("Add", ["scores", "mask"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "v"], ["sums"]),
        helper.make_node("Transpose", ["sums"], ["sums0"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["sums0", "flat"], ["read"]),
        helper.make_node("ReduceMax", ["read"], ["most"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["most", "head"], ["logits"]),
    ]
    inputs = ["input_ids", "attention_mask"]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "w"]) for name in inputs],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(np.float32(value), name) for name, value in weights.items()]
        + [numpy_helper.from_array(np.array(value), name) for name, value in numbers.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def local(reach):
    """A mask that lets each token see so many on either side."""
    return [
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Constant", [], ["last_axis"], value_int=1),
        helper.make_node("Gather", ["shape", "last_axis"], ["count"]),
        helper.make_node("Constant", [], ["zero"], value_int=0),
        helper.make_node("Constant", [], ["step"], value_int=1),
        helper.make_node("Range", ["zero", "count", "step"], ["places"]),
        helper.make_node("Unsqueeze", ["places", "last"], ["column"]),
        helper.make_node("Sub", ["places", "column"], ["distance"]),
        helper.make_node("Abs", ["distance"], ["distance0"]),
        helper.make_node("Constant", [], ["reach"], value_int=reach),
        helper.make_node("Greater", ["distance0", "reach"], ["is_far"]),
        helper.make_node("Cast", ["is_far"], ["is_far0"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["is_far0", "far"], ["of_distance"]),
        helper.make_node("Add", ["of_padding", "of_distance"], ["mask"]),
    ]


PLAIN = [helper.make_node("Identity", ["of_padding"], ["mask"])]


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_xlmr"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_scores_are_those_of_the_file_as_it_is(request, model, precision, tmp_path):
    """One pair without padding, and many with padding; torch's guard against NaN is gone."""
    path = request.getfixturevalue(model)
    encoder = TextCrossEncoder(path, precision=precision, cache_dir=tmp_path)
    made, _ = fused(tmp_path)
    assert operators(made[0]).count("MultiHeadAttention") == 4
    assert not {"Softmax", "IsNaN"} & set(operators(made[0]))
    runtime = encoder._model.scorer().runtime
    plain = Runtime(runtime.path, PLAN)
    draw = np.random.default_rng(0)
    for lengths in ([40], [3], [12, 40, 40], [40, 1, 7]):
        ids = draw.integers(5, 40, (len(lengths), 40))[:, : max(lengths)]
        mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
        for side in (mask, mask[:, ::-1].copy()):
            one, other = (each.run(ids, side, ids * 0) for each in (plain, runtime))
            assert other == pytest.approx(one, abs=1e-5 if precision == "fp32" else 0.1)


def test_it_is_made_once(tiny_bert, tmp_path, caplog):
    """A second encoder finds it; a damaged one is made again, and said once."""
    first = TextCrossEncoder(tiny_bert, cache_dir=tmp_path)
    [made], _ = fused(tmp_path)
    about = made.stat()
    assert TextCrossEncoder(tiny_bert, cache_dir=tmp_path).rerank(QUERY, DOCUMENTS) == first.rerank(
        QUERY, DOCUMENTS
    )
    assert made.stat().st_mtime_ns == about.st_mtime_ns
    made.write_bytes(made.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        again = TextCrossEncoder(tiny_bert, cache_dir=tmp_path)
    assert again.rerank(QUERY, DOCUMENTS) == first.rerank(QUERY, DOCUMENTS)
    assert made.stat().st_size == about.st_size
    assert caplog.text.count("is made again") == 1


@pytest.mark.parametrize(
    ("mask", "fuses"),
    [(PLAIN, True), (local(3), False), (local(100), False), (local(5000), True)],
    ids=["padding alone", "local", "wider than a first look", "of no effect"],
)
def test_a_mask_that_is_not_of_padding_alone_stays(mask, fuses, tmp_path):
    """Also where it does nothing to short texts."""
    path = attention(tmp_path / "model.onnx", mask)
    with with_fused_attention(path, tmp_path / "cache") as file:
        runtime = Runtime(path, PLAN, prepared=file)
    made, left = fused(tmp_path)
    assert (len(made), left) == (int(fuses), int(not fuses))
    ids = np.random.default_rng(1).integers(0, 60, (2, 300))
    ones = np.ones_like(ids)
    expected = Runtime(path, PLAN).run(ids, ones, ids * 0)
    assert runtime.run(ids, ones, ids * 0) == pytest.approx(expected, abs=1e-4)


def test_models_of_other_kinds_run_as_they_are(tmp_path):
    """A causal mask is not of padding alone."""
    TextCrossEncoder(Path(__file__).parents[3] / "models" / "tiny-qwen3", cache_dir=tmp_path)
    assert fused(tmp_path) == ([], 1)


def test_without_onnx_the_file_is_run_as_it_is(tiny_bert, tmp_path):
    """And nothing is made."""
    command = [sys.executable, "-c", WITHOUT_ONNX, str(tiny_bert), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count(",") == 1
    assert not (tmp_path / "cache").exists()


def test_a_file_that_is_none_is_left_to_whoever_loads_it(tmp_path):
    """Absent, empty, or not an ONNX file though it names the operator."""
    for content in (None, b"", b"Softmax, but no model"):
        path = tmp_path / "model.onnx"
        if content is not None:
            path.write_bytes(content)
        with with_fused_attention(path, tmp_path / "cache") as file:
            assert file == path
    assert not (tmp_path / "cache").exists()
