"""Batches as on a GPU: bound inputs, too little memory, several sessions.

No GPU is needed: onnxruntime's CPU provider has the same bindings and the same arena, which runs
out of memory if it is limited.
"""

import json
import subprocess
import sys
import threading

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from qdrant_rerank import TextCrossEncoder
from qdrant_rerank.cross_encoder.model_config import ModelConfig
from qdrant_rerank.cross_encoder.scorer import PairScorer
from qdrant_rerank.cross_encoder.windows import PairReader
from qdrant_rerank.errors import ModelOutputError
from qdrant_rerank.inference.gpu.pool import DEFAULT_TOKENS, LEAST_TOKENS, BoundSession, GpuPool
from qdrant_rerank.inference.plan import make_plan
from qdrant_rerank.inference.request import Request
from qdrant_rerank.inference.runtime import Runtime
from qdrant_rerank.inference.tokenization import PairTokenizer
from tests.models import variants
from tests.models.build import WORDS

QUERY = "which bread rises?"
DOCUMENTS = [" ".join(WORDS[n : n + 3 + n % 40]) for n in range(0, 300, 10)]
# A provider that is no GPU, but is driven like one; it leaves all operators to the CPU's.
AS_A_GPU = ["AzureExecutionProvider", "CPUExecutionProvider"]
needs_it = pytest.mark.skipif(
    AS_A_GPU[0] not in onnxruntime.get_available_providers(), reason="not in this build"
)
# An arena of 6 MB for all sessions of the process: the weights fit, a large batch does not.
LITTLE_MEMORY = """
import json, logging, sys
import onnxruntime as ort
from qdrant_rerank.inference.gpu.pool import BoundSession, GpuPool
import numpy as np

logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
kind = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
memory = ort.OrtMemoryInfo("Cpu", kind, 0, ort.OrtMemType.DEFAULT)
arena = ort.OrtArenaCfg({"max_mem": 6_000_000, "arena_extend_strategy": 1})
ort.create_and_register_allocator(memory, arena)

def session(limited):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_mem_pattern = False
    if limited:
        options.add_session_config_entry("session.use_env_allocators", "1")
    opened = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    return BoundSession(ort, opened, "logits", "cpu:0")

rng = np.random.default_rng(0)
def inputs(rows, width):
    ids = rng.integers(5, 900, (rows, width))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": 0 * ids}

pool = GpuPool([session(True)], open_fallback=lambda: session(False).run)
pool.tokens_per_batch = 131_072
large = inputs(256, 128)
found = pool.run(large)
expected = session(False).run(large)
difference = float(np.abs(found.array - expected).max())
print(json.dumps([difference, found.on_cpu, pool.tokens_per_batch]))
"""


def session_of(path, output="logits"):
    """A bound session on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return BoundSession(onnxruntime, opened, output, "cpu:0")


def inputs(rows, width, seed=0):
    """Random ids, of which each row's end is padding."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, 900, (rows, width))
    mask = (np.arange(width) < rng.integers(3, width + 1, (rows, 1))).astype(np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


@pytest.fixture
def model(tiny_bert):
    """The ONNX file."""
    return tiny_bert / "onnx" / "model.onnx"


@pytest.fixture
def hungry(tmp_path):
    """A model whose output needs 70 TB if a batch has more than 2 rows or more than 8 tokens.

    Else each row's output is the mean of its ids.
    """
    path = tmp_path / "hungry.onnx"
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "w"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1])
    constants = {
        "most": np.array([2, 8], dtype=np.int64),
        "huge": np.array([1 << 44], dtype=np.int64),
        "no": np.array([0], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Greater", ["shape", "most"], ["each"]),
        helper.make_node("Cast", ["each"], ["each_number"], to=TensorProto.INT32),
        helper.make_node("ReduceMax", ["each_number"], ["too_much"], keepdims=1),
        helper.make_node("Cast", ["too_much"], ["is_too_much"], to=TensorProto.BOOL),
        helper.make_node("Where", ["is_too_much", "huge", "no"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Cast", ["input_ids"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers"], ["means"], axes=[1]),
        helper.make_node("Add", ["means", "zero"], ["logits"]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "hungry", [ids], [logits], tensors)
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@needs_it
@pytest.mark.parametrize("name", ["tiny-bert", "tiny-xlmr", "tiny-qwen3"])
def test_scores_are_those_of_the_cpu(name, tiny_bert, tmp_path):
    """Through the whole encoder: token types, positions, padding on the left; and it is pickled."""
    directory = tiny_bert.parent / name
    expected = TextCrossEncoder(directory, engine="onnxruntime").rerank(QUERY, DOCUMENTS)
    encoder = TextCrossEncoder(directory, providers=AS_A_GPU, cache_dir=tmp_path)
    assert encoder.provider == AS_A_GPU[0]
    for batch_size in (None, 1, 7):
        assert encoder.rerank(QUERY, DOCUMENTS, batch_size) == pytest.approx(expected, abs=1e-5)


def test_several_sessions_take_batches_from_one_queue(model):
    """From many threads at the same time, each batch gets its own output."""
    pool = GpuPool([session_of(model) for _ in range(3)], open_fallback=pytest.fail)
    alone = session_of(model)
    batches = [inputs(1 + n % 5, 8 + n, seed=n) for n in range(24)]
    expected = [alone.run(one) for one in batches]
    found = {}

    def run(number):
        found[number] = pool.run(batches[number])

    threads = [threading.Thread(target=run, args=[n]) for n in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pool.workers == 6
    for number, output in enumerate(expected):
        np.testing.assert_array_equal(found[number].array, output)
        assert found[number].on_cpu == 0


def test_a_batch_without_memory_is_halved_and_later_ones_are_smaller(model):
    """onnxruntime's own arena, limited; the scores are those of a batch that fits."""
    command = [sys.executable, "-c", LITTLE_MEMORY, model]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    *warned, numbers = done.stdout.splitlines()
    difference, on_cpu, tokens = json.loads(numbers)
    assert (difference, on_cpu) == (pytest.approx(0, abs=1e-5), 0)
    assert LEAST_TOKENS <= tokens < 256 * 128
    said = "WARNING A batch of 256 pairs of 128 tokens did not fit the GPU's memory; batches hold"
    assert warned[0].startswith(f"{said} 16384 tokens")
    assert done.stderr == ""  # a failure that is handled is not printed


def means(batch):
    """What the hungry model computes, on a machine with more memory."""
    return batch["input_ids"].mean(axis=1, keepdims=True).astype(np.float32)


def test_a_pair_that_does_not_fit_alone_runs_on_the_cpu(hungry):
    """And the next one of that length does not try the GPU."""
    asked = []

    def on_cpu(batch):
        asked.append(batch["input_ids"].shape)
        return means(batch)

    pool = GpuPool([session_of(hungry)], open_fallback=lambda: on_cpu)
    ids = np.random.default_rng(1).integers(0, 1000, (5, 8))
    fits = pool.run({"input_ids": ids})
    assert (fits.on_cpu, asked) == (0, [])
    np.testing.assert_allclose(fits.array[:, 0], ids.mean(axis=1), rtol=1e-6)
    wide = np.random.default_rng(2).integers(0, 1000, (3, 9))
    found = pool.run({"input_ids": wide})
    assert (found.on_cpu, asked) == (3, [(1, 9)] * 3)
    np.testing.assert_allclose(found.array[:, 0], wide.mean(axis=1), rtol=1e-6)
    assert pool.tokens_per_batch == DEFAULT_TOKENS  # batches that small say nothing of it


@pytest.mark.parametrize(
    ("room", "rows", "tokens"),
    [(16_384, 512, 16_384), (8_192, 512, 8_192), (8_192, 128, 8_192), (256, 5, 65_536)],
)
def test_what_a_batch_without_memory_says_of_the_budget(room, rows, tokens):
    """Half of the batch, if it was a large one; a small one says nothing."""
    shrunk = []

    class Full:
        """Has room for so many tokens."""

        def run(self, batch, *, shrink=False):
            if shrink:
                shrunk.append(batch["input_ids"].shape)
            if batch["input_ids"].size > room:
                raise RuntimeError("Failed to allocate memory for requested buffer of size 1")
            return means(batch)

    pool = GpuPool([Full()], open_fallback=pytest.fail)
    pool.tokens_per_batch = 65_536
    ids = np.random.default_rng(0).integers(0, 1000, (rows, 128))
    found = pool.run({"input_ids": ids})
    np.testing.assert_allclose(found.array[:, 0], ids.mean(axis=1), rtol=1e-6)
    assert pool.tokens_per_batch == tokens
    assert set(shrunk) == {(1, 128)}


def test_memory_that_comes_back_is_used():
    """A batch is tried again before it is halved; a GPU that was full once is not given up."""

    class Busy:
        """Full until it returns unused memory."""

        full = True

        def run(self, batch, *, shrink=False):
            self.full = self.full and not shrink
            if self.full:
                raise RuntimeError("CUDA failure 2: out of memory")
            return means(batch)

    pool = GpuPool([Busy()], open_fallback=pytest.fail)
    for rows in (1, 7):
        found = pool.run({"input_ids": np.ones((rows, 9), dtype=np.int64)})
        assert (found.array.shape, found.on_cpu) == ((rows, 1), 0)


def test_other_failures_are_not_taken_for_a_lack_of_memory(model):
    """Ids beyond the vocabulary, for one."""
    pool = GpuPool([session_of(model)], open_fallback=pytest.fail)
    broken = {**inputs(2, 8), "input_ids": np.full((2, 8), 1_000_000)}
    with pytest.raises(Exception, match="out of"):
        pool.run(broken)
    assert pool.tokens_per_batch == DEFAULT_TOKENS
    assert pool.run(inputs(2, 8)).array.shape == (2, 1)  # the session is free again


def hungry_beyond(source, target, width):
    """A copy of a model that needs 70 TB more for a batch of more than so many tokens per pair."""

    def edit(model):
        constants = {
            "second": np.array([1], dtype=np.int64),
            "most": np.array([width], dtype=np.int64),
            "huge": np.array([1 << 44], dtype=np.int64),
            "no": np.array([0], dtype=np.int64),
        }
        for name, value in constants.items():
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        for node in model.graph.node:
            node.output[:] = ["own" if name == "logits" else name for name in node.output]
        model.graph.node.extend(
            [
                helper.make_node("Shape", ["input_ids"], ["shape"]),
                helper.make_node("Gather", ["shape", "second"], ["width"]),
                helper.make_node("Greater", ["width", "most"], ["too_wide"]),
                helper.make_node("Where", ["too_wide", "huge", "no"], ["size"]),
                helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
                helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
                helper.make_node("Add", ["own", "zero"], ["logits"]),
            ]
        )

    return variants.edited(source, target, edit)


@needs_it
def test_scores_say_how_many_pairs_did_not_fit(tiny_bert, model, tmp_path):
    """They are right all the same, in the order of the pairs."""
    small = hungry_beyond(tiny_bert, tmp_path / "m", 64) / "onnx" / "model.onnx"
    plan = make_plan(Request(providers=AS_A_GPU), "fp32")
    runtime = Runtime(small, plan, fallback=model)
    reader = PairReader(PairTokenizer.from_directory(tiny_bert), None)
    scorer = PairScorer(reader, runtime, ModelConfig.read(tiny_bert))
    documents = ["rye", "bread " * 80, "oven", "salt " * 90, "water"]
    found = scorer.score([(QUERY, document) for document in documents])
    expected = TextCrossEncoder(tiny_bert, engine="onnxruntime").rerank(QUERY, documents)
    assert found.scores.tolist() == pytest.approx(expected, abs=1e-5)
    assert found.engine == f"{AS_A_GPU[0]}, and a CPU for 2 that did not fit it"
    assert found.truncated.tolist() == [False] * 5
    assert scorer.score([(QUERY, "rye")]).engine == AS_A_GPU[0]
    # On the CPU several at a time, each with inputs of its own.
    many = [" ".join(WORDS[n : n + 90]) for n in range(200)]
    found = scorer.score([(QUERY, document) for document in many])
    expected = TextCrossEncoder(tiny_bert, engine="onnxruntime").rerank(QUERY, many)
    assert found.scores.tolist() == pytest.approx(expected, abs=1e-5)
    assert found.engine.endswith("a CPU for 200 that did not fit it")


@needs_it
def test_pairs_are_read_in_blocks_while_others_run(tiny_bert, tmp_path):
    """However many, of however many lengths, in the order they came; the first broken is named."""
    encoder = TextCrossEncoder(tiny_bert, providers=AS_A_GPU, cache_dir=tmp_path)
    documents = [" ".join(WORDS[n % 300 : n % 300 + 1 + 7 * n % 60]) for n in range(150)]
    expected = TextCrossEncoder(tiny_bert, engine="onnxruntime").rerank(QUERY, documents)
    found = encoder.score_pairs([(QUERY, document) for document in documents])
    assert found.scores.tolist() == pytest.approx(expected, abs=1e-5)
    assert found.tokens <= found.padded_tokens < 2 * found.tokens
    timed = encoder.score_pairs([(QUERY, d) for d in documents], deadline_s=60)
    assert timed.scores.tolist() == pytest.approx(expected, abs=1e-5)
    lazily = encoder.rerank_pairs(((QUERY, document) for document in documents), parallel=3)
    assert list(lazily) == pytest.approx(expected, abs=1e-5)
    broken = variants.nan_logits(tiny_bert, tmp_path / "nan")
    with pytest.raises(ModelOutputError, match="150 of 150 pairs, the first at index 0"):
        TextCrossEncoder(broken, providers=AS_A_GPU).rerank(QUERY, documents)
