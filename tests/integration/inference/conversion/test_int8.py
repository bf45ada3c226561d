"""precision="int8" of a model that has no int8 file: quantised once, and stated."""

import logging
import pickle
import subprocess
import sys

import numpy as np
import onnx
import pytest
from qdrant_client.models import ScoredPoint

from qdrant_rerank import ScoreCache, TextCrossEncoder, rerank_points
from qdrant_rerank.errors import InvalidInputError, MissingPrecisionError, ModelFileError
from qdrant_rerank.inference.conversion.int8 import quantized
from qdrant_rerank.inference.cpu import Int8Weights, int8_weights
from tests.models import variants
from tests.models.build import WORDS

QUERY = "which bread rises?"
DOCUMENTS = [" ".join(WORDS[n : n + 3 + n % 40]) for n in range(0, 400, 10)]
WITHOUT_ONNX = """
import sys
sys.modules["onnx"] = None
from qdrant_rerank import TextCrossEncoder
for precision in ("auto", "int8"):
    try:
        print(TextCrossEncoder(sys.argv[1], precision=precision, cache_dir=sys.argv[2]).precision)
    except ImportError as error:
        print(type(error).__name__, error)
"""
ROOT_HANDLERS = """
import logging, sys
from qdrant_rerank import TextCrossEncoder
TextCrossEncoder(sys.argv[1], precision="int8", cache_dir=sys.argv[2])
print(logging.root.handlers)
"""


@pytest.fixture(scope="module", params=["tiny_bert", "tiny_xlmr"])
def directory(request):
    """fp32 models without an int8 file."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Where they are kept once they are quantised."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def int8(directory, cache):
    """Quantised."""
    return TextCrossEncoder(directory, precision="int8", cache_dir=cache)


def operators(path):
    """Names of the operators in a graph, and the types of its int8 or uint8 weights."""
    graph = onnx.load(path).graph
    weights = {
        onnx.TensorProto.DataType.Name(tensor.data_type)
        for tensor in graph.initializer
        if tensor.name.endswith("_quantized")
    }
    return {node.op_type for node in graph.node}, weights


def test_scores_are_near_those_of_fp32_and_say_so(directory, int8):
    """In nearly the same order; and what was done is stated."""
    fp32 = TextCrossEncoder(directory)
    scores, exact = int8.rerank(QUERY, DOCUMENTS), fp32.rerank(QUERY, DOCUMENTS)
    assert scores != exact
    assert np.corrcoef(scores, exact)[0, 1] > 0.95
    assert (fp32.precision, int8.precision) == ("fp32", "int8")
    assert f"int8 ({int8_weights()})" in repr(int8)
    assert ", fp32, " in repr(fp32)


def test_auto_never_quantises(directory, cache):
    """Though an int8 model lies in the cache."""
    scores = TextCrossEncoder(directory, cache_dir=cache).rerank(QUERY, DOCUMENTS)
    assert scores == TextCrossEncoder(directory, precision="fp32").rerank(QUERY, DOCUMENTS)


def test_a_score_is_of_its_pair_alone(int8):
    """To the bit, whatever is scored beside it."""
    alone = [int8.rerank(QUERY, [document])[0] for document in DOCUMENTS]
    assert int8.rerank(QUERY, DOCUMENTS, batch_size=16) == alone


def test_it_is_quantised_once_and_loaded_from_the_cache(directory, int8, cache):
    """By a copy in another process, too, and without the quantiser."""
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    again = TextCrossEncoder(directory, precision="int8", cache_dir=cache)
    assert again.rerank(QUERY, DOCUMENTS) == int8.rerank(QUERY, DOCUMENTS)
    copy = pickle.loads(pickle.dumps(again))
    assert copy.rerank(QUERY, DOCUMENTS[:2]) == int8.rerank(QUERY, DOCUMENTS[:2])
    said = python(WITHOUT_ONNX, directory, cache)
    assert said == "fp32\nint8\n"
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


def test_without_the_quantiser_the_command_is_named(directory, tmp_path):
    """And the model as it is still loads."""
    fp32, error = python(WITHOUT_ONNX, directory, tmp_path).splitlines()
    assert fp32 == "fp32"
    assert error.startswith("MissingDependencyError")
    assert 'pip install "qdrant-rerank[quantize]"' in error


def test_the_quantiser_does_not_set_up_logging(tiny_bert, tmp_path):
    """It logs through the root logger."""
    assert python(ROOT_HANDLERS, tiny_bert, tmp_path) == "[]\n"


@pytest.mark.parametrize("signed", [True, False])
def test_weights_are_signed_or_not_as_the_cpu_wants(tiny_bert, tmp_path, signed):
    """One scale a column of each weight; scores near those of fp32 both ways."""
    model = tiny_bert / "onnx" / "model.onnx"
    with quantized(model, [], tmp_path, Int8Weights(signed, "a test")) as made:
        names, weights = operators(made)
        again = variants.copy_of(tiny_bert, tmp_path / "copy")
        (again / "onnx" / "model.onnx").write_bytes(made.read_bytes())
    assert "MatMulInteger" in names
    assert weights == {"INT8" if signed else "UINT8"}
    scores = TextCrossEncoder(again).rerank(QUERY, DOCUMENTS)
    exact = TextCrossEncoder(tiny_bert).rerank(QUERY, DOCUMENTS)
    assert np.corrcoef(scores, exact)[0, 1] > 0.95


def test_a_file_beside_the_model_is_taken_and_nothing_is_made(tiny_bert, tmp_path):
    """Whatever it is called, and if the model's only file is int8 already."""
    made = variants.copy_of(tiny_bert, tmp_path / "m")
    with quantized(made / "onnx" / "model.onnx", [], tmp_path / "q", int8_weights()) as file:
        (made / "onnx" / "model_quantized.onnx").write_bytes(file.read_bytes())
        only = variants.flat(tiny_bert, tmp_path / "only")
        (only / "model.onnx").write_bytes(file.read_bytes())
    cache = tmp_path / "cache"
    beside = TextCrossEncoder(made, precision="int8", cache_dir=cache)
    assert "model_quantized.onnx" in repr(beside)
    alone = TextCrossEncoder(only, precision="int8", cache_dir=cache)
    assert alone.rerank(QUERY, DOCUMENTS) == beside.rerank(QUERY, DOCUMENTS)
    assert alone.precision == beside.precision == "int8"
    assert not list(cache.glob("int8-*"))


def test_external_data_is_read_and_the_source_is_left_alone(tiny_bert, tmp_path):
    """Weights beside the ONNX file, in a folder that may be read-only."""
    made = variants.copy_of(tiny_bert, tmp_path / "m")
    path = made / "onnx" / "model.onnx"
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    before = sorted(path.parent.iterdir())
    scores = TextCrossEncoder(made, precision="int8", cache_dir=tmp_path / "c").rerank(QUERY, ["a"])
    own = TextCrossEncoder(tiny_bert, precision="int8", cache_dir=tmp_path / "c")
    assert scores == own.rerank(QUERY, ["a"])
    assert sorted(path.parent.iterdir()) == before


def test_a_damaged_entry_is_made_again(tiny_bert, tmp_path, caplog):
    """And said once."""
    made = TextCrossEncoder(tiny_bert, precision="int8", cache_dir=tmp_path)
    [path] = tmp_path.rglob("int8-*/model.onnx")
    path.write_bytes(path.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING):
        again = TextCrossEncoder(tiny_bert, precision="int8", cache_dir=tmp_path)
    assert again.rerank(QUERY, DOCUMENTS) == made.rerank(QUERY, DOCUMENTS)
    assert caplog.text.count("is made again") == 1


def test_a_cache_that_cannot_be_written_costs_time_alone(tiny_bert, tmp_path, caplog):
    """A file is where its folder should be."""
    (tmp_path / "qdrant-rerank").write_text("in the way")
    for _ in range(2):
        made = TextCrossEncoder(tiny_bert, precision="int8", cache_dir=tmp_path)
        assert made.precision == "int8"
        assert len(made.rerank(QUERY, DOCUMENTS)) == len(DOCUMENTS)
    for kind in ("int8", "attention"):
        said = [line for line in caplog.messages if f"{kind}-" in line]
        assert len(said) == 1
        assert "could not be kept" in said[0]


def test_what_cannot_be_quantised_or_is_not_there_is_refused(tiny_bert, tmp_path):
    """An unknown precision lists those there are; of q4f16 no file is made."""
    with pytest.raises(InvalidInputError, match=r"precision is 'int4'; expected one of 'auto'"):
        TextCrossEncoder(tiny_bert, precision="int4")
    with pytest.raises(MissingPrecisionError, match=r"has no model_q4f16\.onnx"):
        TextCrossEncoder(tiny_bert, precision="q4f16")
    plain = tmp_path / "plain.onnx"
    one = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    two = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    opset = [onnx.helper.make_opsetid("", 17)]
    graph = onnx.helper.make_graph([node], "g", [one], [two])
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), plain)
    with (
        pytest.raises(ModelFileError, match="nothing of it can be quantised"),
        quantized(plain, [], tmp_path / "q", int8_weights()),
    ):
        pass


def test_the_trace_states_it_and_a_score_cache_tells_precisions_apart(tiny_bert, cache):
    """What ran, in which precision, how it was made."""
    hits = [
        ScoredPoint(id=n, version=0, score=1.0, payload={"text": text})
        for n, text in enumerate(DOCUMENTS[:3])
    ]
    shared = ScoreCache(1_000_000)
    traces, scores = [], []
    for precision in ("fp32", "int8"):
        encoder = TextCrossEncoder(
            tiny_bert, precision=precision, cache_dir=cache, score_cache=shared
        )
        found = rerank_points(QUERY, hits, reranker=encoder)
        traces.append((found.trace.engine, found.trace.precision))
        scores.append({hit.id: hit.score for hit in found})
    assert traces == [
        ("CPUExecutionProvider", "fp32"),
        ("CPUExecutionProvider", f"int8 ({int8_weights()})"),
    ]
    assert scores[0] != scores[1]
    assert shared.hits == 0


def python(code, *arguments):
    """stdout of a fresh interpreter."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout
