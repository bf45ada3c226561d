"""engine="openvino": the same scores from another engine, where it is installed."""

import logging
import pickle
import threading

import numpy as np
import pytest

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from qdrant_rerank.errors import InvalidInputError, MissingDependencyError, ModelFileError
from qdrant_rerank.inference.plan import Machine
from tests.models import variants
from tests.models.build import WORDS

QUERY = "which bread rises?"
DOCUMENTS = [" ".join(WORDS[n : n + 3 + n % 40]) for n in range(0, 300, 10)] + ["", "rye " * 300]

INSTALLED = Machine().has_openvino
needs_openvino = pytest.mark.skipif(not INSTALLED, reason="openvino is not installed")
without_openvino = pytest.mark.skipif(INSTALLED, reason="openvino is installed")


@pytest.fixture(scope="module", params=["tiny_bert", "tiny_xlmr"])
def directory(request):
    """With and without token types; XLM-R counts positions by its padding id."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def onnxruntime(directory):
    """The engine to compare with."""
    return TextCrossEncoder(directory, engine="onnxruntime")


@pytest.fixture(scope="module")
def openvino(directory):
    """The other engine, on two streams."""
    return TextCrossEncoder(directory, engine="openvino", threads=2)


@needs_openvino
def test_scores_are_equal_in_fp32(onnxruntime, openvino):
    """To 1e-4, padded to few widths, up to the max length."""
    found, expected = openvino.score_pairs(pairs()), onnxruntime.score_pairs(pairs())
    assert found.scores == pytest.approx(expected.scores, abs=1e-4)
    assert (found.engine, found.precision) == ("OpenVINO fp32", "fp32")
    assert found.tokens == expected.tokens < found.padded_tokens
    assert "OpenVINO fp32" in repr(openvino)


@needs_openvino
def test_a_score_is_of_its_pair_alone(openvino):
    """Whatever is scored beside it, from however many threads."""
    alone = [openvino.rerank(QUERY, [document])[0] for document in DOCUMENTS]
    found = []
    callers = [
        threading.Thread(target=lambda: found.append(openvino.rerank(QUERY, DOCUMENTS)))
        for _ in range(8)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == [pytest.approx(alone, abs=1e-5)] * 8
    copy = pickle.loads(pickle.dumps(openvino))
    assert copy.rerank(QUERY, DOCUMENTS[:3]) == pytest.approx(alone[:3], abs=1e-5)


@needs_openvino
def test_bf16_is_near(directory, onnxruntime):
    """In nearly the same order, and stated."""
    encoder = TextCrossEncoder(directory, engine="openvino", precision="bf16")
    scores = encoder.rerank(QUERY, DOCUMENTS)
    assert np.corrcoef(scores, onnxruntime.rerank(QUERY, DOCUMENTS))[0, 1] > 0.99
    assert encoder.precision == "bf16"
    assert "bf16, Runtime" in repr(encoder)


@needs_openvino
def test_auto_takes_it_where_scores_stay(directory, tmp_path):
    """fp32 alone; a provider that is asked for wins; int8 is computed otherwise."""
    assert "OpenVINO" in repr(TextCrossEncoder(directory))
    assert "CPUExecution" in repr(TextCrossEncoder(directory, providers=["CPUExecutionProvider"]))
    assert "CPUExecution" in repr(TextCrossEncoder(DEFAULT_RERANKER))
    made = TextCrossEncoder(directory, precision="int8", cache_dir=tmp_path)
    assert "CPUExecution" in repr(made)


@needs_openvino
def test_what_it_cannot_do_is_refused(directory, tmp_path, caplog):
    """With what to do instead; "auto" falls back and leaves a line in the log."""
    with pytest.raises(InvalidInputError, match="is quantised, which OpenVINO computes otherwise"):
        TextCrossEncoder(DEFAULT_RERANKER, engine="openvino")
    with pytest.raises(InvalidInputError, match="providers, device_ids and cuda=True"):
        TextCrossEncoder(directory, engine="openvino", providers=["CPUExecutionProvider"])
    broken = variants.truncated(directory, tmp_path / "m")
    with pytest.raises(ModelFileError):
        TextCrossEncoder(broken, engine="openvino")
    with caplog.at_level(logging.INFO), pytest.raises(ModelFileError):
        TextCrossEncoder(broken)


@without_openvino
def test_where_it_is_not_installed_the_command_is_named(directory):
    """And "auto" is onnxruntime."""
    with pytest.raises(MissingDependencyError, match=r"pip install .*openvino\]"):
        TextCrossEncoder(directory, engine="openvino")
    assert "CPUExecutionProvider" in repr(TextCrossEncoder(directory))


def test_wrong_engines_and_precisions_are_refused(directory):
    """Before anything is loaded; onnxruntime has no bf16 on a CPU."""
    with pytest.raises(InvalidInputError, match="engine is 'tensorrt'; expected one of 'auto'"):
        TextCrossEncoder(directory, engine="tensorrt", lazy_load=True)
    with pytest.raises(InvalidInputError, match="precision is 'int4'; expected one of 'auto'"):
        TextCrossEncoder(directory, precision="int4", lazy_load=True)
    with pytest.raises(InvalidInputError, match="'bf16', which onnxruntime does not run"):
        TextCrossEncoder(directory, precision="bf16", engine="onnxruntime")


def pairs():
    """Of one query."""
    return [(QUERY, document) for document in DOCUMENTS]
