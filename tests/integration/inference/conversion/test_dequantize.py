"""int8 weights in floats: for a GPU, or where fp32 or fp16 is asked for and no such file is."""

import logging
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnxruntime.quantization import quantize_dynamic

from qdrant_rerank import DEFAULT_RERANKER, ScoreCache, TextCrossEncoder
from qdrant_rerank.errors import InvalidInputError, MissingPrecisionError, ModelFileError
from qdrant_rerank.hub.locate import find_spec, locate
from qdrant_rerank.hub.onnx_files import external_files, is_quantized
from qdrant_rerank.hub.precision import choose_conversion
from qdrant_rerank.inference.conversion.attention import with_fused_attention
from qdrant_rerank.inference.conversion.dequantize import dequantized
from qdrant_rerank.inference.conversion.gpu import Encoder, convert_for_gpu
from qdrant_rerank.inference.conversion.int8 import quantized
from qdrant_rerank.inference.conversion.split import JOINT_PRODUCTS, split
from qdrant_rerank.inference.cpu import Int8Weights
from qdrant_rerank.inference.tokenization import PairTokenizer
from tests.models import variants
from tests.models.build import WORDS

QUERY = "which bread rises?"
DOCUMENTS = [" ".join(WORDS[n : n + 3 + n % 40]) for n in range(0, 400, 10)]
WITHOUT_ONNX = """
import sys
sys.modules["onnx"] = None
from qdrant_rerank import TextCrossEncoder
try:
    TextCrossEncoder(sys.argv[1], precision="fp32", cache_dir=sys.argv[2])
except ImportError as error:
    print(type(error).__name__, error)
"""

FORKED = """
import os, threading
from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from qdrant_rerank.reranking import loading as rerankers
encoder = TextCrossEncoder(DEFAULT_RERANKER, lazy_load=True)
encoder._model._lock.acquire()  # as a thread that is loading has it
rerankers._loading.acquire()
if os.fork() == 0:
    rerankers.load_reranker(DEFAULT_RERANKER)
    os._exit(len(encoder.rerank("q", ["d"])) - 1)
_, status = os.wait()
print(status, "done")
"""
BUNDLED = (DEFAULT_RERANKER, "grown-e5-small-cross-v1", "grown-e5-small-l6-v1")


def int8_only(source, target, *, signed=True):
    """A directory whose only ONNX file is int8."""
    made = variants.flat(source, target)
    for name in ("config.json", "tokenizer_config.json"):
        if (source / name).exists():
            (made / name).write_bytes((source / name).read_bytes())
    weights = Int8Weights(signed, "a test")
    model = source / "onnx" / "model.onnx"
    with quantized(model, [], target.parent / "q", weights) as file:
        (made / "model.onnx").unlink()
        (made / "model_int8.onnx").write_bytes(file.read_bytes())
    return made


@pytest.fixture(scope="module", params=["tiny-bert", "tiny-bert-eager", "tiny-xlmr"])
def original(request, tiny_bert):
    """An fp32 model."""
    return tiny_bert.parent / request.param


@pytest.fixture(scope="module", params=[True, False], ids=["signed", "unsigned"])
def directory(request, original, tmp_path_factory):
    """The same in int8, and no other file."""
    return int8_only(original, tmp_path_factory.mktemp("m") / "int8", signed=request.param)


@pytest.fixture(scope="module")
def restored(directory, tmp_path_factory):
    """Its weights in fp32."""
    return TextCrossEncoder(
        directory, precision="fp32", engine="onnxruntime", cache_dir=tmp_path_factory.mktemp("c")
    )


def test_weights_are_those_of_the_int8_file(original, directory, tmp_path):
    """Each within half a step of the original's, of 127 or 255 steps a column; nothing is int8."""
    source = directory / "model_int8.onnx"
    with dequantized(source, [], tmp_path) as made:
        assert is_quantized(source)
        assert not is_quantized(made)
        graph = onnx.load(made).graph
    exact = onnx.load(original / "onnx" / "model.onnx").graph
    before = {one.name: onnx.numpy_helper.to_array(one) for one in exact.initializer}
    after = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    products = {n.output[0]: n for n in graph.node if n.op_type == "MatMul"}
    seen = 0
    for node in exact.node:
        if node.op_type == "MatMul" and node.input[1] in before:
            weights = before[node.input[1]]
            step = (weights.max(axis=0) - weights.min(axis=0)) / 126
            found = after[products[node.output[0]].input[1]]
            assert found.dtype == np.float32
            assert (np.abs(found - weights) <= step + 1e-7).all()
            assert (found != weights).any()
            seen += 1
    assert seen >= 10
    assert {one.name for one in graph.initializer} <= {n for node in graph.node for n in node.input}


def test_scores_are_near_both_and_said_to_be_of_int8_weights(original, directory, restored):
    """Nearer to fp32 than int8 itself is: activations are not rounded."""
    exact = np.array(TextCrossEncoder(original, engine="onnxruntime").rerank(QUERY, DOCUMENTS))
    int8 = np.array(TextCrossEncoder(directory).rerank(QUERY, DOCUMENTS))
    found = np.array(restored.rerank(QUERY, DOCUMENTS))
    assert 0 < np.abs(found - exact).mean() < np.abs(int8 - exact).mean()
    assert restored.precision == "fp32"
    assert ", fp32 (int8 weights), " in repr(restored)
    assert restored.score_pairs([(QUERY, "rye")]).precision == "fp32 (int8 weights)"


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.integers(0, len(DOCUMENTS) - 1), min_size=1), batch_size=st.integers(1, 9))
def test_a_score_does_not_depend_on_the_rest_of_its_batch(restored, rows, batch_size):
    """Unlike in int8, several pairs share a batch."""
    assert restored._model.scorer().runtime.pairs_per_batch is None
    expected = restored.rerank(QUERY, DOCUMENTS, batch_size=1)
    scores = restored.rerank(QUERY, [DOCUMENTS[row] for row in rows], batch_size)
    assert scores == pytest.approx([expected[row] for row in rows], abs=1e-5)


def test_it_is_made_once_and_has_scores_of_its_own(tiny_bert, tmp_path):
    """In a score cache; and a pickled copy finds it."""
    directory = int8_only(tiny_bert, tmp_path / "int8")
    shared, cache = ScoreCache(1_000_000), tmp_path / "c"
    options = {"cache_dir": cache, "score_cache": shared, "engine": "onnxruntime"}
    int8 = TextCrossEncoder(directory, **options)
    fp32 = TextCrossEncoder(directory, precision="fp32", **options)
    assert int8.rerank(QUERY, DOCUMENTS) != fp32.rerank(QUERY, DOCUMENTS)
    assert shared.hits == 0
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("dequantized-*/*")}
    assert len(before) == 2  # the model and its manifest
    copy = pickle.loads(pickle.dumps(fp32))
    assert copy.rerank(QUERY, DOCUMENTS) == fp32.rerank(QUERY, DOCUMENTS)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("dequantized-*/*")} == before


@pytest.mark.parametrize(
    "name", ["tiny-bert", "tiny-bert-eager", "tiny-xlmr", "tiny-deberta", "tiny-modernbert"]
)
def test_files_with_quantised_embeddings(name, tiny_bert, tmp_path):
    """As onnxruntime's quantiser makes them by default, in fp32, fp16 and for a GPU."""
    source = tiny_bert.parent / name
    made = variants.copy_of(source, tmp_path / "m")
    path = made / "onnx" / "model.onnx"
    quantize_dynamic(str(path), str(path.with_name("model_quantized.onnx")))
    path.unlink()
    options = {"cache_dir": tmp_path / "c", "engine": "onnxruntime"}
    exact = TextCrossEncoder(source, engine="onnxruntime").rerank(QUERY, DOCUMENTS)
    fp32 = TextCrossEncoder(made, precision="fp32", **options).rerank(QUERY, DOCUMENTS)
    half = TextCrossEncoder(made, precision="fp16", **options).rerank(QUERY, DOCUMENTS)
    assert np.corrcoef(fp32, exact)[0, 1] > 0.95
    assert half == pytest.approx(fp32, abs=2e-2)
    encoder = Encoder.read(source)
    if encoder is None:
        return
    [full] = (tmp_path / "c").rglob("dequantized-*/model.onnx")
    with convert_for_gpu(full, [], tmp_path / "c", encoder=encoder, half=True) as fused:
        (made / "onnx" / "model_fp16.onnx").write_bytes(fused.read_bytes())
    fast = TextCrossEncoder(made, precision="fp16", **options).rerank(QUERY, DOCUMENTS)
    assert fast == pytest.approx(fp32, abs=2e-2)


def test_others_log_while_a_model_is_made(tmp_path, caplog):
    """What the optimizer remarks is left out, and nothing else, however many are made at once."""
    made, records = threading.Event(), 0

    def make(name):
        TextCrossEncoder(name, precision="fp16", cache_dir=tmp_path, engine="onnxruntime")

    def remark():
        nonlocal records
        while not made.is_set():
            logging.getLogger("others").error("still here")
            records += 1
            time.sleep(0.002)

    remarks = threading.Thread(target=remark)
    remarks.start()
    makers = [threading.Thread(target=make, args=[name]) for name in BUNDLED]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    made.set()
    remarks.join()
    assert caplog.text.count("still here") == records > 10
    assert logging.root.manager.disable == logging.NOTSET
    assert all(not handler.filters for handler in logging.root.handlers)


@pytest.mark.parametrize("damage", ["empty", "short"])
@pytest.mark.parametrize("options", [{"precision": "fp32"}, {"document_cache": 1_000_000}])
def test_damaged_weights_are_said_to_be(damage, options, tmp_path):
    """By name, wherever they are read."""
    made = shutil.copytree(find_spec(DEFAULT_RERANKER).directory, tmp_path / "m")
    weights = made / "onnx" / "weights.bin"
    weights.write_bytes(b"" if damage == "empty" else weights.read_bytes()[:20_000_000])
    with pytest.raises(ModelFileError, match="It is cut off: fetch the model again"):
        TextCrossEncoder(made, cache_dir=tmp_path / "c", **options)


def test_weights_that_are_a_link_are_read(tmp_path):
    """As by an installer that links files from its cache."""
    made = shutil.copytree(find_spec(DEFAULT_RERANKER).directory, tmp_path / "m")
    for name in ("model.onnx", "weights.bin"):
        file = made / "onnx" / name
        file.rename(tmp_path / name)
        file.symlink_to(tmp_path / name)
    for options in ({}, {"precision": "fp32"}, {"document_cache": 1_000_000}):
        encoder = TextCrossEncoder(made, cache_dir=tmp_path / "c", **options)
        assert len(encoder.rerank(QUERY, ["rye"])) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on Windows")
def test_a_child_forked_during_a_load_loads_for_itself():
    """It would wait for the parent's thread for ever."""
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["0", "done"]


def test_fp16_is_made_of_an_int8_file_where_there_is_no_other(tiny_bert, tmp_path):
    """As of an fp32 file."""
    directory = int8_only(tiny_bert, tmp_path / "int8")
    options = {"cache_dir": tmp_path / "c", "engine": "onnxruntime"}
    fp32 = TextCrossEncoder(directory, precision="fp32", **options).rerank(QUERY, DOCUMENTS)
    half = TextCrossEncoder(directory, precision="fp16", **options)
    assert half.rerank(QUERY, DOCUMENTS) == pytest.approx(fp32, abs=2e-2)
    assert ", fp16 (int8 weights), " in repr(half)


@pytest.mark.parametrize("name", BUNDLED)
def test_the_bundled_models(name, tmp_path):
    """In fp32 and fp16, whole and with a cache of documents."""
    pairs = [(QUERY, document) for document in DOCUMENTS[:12]]
    options = {"cache_dir": tmp_path, "engine": "onnxruntime"}
    int8 = TextCrossEncoder(name, **options).score_pairs(pairs).scores
    fp32 = TextCrossEncoder(name, precision="fp32", **options).score_pairs(pairs).scores
    half = TextCrossEncoder(name, precision="fp16", **options).score_pairs(pairs).scores
    parts = TextCrossEncoder(name, precision="fp32", document_cache=10_000_000, **options)
    assert 0 < np.abs(fp32 - int8).mean() < 0.2
    assert 0 < np.abs(half - fp32).max() < 2e-2
    np.testing.assert_allclose(parts.score_pairs(pairs).scores, fp32, atol=1e-4)


def test_layers_of_the_pair_stay_in_integers_near_floats(tmp_path):
    """Of the branches over stored states: with a scale for each token, and fused attention."""
    bundled = locate("grown-e5-small-cross-v1").model
    with ExitStack() as stack:
        enter = stack.enter_context
        trunk, branches = enter(split(bundled, external_files(bundled), tmp_path))
        kept = enter(dequantized(branches, [], tmp_path, kept=JOINT_PRODUCTS))
        fused = enter(with_fused_attention(kept, tmp_path))
        floats = enter(dequantized(branches, [], tmp_path))
        files = {"fused": fused, "kept": kept, "floats": floats, "integers": branches}
        products = {name: products_of(onnx.load(file).graph) for name, file in files.items()}
        found = {name: logits(file, trunk) for name, file in files.items()}
    assert not products["floats"]
    assert {name.split("/")[2] for name in products["kept"]} == {"joint.0", "joint.1"}
    assert len(products["kept"]) == 10 < len(products["integers"])
    assert fused != kept
    assert np.abs(found["fused"] - found["kept"]).max() < 0.1
    errors = {name: np.abs(found[name] - found["floats"]).mean() for name in ("fused", "integers")}
    assert 0 < errors["fused"] < 0.6 * errors["integers"]


def products_of(graph):
    """Names of the products of integers."""
    return [node.name for node in graph.node if node.op_type == "MatMulInteger"]


def logits(file, trunk):
    """Of a query and documents, by the states of each, in one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    lower, upper = (onnxruntime.InferenceSession(path, options) for path in (trunk, file))
    tokenizer = PairTokenizer.from_directory(locate(DEFAULT_RERANKER).tokenizer)
    names = {node.name for node in upper.get_inputs()}
    found = []
    for pair in tokenizer([(QUERY, document) for document in DOCUMENTS[:12]]):
        states = []
        for kind in (0, 1):
            ids = pair.ids[pair.type_ids == kind][None]
            inputs = {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "token_type_ids": np.full_like(ids, kind),
            }
            states += lower.run(["states"], inputs)
        inputs = {
            "input_ids": pair.ids[None],
            "attention_mask": np.ones_like(pair.ids)[None],
            "token_type_ids": pair.type_ids[None],
            "states": np.concatenate(states, 1),
        }
        found.append(upper.run(["logits"], {name: inputs[name] for name in names})[0].item())
    return np.array(found)


def test_what_is_quantised_in_another_way_is_refused(tiny_bert, tmp_path):
    """By name, with what to do; nothing is left in the cache."""

    def edit(model):
        for node in model.graph.node:
            node.output[:] = ["own" if name == "logits" else name for name in node.output]
        numbers = {"scale": np.float32(0.1), "zero": np.uint8(128)}
        for name, value in numbers.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
        for kind, source, target in (
            ("QuantizeLinear", "own", "integers"),
            ("DequantizeLinear", "integers", "logits"),
        ):
            node = onnx.helper.make_node(kind, [source, "scale", "zero"], [target])
            model.graph.node.append(node)

    directory = variants.edited(tiny_bert, tmp_path / "m", edit)
    assert TextCrossEncoder(directory).precision == "int8"
    with pytest.raises(ModelFileError, match="other operators than onnxruntime's dynamic quanti"):
        TextCrossEncoder(directory, precision="fp32", cache_dir=tmp_path / "c")
    assert not list((tmp_path / "c").rglob("*.onnx"))


def test_without_onnx_the_command_is_named(tiny_bert, tmp_path):
    """For a GPU and for a CPU."""
    directory = int8_only(tiny_bert, tmp_path / "int8")
    command = [sys.executable, "-c", WITHOUT_ONNX, directory, tmp_path / "c"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.startswith("MissingDependencyError")
    assert 'pip install "qdrant-rerank[gpu]"' in done.stdout


def test_what_nothing_can_be_made_of_is_refused(tiny_bert, tmp_path):
    """It says what was looked for."""
    made = variants.flat(tiny_bert, tmp_path / "m")
    (made / "model.onnx").rename(made / "model_q4f16.onnx")
    with pytest.raises(MissingPrecisionError, match=r"one could be made of: fp32 or int8\."):
        TextCrossEncoder(made, precision="fp16")


def test_nothing_is_made_for_a_gpu_that_is_not_there(tiny_bert, tmp_path):
    """The error comes first."""
    directory = int8_only(tiny_bert, tmp_path / "int8")
    for where in ({"device": "cuda:99"}, {"providers": ["CUDAExecutionProvider"]}):
        for precision in ("auto", "fp16"):
            with pytest.raises(InvalidInputError, match="CUDA"):
                TextCrossEncoder(directory, precision=precision, cache_dir=tmp_path / "c", **where)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("source", "asked", "for_gpu", "precision", "made"),
    [
        ("fp32", "auto", False, "fp32", ""),
        ("fp32", "auto", True, "fp32", ""),
        ("fp32", "int8", False, "int8", "quantizes"),
        ("fp32", "fp16", True, "fp16", ""),
        ("fp32", "bf16", False, "bf16", ""),
        ("int8", "auto", False, "int8", ""),
        ("int8", "auto", True, "fp32", "dequantizes"),
        ("int8", "int8", False, "int8", ""),
        ("int8", "fp32", False, "fp32", "dequantizes"),
        ("int8", "fp16", True, "fp16", "dequantizes"),
        ("int8", "bf16", False, "bf16", "dequantizes"),
        ("fp16", "auto", True, "fp16", ""),
        ("fp16", "fp16", False, "fp16", ""),
        ("q4f16", "auto", True, "q4f16", ""),
    ],
)
def test_what_is_made_of_which_file(source, asked, for_gpu, precision, made):
    """A GPU gets floats; elsewhere a file runs as it is, unless another precision is asked for."""
    found = choose_conversion(source, asked, for_gpu=for_gpu)
    assert found.precision == precision
    steps = ("quantizes", "dequantizes")
    assert " ".join(step for step in steps if getattr(found, step)) == made


@pytest.mark.parametrize(
    ("source", "asked"), [("fp16", "int8"), ("fp16", "fp32"), ("fp32", "q4f16"), ("q4f16", "fp16")]
)
def test_what_cannot_be_made_of_a_file_is_refused(source, asked):
    """Nothing else runs in its place."""
    with pytest.raises(InvalidInputError, match=f"the file is {source}, which it cannot be made"):
        choose_conversion(source, asked)


def test_a_path_to_a_file_has_that_files_precision(tiny_bert, tmp_path):
    """Another one is made of it, or refused."""
    made = variants.copy_of(tiny_bert, tmp_path / "m")
    path = made / "onnx" / "model.onnx"
    assert TextCrossEncoder(path, precision="fp16", cache_dir=tmp_path).precision == "fp16"
    named = path.with_name("model_q4f16.onnx")
    path.rename(named)
    with pytest.raises(InvalidInputError, match="the file is q4f16"):
        TextCrossEncoder(named, precision="fp32")


def test_a_document_cache_in_fp16_is_refused():
    """Its two parts are not made in fp16, whatever the whole is."""
    with pytest.raises(InvalidInputError, match="Leave out one of document_cache and precision"):
        TextCrossEncoder(DEFAULT_RERANKER, precision="fp16", document_cache=1_000_000)


def test_int8_on_a_gpu_is_refused():
    """Nobody would be told that it ran on a CPU."""
    for source in ("fp32", "int8"):
        with pytest.raises(InvalidInputError, match="in which a GPU does not compute"):
            choose_conversion(source, "int8", for_gpu=True)
