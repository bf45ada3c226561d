"""Threads of an encoder: as many as it may use, shared; several per batch if batches are few."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.inference.cpu import available_cores
from qdrant_rerank.reranking.loading import _shared, load_reranker
from tests.models import variants

QUERY = "which bread rises?"
LONG = "rye bread rises in the oven " * 80
NOT_KEPT = """
import gc, os, sys, tempfile
from qdrant_rerank import TextCrossEncoder
encoder = TextCrossEncoder(sys.argv[1], threads=4, cache_dir=sys.argv[2], engine="onnxruntime")
[short] = encoder.rerank("which bread rises?", ["rye bread " * 80])
runtime = encoder._model.scorer().runtime
print(runtime._spreading is not None, runtime._spreading is not runtime._session)
print(len(os.listdir(tempfile.gettempdir())))
del encoder, runtime
gc.collect()
print(len(os.listdir(tempfile.gettempdir())))
"""
DOCUMENTS = ["bread rises", LONG, "the sea " * 30, LONG[:900]]


def runtime(encoder):
    """The runtime of its model."""
    return encoder._model.scorer().runtime


def names_of_threads():
    """Of the process, as Python knows them."""
    return {thread.name for thread in threading.enumerate()}


def test_threads_are_the_cores_that_the_process_may_use(tiny_bert):
    """Unless told otherwise; none is no number of threads."""
    assert runtime(TextCrossEncoder(tiny_bert)).workers == available_cores()
    assert runtime(TextCrossEncoder(tiny_bert, threads=3)).workers == 3
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(InvalidInputError, match="threads is"):
            TextCrossEncoder(tiny_bert, threads=wrong)


def test_eight_encoders_and_callers_share_one_pool(tiny_bert, tiny_xlmr):
    """No thread is added beyond the first encoder's."""
    encoders = [TextCrossEncoder(model, threads=4) for model in (tiny_bert, tiny_xlmr) * 4]
    encoders[0].rerank(QUERY, DOCUMENTS * 10)
    before = names_of_threads()
    expected = [encoder.rerank(QUERY, DOCUMENTS * 3) for encoder in encoders]
    found = [None] * 8

    def call(number):
        found[number] = encoders[number].rerank(QUERY, DOCUMENTS * 3)

    callers = [threading.Thread(target=call, args=(n,), name="caller") for n in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == [pytest.approx(scores, abs=1e-5) for scores in expected]
    pool = {f"qdrant-rerank_{n}" for n in range(4)}  # which starts a thread when it needs one
    assert names_of_threads() - {"caller"} <= before | pool


@pytest.mark.parametrize("model", ["bundled", "tiny_bert"])
def test_a_batch_on_several_cores_has_the_same_scores(request, model):
    """To the bit for int8; a second session is opened only for the first long batch."""
    name = request.getfixturevalue(model)
    path = name._model.files.tokenizer if model == "bundled" else name
    one, four = TextCrossEncoder(path, threads=1), TextCrossEncoder(path, threads=4)
    four.rerank(QUERY, ["short"])
    four.rerank(QUERY, DOCUMENTS * 8)
    assert runtime(four)._spreading is None
    alone = [four.rerank(QUERY, [document])[0] for document in DOCUMENTS]
    assert alone == pytest.approx(one.rerank(QUERY, DOCUMENTS), rel=1e-6)
    assert runtime(four)._spreading is not None
    assert runtime(one)._spreading is None
    assert not runtime(one).has_cores_for(1)


def test_a_file_that_was_replaced_is_not_opened_a_second_time(tiny_bert, tiny_xlmr, tmp_path):
    """Two sessions of two files would give a pair two scores."""
    path = variants.copy_of(tiny_bert, tmp_path / "m")
    cache = tmp_path / "cache"
    encoder = TextCrossEncoder(path, threads=4, cache_dir=cache)
    [expected] = TextCrossEncoder(path, threads=1, cache_dir=cache).rerank(QUERY, [LONG])
    replaced = [path / variants.ONNX, *cache.rglob("attention-*/model.onnx")]
    assert len(replaced) == 2
    for file in replaced:
        file.write_bytes((tiny_xlmr / variants.ONNX).read_bytes())
    assert encoder.rerank(QUERY, [LONG]) == [pytest.approx(expected, abs=1e-6)]
    assert runtime(encoder)._spreading is runtime(encoder)._session


def test_weights_that_are_gone_are_not_opened_a_second_time(tmp_path):
    """A text that is long enough for several cores takes the session that has them."""
    encoder = TextCrossEncoder("grown-e5-small-l6-v1", threads=4, cache_dir=tmp_path)
    encoder.encode_documents(["short"])
    [weights] = tmp_path.rglob("trunk.data")
    weights.unlink()
    assert len(encoder.encode_documents(["word " * 400])) == 1


def test_a_file_that_cannot_be_kept_stays_as_long_as_its_model(tiny_bert, tmp_path):
    """The second session is opened from it, too; then it is removed."""
    (tmp_path / "file").write_text("")  # no directory can be made in its place
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-W", "error", "-c", NOT_KEPT, tiny_bert, tmp_path / "file"]
    done = subprocess.run(
        command,
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.split() == ["True", "True", "1", "0"]


def test_no_time_is_spent_when_idle(bundled):
    """The sessions' own threads do not spin either."""
    encoder = TextCrossEncoder(bundled._model.files.tokenizer, threads=4)
    encoder.rerank(QUERY, [LONG])
    encoder.rerank(QUERY, DOCUMENTS)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1


def test_threads_that_come_first_load_a_named_model_once():
    """And all get the same."""
    _shared.cache_clear()
    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(lambda _: load_reranker(DEFAULT_RERANKER), range(4)))
    assert len(found) == 1
