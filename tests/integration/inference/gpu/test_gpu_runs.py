"""Runs as on a card: bound buffers, budgets, too little memory, several sessions, recorded shapes.

No card is needed: onnxruntime's CPU provider has the same bindings, and the same arena, which runs
out of memory where it is limited. What CUDA alone does (page-locking, graphs) is left out.
"""

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from qdrant_rerank.cross_encoder.model_config import ModelConfig
from qdrant_rerank.cross_encoder.scorer import PairScorer
from qdrant_rerank.cross_encoder.windows import PairReader
from qdrant_rerank.errors import ModelOutputError
from qdrant_rerank.inference.gpu.autotune import is_faster
from qdrant_rerank.inference.gpu.io_binding import MOST_GRAPHS, BoundSession
from qdrant_rerank.inference.gpu.pinned_memory import PinnedBuffer
from qdrant_rerank.inference.gpu.pool import GpuPool, seconds_of
from qdrant_rerank.inference.gpu.token_budget import (
    DEFAULT_TOKENS,
    LEAST_TOKENS,
    Budget,
    budget_key,
)
from qdrant_rerank.inference.runtime import Runtime
from qdrant_rerank.inference.tokenization import PairTokenizer
from tests.models import variants
from tests.models.build import WORDS

QUERY = "which bread rises?"
DOCUMENTS = [" ".join(WORDS[n : n + 3 + n % 40]) for n in range(0, 300, 10)]
# A provider that is no card, but is driven like one; it leaves all operators to the CPU's.
AS_A_CARD = ["AzureExecutionProvider", "CPUExecutionProvider"]
needs_it = pytest.mark.skipif(
    AS_A_CARD[0] not in onnxruntime.get_available_providers(), reason="not in this build"
)
# An arena of 6 MB for all sessions of the process: the weights fit, a large run does not.
LITTLE_MEMORY = """
import json, logging, sys
import onnxruntime as ort
from pathlib import Path
from qdrant_rerank.inference.gpu.io_binding import BoundSession
from qdrant_rerank.inference.gpu.pool import GpuPool
from qdrant_rerank.errors import ModelOutputError
from qdrant_rerank.inference.gpu.token_budget import Budget
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
    return BoundSession(ort, opened, "logits", device="cpu")

rng = np.random.default_rng(0)
def feed(rows, width):
    ids = rng.integers(5, 900, (rows, width))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": 0 * ids}

budget = Budget(Path(sys.argv[2]), "key")
budget.set(131_072, "plain")
pool = GpuPool([session(True)], open_fallback=lambda: session(False), budget=budget)
large = feed(256, 128)
ran = pool.run(large)
expected = session(False).run(large)
print(json.dumps([float(np.abs(ran.output - expected).max()), ran.on_cpu, pool.tokens_per_batch]))
print(Budget(Path(sys.argv[2]), "key").tokens)
"""


def session_of(path, output="logits"):
    """A bound session on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return BoundSession(onnxruntime, opened, output, device="cpu")


def feed(rows, width, seed=0):
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
    """A model whose output needs 70 TB where a run has more than 2 rows or more than 8 tokens.

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
    encoder = TextCrossEncoder(directory, providers=AS_A_CARD, cache_dir=tmp_path)
    assert encoder.provider == AS_A_CARD[0]
    for batch_size in (None, 1, 7):
        assert encoder.rerank(QUERY, DOCUMENTS, batch_size) == pytest.approx(expected, abs=1e-5)


def test_several_sessions_take_runs_from_one_queue(model):
    """From many threads at once, each run's output is its own."""
    budget = Budget()
    pool = GpuPool([session_of(model) for _ in range(3)], open_fallback=pytest.fail, budget=budget)
    alone = session_of(model)
    feeds = [feed(1 + n % 5, 8 + n, seed=n) for n in range(24)]
    expected = [np.array(alone.run(one)) for one in feeds]
    found = {}

    def run(number):
        found[number] = pool.run(feeds[number])

    threads = [threading.Thread(target=run, args=[n]) for n in range(len(feeds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pool.workers == 6
    for number, output in enumerate(expected):
        np.testing.assert_array_equal(found[number].output, output)
        assert found[number].on_cpu == 0


def test_without_memory_a_run_is_halved_and_the_budget_remembered(model, tmp_path):
    """onnxruntime's own arena, limited; the scores are those of a run that fits."""
    command = [sys.executable, "-c", LITTLE_MEMORY, model, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    *warned, numbers, remembered = done.stdout.splitlines()
    difference, on_cpu, tokens = json.loads(numbers)
    assert (difference, on_cpu) == (pytest.approx(0, abs=1e-5), 0)
    assert LEAST_TOKENS <= tokens < 256 * 128
    assert int(remembered) == tokens
    assert (
        "WARNING A run of 256 pairs of 128 tokens did not fit the card; runs hold 16384"
        in warned[0]
    )
    assert done.stderr == ""  # a failure that is mended is not printed


def test_a_pair_that_does_not_fit_alone_is_run_on_the_cpu(hungry, model):
    """And the next one of that length does not try the card."""
    asked = []

    class Roomy:
        """The CPU of a machine with more memory: the same means."""

        def run(self, feed):
            asked.append(feed["input_ids"].shape)
            return feed["input_ids"].mean(axis=1, keepdims=True).astype(np.float32)

    pool = GpuPool([session_of(hungry)], open_fallback=Roomy, budget=Budget())
    ids = np.random.default_rng(1).integers(0, 1000, (5, 8))
    fits = pool.run({"input_ids": ids})
    assert (fits.on_cpu, asked) == (0, [])
    np.testing.assert_allclose(fits.output[:, 0], ids.mean(axis=1), rtol=1e-6)
    wide = np.random.default_rng(2).integers(0, 1000, (3, 9))
    ran = pool.run({"input_ids": wide})
    assert (ran.on_cpu, asked) == (3, [(1, 9)] * 3)
    np.testing.assert_allclose(ran.output[:, 0], wide.mean(axis=1), rtol=1e-6)
    assert pool.tokens_per_batch == DEFAULT_TOKENS  # runs that small say nothing of it


def test_what_a_run_without_memory_says_of_the_budget(tmp_path):
    """Half of it, for other processes too; a small one says nothing."""

    class Full:
        """Has room for so many tokens."""

        def __init__(self, room):
            self.room = room
            self.given_back = []

        def run(self, feed):
            if feed["input_ids"].size > self.room:
                raise RuntimeError("Failed to allocate memory for requested buffer of size 1")
            return feed["input_ids"].mean(axis=1, keepdims=True).astype(np.float32)

        def give_back(self, feed):
            self.given_back.append(feed["input_ids"].shape)

    for room, rows, tokens in (
        (16_384, 512, 16_384),
        (8_192, 512, 8_192),
        (8_192, 128, 8_192),
        (256, 5, 65_536),
    ):
        budget = Budget(tmp_path / str(rows + room), "key")
        budget.set(65_536, "plain")
        session = Full(room)
        pool = GpuPool([session], open_fallback=pytest.fail, budget=budget)
        ids = np.random.default_rng(0).integers(0, 1000, (rows, 128))
        np.testing.assert_allclose(
            pool.run({"input_ids": ids}).output[:, 0], ids.mean(axis=1), rtol=1e-6
        )
        assert pool.tokens_per_batch == tokens
        assert Budget(tmp_path / str(rows + room), "key").tokens == tokens
        assert set(session.given_back) == {(1, 128)}


def test_memory_that_comes_back_is_used(hungry):
    """A run is tried again before it is halved; a card that was full once is not given up."""

    class Busy:
        """Full until it is asked to give back what it does not use."""

        def __init__(self):
            self.full = True

        def run(self, feed):
            if self.full:
                raise RuntimeError("CUDA failure 2: out of memory")
            return feed["input_ids"].mean(axis=1, keepdims=True).astype(np.float32)

        def give_back(self, feed):
            self.full = False

    pool = GpuPool([Busy()], open_fallback=pytest.fail, budget=Budget())
    for rows in (1, 7):
        ran = pool.run({"input_ids": np.ones((rows, 9), dtype=np.int64)})
        assert (ran.output.shape, ran.on_cpu) == ((rows, 1), 0)


def test_other_failures_are_not_taken_for_a_lack_of_memory(model):
    """Ids beyond the vocabulary, for one."""
    pool = GpuPool([session_of(model)], open_fallback=pytest.fail, budget=Budget())
    broken = {**feed(2, 8), "input_ids": np.full((2, 8), 1_000_000)}
    with pytest.raises(Exception, match="out of"):
        pool.run(broken)
    assert pool.tokens_per_batch == DEFAULT_TOKENS
    assert pool.run(feed(2, 8)).output.shape == (2, 1)  # the session is free again


def test_a_shape_that_comes_again_has_fixed_addresses(model):
    """Rows up to a power of two share one; others and the first run are as ever."""
    options = onnxruntime.SessionOptions()
    opened = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    recorded = BoundSession(onnxruntime, opened, "logits", device="cpu", graphs=True)
    plain = session_of(model)
    outputs = []
    for seed in range(12):
        one = feed(5 + seed % 4, 16, seed)
        outputs.append((recorded.run(one), np.array(plain.run(one))))
    for found, expected in outputs:  # none was overwritten by a later run
        np.testing.assert_allclose(found, expected, atol=1e-5)
    wide = feed(64, 100)
    np.testing.assert_array_equal(recorded.run(wide), plain.run(wide))


def test_a_recording_that_fails_is_done_without(model):
    """The runs go on kernel by kernel; no shape is tried again, and after three no other."""
    options = onnxruntime.SessionOptions()
    opened = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    class Spoiled:
        """Its runs into fixed addresses fail, as where other work is on the card."""

        def __init__(self, error):
            self.error = error
            self.tried = 0

        def __getattr__(self, name):
            return getattr(opened, name)

        def run_with_iobinding(self, binding, options):
            if options.get_run_config_entry("gpu_graph_id") != "-1":
                self.tried += 1
                raise RuntimeError(self.error)
            opened.run_with_iobinding(binding, options)

    spoiled = Spoiled("CUDA failure 900: operation not permitted when stream is capturing")
    session = BoundSession(onnxruntime, spoiled, "logits", device="cpu", graphs=True)
    one, plain = feed(5, 16), session_of(model)
    for _ in range(4):
        np.testing.assert_allclose(session.run(one), plain.run(one), atol=1e-5)
    assert spoiled.tried == 1
    for width in (17, 18, 19, 20):
        for _ in range(3):
            assert session.run(feed(5, width)).shape == (5, 1)
    assert spoiled.tried == 3  # shapes, after which it is no chance event
    # An allocation while recording reads like a lack of memory, which the plain run does not have.
    full = BoundSession(
        onnxruntime, Spoiled("Failed to allocate memory"), "logits", device="cpu", graphs=True
    )
    pool = GpuPool([full], open_fallback=pytest.fail, budget=Budget())
    for _ in range(3):
        np.testing.assert_allclose(pool.run(one).output, plain.run(one), atol=1e-5)
    assert pool.tokens_per_batch == DEFAULT_TOKENS


def test_graphs_stay_within_their_number(model):
    """None is given up for another, which would be recorded again and again."""
    options = onnxruntime.SessionOptions()
    opened = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    recorded = BoundSession(onnxruntime, opened, "logits", device="cpu", graphs=True)
    plain = session_of(model)
    shapes = [(rows, width) for rows in (1, 2, 4) for width in range(8, 33)]
    assert len(shapes) > MOST_GRAPHS
    for seed in range(3):
        for rows, width in shapes:
            one = feed(rows, width, seed)
            np.testing.assert_allclose(recorded.run(one), plain.run(one), atol=1e-5)
    assert sum(graph is not None for graph in recorded._graphs.values()) == MOST_GRAPHS


def test_another_way_must_be_faster_and_the_same(model):
    """A session with other weights is not taken, however fast."""

    class Instant:
        """Answers at once, what it has for that very feed."""

        def __init__(self, answers):
            self.answers = answers

        def run(self, feed):
            return self.answers[id(feed)]

    plain, small, other = session_of(model), feed(8, 64), feed(8, 64, seed=1)
    right = {id(one): np.array(plain.run(one)) for one in (small, other)}
    wrong = {key: answer + 1 for key, answer in right.items()}
    stale = {id(one): right[id(small)] for one in (small, other)}
    assert is_faster(plain, Instant(right), small, other)
    assert not is_faster(plain, Instant(wrong), small, other)
    assert not is_faster(plain, Instant(stale), small, other)
    assert not is_faster(Instant(right), plain, small, other)
    assert seconds_of(plain, {"input_ids": small["input_ids"]}) is None


def test_a_budget_is_remembered_by_model_and_card(model, tmp_path):
    """Damaged notes are measured anew; a folder that cannot be written costs time alone."""
    key = budget_key(model, "H100")
    assert key != budget_key(model, "A10") != budget_key(tmp_path, "A10")
    budget = Budget(tmp_path, key)
    assert (budget.known, budget.tokens, budget.way) == (False, DEFAULT_TOKENS, "plain")
    budget.set(32_768, "graphs")
    Budget(tmp_path, "another").set(4_096, "plain")
    again = Budget(tmp_path, key)
    assert (again.known, again.tokens, again.way) == (True, 32_768, "graphs")
    [file] = tmp_path.glob("*.json")
    entries = (3, [1, 2, 3], ["a", 1], [16, "plain"], [4096, "fast"], None)
    for damage in ("", "[]", *(json.dumps({key: entry}) for entry in entries)):
        file.write_text(damage)
        assert not Budget(tmp_path, key).known
    (tmp_path / "file").write_text("")
    unwritable = Budget(tmp_path / "file", key)
    unwritable.set(8_192, "plain")
    assert unwritable.tokens == 8_192


@needs_it
@pytest.mark.parametrize("name", [DEFAULT_RERANKER, "tiny-bert", "tiny-xlmr", "tiny-qwen3"])
def test_what_runs_are_timed_with_is_scored(name, tiny_bert):
    """Else no other way could be seen to answer the same; feeds of one shape differ."""
    directory = tiny_bert.parent / name
    encoder = TextCrossEncoder(directory if directory.exists() else name, engine="onnxruntime")
    runtime = encoder._model.scorer().runtime
    session = onnxruntime.InferenceSession(runtime.path, providers=["CPUExecutionProvider"])
    [one], [other] = (session.run(None, dict(runtime._trial(4, 128, seed))) for seed in (0, 1))
    assert np.isfinite(one).all()
    assert not np.allclose(one, other, atol=1e-2)


@needs_it
def test_the_budget_is_measured_once(model, tmp_path):
    """By running the model, in the folder that is given."""
    first = Runtime(model, providers=AS_A_CARD, artifacts=tmp_path)
    [file] = tmp_path.glob("*.json")
    written = file.stat().st_mtime_ns
    second = Runtime(model, providers=AS_A_CARD, artifacts=tmp_path)
    assert first.tokens_per_batch == second.tokens_per_batch >= LEAST_TOKENS
    assert file.stat().st_mtime_ns == written


def test_a_buffer_holds_arrays_of_every_type_and_size():
    """From the start of a page; ordinary memory where there is no CUDA to lock it."""
    for version in (None, "13.0"):
        buffer = PinnedBuffer(version)
        for array in (
            np.arange(6).reshape(2, 3),
            np.zeros((1, 2, 0, 4), dtype=np.float32),
            np.arange(5000, dtype=np.float16),
            np.arange(4, dtype=np.int32)[::2],
        ):
            held = buffer.holding(array)
            np.testing.assert_array_equal(held, array)
            assert held.dtype == array.dtype
            assert held.flags.c_contiguous
            assert not array.size or held.ctypes.data % 4096 == 0
    assert Path("/dev/nvidia0").exists() or not buffer.locked


def hungry_beyond(source, target, width):
    """A copy of a model that needs 70 TB more for a run of more than so many tokens a pair."""

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
    runtime = Runtime(small, providers=AS_A_CARD, fallback=model)
    reader = PairReader(PairTokenizer.from_directory(tiny_bert), None)
    scorer = PairScorer(reader, runtime, ModelConfig.read(tiny_bert))
    documents = ["rye", "bread " * 80, "oven", "salt " * 90, "water"]
    found = scorer.score([(QUERY, document) for document in documents])
    expected = TextCrossEncoder(tiny_bert, engine="onnxruntime").rerank(QUERY, documents)
    assert found.scores.tolist() == pytest.approx(expected, abs=1e-5)
    assert found.engine == f"{AS_A_CARD[0]}, and a CPU for 2 that did not fit it"
    assert found.truncated.tolist() == [False] * 5
    assert scorer.score([(QUERY, "rye")]).engine == AS_A_CARD[0]
    # On the CPU several at a time, each with inputs of its own.
    many = [" ".join(WORDS[n : n + 90]) for n in range(200)]
    found = scorer.score([(QUERY, document) for document in many])
    expected = TextCrossEncoder(tiny_bert, engine="onnxruntime").rerank(QUERY, many)
    assert found.scores.tolist() == pytest.approx(expected, abs=1e-5)
    assert found.engine.endswith("a CPU for 200 that did not fit it")


@needs_it
def test_pairs_are_read_in_blocks_while_others_run(tiny_bert, tmp_path):
    """However many, of however many lengths, in the order they came; the first broken is named."""
    encoder = TextCrossEncoder(tiny_bert, providers=AS_A_CARD, cache_dir=tmp_path)
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
        TextCrossEncoder(broken, providers=AS_A_CARD).rerank(QUERY, documents)
