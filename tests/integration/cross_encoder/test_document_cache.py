"""A split model: texts read once, pairs scored as if nothing was kept."""

import pickle
import sys
import threading

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from qdrant_rerank.errors import InvalidInputError, MissingDependencyError
from tests.models import variants
from tests.models.build import WORDS

PHRASES = st.lists(st.sampled_from(WORDS[:12]), max_size=6).map(" ".join)
PAIRS = st.lists(st.tuples(PHRASES, PHRASES), max_size=6)
CLEAR = [
    ("melting point of iron", "Iron melts at 1538 degrees Celsius."),
    ("melting point of iron", "Bread is baked in an oven."),
    ("how is bread baked", "Bread is baked in an oven."),
    ("how is bread baked", "Iron melts at 1538 degrees Celsius."),
]


def split_model(source, target):
    """fp32: a state a token from a trunk that sees each token alone; a pair's is their mean."""
    variants.copy_of(source, target)
    rng = np.random.default_rng(0)
    constants = {
        "table": rng.normal(size=(4000, 8)),
        "scale": np.ones(8),
        "bias": np.zeros(8),
        "weights": rng.normal(size=(8, 1)),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"], "/trunk/words"),
        helper.make_node(
            "LayerNormalization", ["words", "scale", "bias"], ["state"], "/trunk/norm"
        ),
        helper.make_node("Cast", ["token_type_ids"], ["kinds"], "/branches/kinds", to=1),
        helper.make_node("Unsqueeze", ["kinds", "last"], ["column"], "/branches/column"),
        helper.make_node("Add", ["state", "column"], ["marked"], "/branches/mark"),
        helper.make_node("ReduceMean", ["marked"], ["mean"], "/branches/mean", axes=[1]),
        helper.make_node("Reshape", ["mean", "flat"], ["rows"], "/branches/rows"),
        helper.make_node("MatMul", ["rows", "weights"], ["logits"], "/branches/head"),
    ]
    inputs = ["input_ids", "attention_mask", "token_type_ids"]
    graph = helper.make_graph(
        nodes,
        "split",
        [helper.make_tensor_value_info(i, TensorProto.INT64, ["n", "w"]) for i in inputs],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1])],
        [
            *(numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()),
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(np.array([-1, 8]), "flat"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, target / "onnx" / "model.onnx")
    return target


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    """Where the halves are kept."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def roomy(cache_dir):
    """The bundled model with room for all that the tests read."""
    return TextCrossEncoder(DEFAULT_RERANKER, cache_dir=cache_dir, document_cache=10**8)


@pytest.fixture(scope="module")
def tight(cache_dir):
    """With room for two or three texts."""
    return TextCrossEncoder(DEFAULT_RERANKER, cache_dir=cache_dir, document_cache=100_000)


@settings(max_examples=15, deadline=None)
@given(pairs=PAIRS)
def test_a_score_does_not_depend_on_what_was_read_before(roomy, tight, pairs):
    """To the bit: kept, not kept, pushed out."""
    first = roomy.score_pairs(pairs).scores.tolist()
    assert roomy.score_pairs(pairs).scores.tolist() == first
    assert tight.score_pairs(pairs).scores.tolist() == first
    assert [roomy.score_pairs([pair]).scores[0] for pair in reversed(pairs)] == first[::-1]


def test_in_fp32_the_halves_score_as_the_whole(tiny_bert, tmp_path):
    """Long documents in parts, and pairs that the window cuts, too."""
    made = split_model(tiny_bert, tmp_path / "m")
    rng = np.random.default_rng(0)
    pairs = [("bread", " ".join(rng.choice(WORDS, size))) for size in (0, 1, 5, 40, 400)]
    pairs.append(("rye " * 300, "bread " * 300))
    for options in ({}, {"long_documents": "windows"}, {"max_length": 16}):
        # One pair a run, since this model reads padding.
        expected = TextCrossEncoder(made, **options).score_pairs(pairs, batch_size=1)
        halves = TextCrossEncoder(made, cache_dir=tmp_path, document_cache=10**7, **options)
        for _ in range(2):
            found = halves.score_pairs(pairs)
            assert found.scores == pytest.approx(expected.scores, abs=1e-5)
            assert found.tokens == expected.tokens


def test_in_int8_the_halves_agree_with_the_whole(bundled, roomy):
    """To what int8 is good for: the order of what is clear, and half a logit."""
    whole, halves = bundled.score_pairs(CLEAR).scores, roomy.score_pairs(CLEAR).scores
    assert np.abs(whole - halves).max() < 0.5
    assert halves[0] > halves[1] + 2
    assert halves[2] > halves[3] + 2


def test_what_was_read_is_not_read_again(cache_dir):
    """One query for all documents, one document for all queries."""
    encoder = TextCrossEncoder(
        DEFAULT_RERANKER, cache_dir=cache_dir, document_cache=10**8, threads=1
    )
    runtime = encoder._model.scorer().runtime
    runtime.hits = runtime.misses = 0
    encoder.rerank("bread", ["rises", "bakes", "in the oven"])
    assert (runtime.hits, runtime.misses) == (2, 4)
    encoder.rerank("rye", ["rises", "bakes", "in the oven"])
    assert (runtime.hits, runtime.misses) == (2 + 5, 4 + 1)


def test_the_bound_is_kept(tight):
    """By the arrays themselves, whatever is read; a text that is larger than all is not kept."""
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(WORDS, size)) for size in rng.integers(1, 60, 25)]
    tight.rerank("bread", texts)
    kept = list(tight._model.scorer().runtime._kept.values())
    assert 0 < sum(states.nbytes for states in kept) <= 100_000
    assert all(states.base is None for states in kept)
    tight.rerank("bread", ["word " * 200])
    assert all(len(states[0]) < 100 for states in tight._model.scorer().runtime._kept.values())


def test_eight_callers_at_once_get_the_scores_of_one(roomy, tight):
    """While they push out one another's texts."""
    rng = np.random.default_rng(2)
    pairs = [("bread", " ".join(rng.choice(WORDS, 5))) for _ in range(8)]
    alone = {pair: roomy.score_pairs([pair]).scores[0] for pair in pairs}
    seen = [None] * 8

    def call(caller):
        mine = pairs[caller:] + pairs[:caller]
        seen[caller] = tight.score_pairs(mine).scores.tolist() == [alone[pair] for pair in mine]

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 8


def test_with_a_score_cache_the_halves_have_scores_of_their_own(cache_dir, bundled, roomy):
    """They differ from the whole's, so they are not shared with it."""
    from qdrant_rerank import ScoreCache

    cache = ScoreCache(10**6)
    TextCrossEncoder(DEFAULT_RERANKER, score_cache=cache).score_pairs(CLEAR)
    both = TextCrossEncoder(
        DEFAULT_RERANKER, cache_dir=cache_dir, score_cache=cache, document_cache=10**7
    )
    first, second = both.score_pairs(CLEAR), both.score_pairs(CLEAR)
    assert not first.cached.any()
    assert second.cached.all()
    assert (
        first.scores.tolist() == second.scores.tolist() == roomy.score_pairs(CLEAR).scores.tolist()
    )
    copy = pickle.loads(pickle.dumps(both))
    assert copy.score_pairs(CLEAR).scores.tolist() == first.scores.tolist()


def test_a_model_that_is_not_split_is_refused(tiny_bert, tmp_path):
    """With what is for any model."""
    with pytest.raises(InvalidInputError, match="score_cache is for any model"):
        TextCrossEncoder(tiny_bert, cache_dir=tmp_path, document_cache=10**6)
    with pytest.raises(InvalidInputError, match="document_cache is 0; expected 1 or more"):
        TextCrossEncoder(DEFAULT_RERANKER, document_cache=0)


@pytest.mark.parametrize("library", ["cachetools", "onnx"])
def test_without_a_library_it_says_how_to_install_it(monkeypatch, tmp_path, library):
    """Where a document cache is asked for."""
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependencyError, match=r'pip install "qdrant-rerank\[cache\]"'):
        TextCrossEncoder(DEFAULT_RERANKER, cache_dir=tmp_path, document_cache=10**6)
