"""The models that ship with the package."""

import shutil

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdrant_rerank import DEFAULT_RERANKER, Cascade, TextCrossEncoder
from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.hub.locate import locate
from qdrant_rerank.hub.onnx_files import external_files
from tests.unit.test_package import python

STUDENT = "grown-e5-small-l6-v1"
WORDS = 30_522  # of the vocabulary
CROSS = "grown-e5-small-cross-v1"
UNRELATED = (
    "The market is held on Fridays. Buses run every ten minutes and stop in front of the library, "
    "where a clerk sells stamps, maps and old chairs."
)
QUESTIONS = {
    "How hot must iron be to melt?": "Iron melts at 1538 degrees Celsius and boils at 2862.",
    "who invented the telephone": "Alexander Graham Bell was granted the patent for it in 1876.",
    "remove a directory tree": "rmtree deletes an entire folder with everything in it.",
    "symptoms of dehydration": "Thirst, dark urine, dizziness and a dry mouth are early signs.",
}


@pytest.mark.parametrize("name", [DEFAULT_RERANKER, CROSS, STUDENT])
def test_each_finds_the_answer_among_others(name):
    """By its registered name, with no download."""
    encoder = TextCrossEncoder(name)
    answers = list(QUESTIONS.values())
    for row, query in enumerate(QUESTIONS):
        assert int(np.argmax(encoder.rerank(query, answers))) == row


@pytest.mark.parametrize("name", [DEFAULT_RERANKER, CROSS, STUDENT])
def test_a_score_depends_on_its_pair_alone(name):
    """To the last bit: int8 batches hold one pair."""
    encoder = TextCrossEncoder(name)
    pairs = [(query, answer) for query in QUESTIONS for answer in QUESTIONS.values()]
    together = encoder.score_pairs(pairs).scores
    alone = [encoder.score_pairs([pair]).scores[0] for pair in reversed(pairs)]
    assert together.tolist() == alone[::-1]


@pytest.fixture(scope="module", params=[DEFAULT_RERANKER, CROSS, STUDENT])
def floats(request, tmp_path_factory):
    """A model in fp32, whose batches hold pairs of several lengths."""
    cache = tmp_path_factory.mktemp("fp32")
    return TextCrossEncoder(request.param, precision="fp32", cache_dir=cache, engine="onnxruntime")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=2, max_size=5), st.integers(1, 30))
def test_padding_does_not_change_a_score(floats, lengths, asked):
    """However much longer the other pairs of a batch are."""
    words = (" ".join([*QUESTIONS, *QUESTIONS.values(), UNRELATED])).split()
    query = " ".join(words[:asked])
    documents = [" ".join((words * 2)[length : 2 * length]) for length in lengths]
    alone = [floats.rerank(query, [document])[0] for document in documents]
    assert floats.rerank(query, documents) == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        (DEFAULT_RERANKER, {"weights.bin"}),
        (CROSS, {"weights.bin", "cross.bin"}),
        (STUDENT, {"weights.bin", "l6.bin"}),
    ],
)
def test_the_weights_lie_beside_the_graph(name, files):
    """In files that the system maps once, however many processes read them."""
    graph = locate(name).model
    assert {path.name for path in external_files(graph)} == files
    assert graph.stat().st_size < 1e6


def word_vectors(name):
    """The place of the matrix with a row per word: its file, offset and length."""
    graph = onnx.load(locate(name).model, load_external_data=False).graph
    [matrix] = [tensor for tensor in graph.initializer if [*tensor.dims] == [WORDS, 384]]
    return {entry.key: entry.value for entry in matrix.external_data}


def test_word_vectors_are_stored_once():
    """Those of the smaller model are the default's, so they take a third of its size."""
    place = word_vectors(STUDENT)
    assert place == word_vectors(DEFAULT_RERANKER)
    assert (place["location"], int(place["length"])) == ("weights.bin", WORDS * 384)
    graph = locate(STUDENT).model
    assert graph.with_name("l6.bin").stat().st_size < WORDS * 384


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (5_000_000, r"l6\.onnx .* weights be, in .*l6\.bin \(5,000,000 bytes\).*; fetch it again"),
        (None, r"l6\.onnx reads its weights from 'l6\.bin', which is not there\. Put the file"),
    ],
)
def test_weights_that_are_cut_off_or_missing_are_named(tmp_path, size, message):
    """With what to do; the model beside it, which does not read them, still loads."""
    folder = shutil.copytree(locate(STUDENT).model.parent.parent, tmp_path / "model")
    weights = folder / "onnx" / "l6.bin"
    part = weights.read_bytes()[:size]
    weights.unlink()
    if size is not None:
        weights.write_bytes(part)
    with pytest.raises(ModelFileError, match=message):
        TextCrossEncoder(folder / "onnx" / "l6.onnx")
    assert len(TextCrossEncoder(folder).rerank("a", ["b"])) == 1


@pytest.mark.parametrize("query", QUESTIONS)
@pytest.mark.parametrize("padding", ["", " Sign in to see the answer.", f" {UNRELATED}"])
def test_an_echo_of_the_question_is_no_answer(query, padding):
    """Bare, with an invitation and with unrelated words, it ranks below what answers."""
    encoder = TextCrossEncoder(DEFAULT_RERANKER)
    answer, echo = encoder.rerank(query, [QUESTIONS[query], query + padding])
    assert answer > echo


def test_a_cascade_of_both_keeps_the_answer_first():
    """The student prunes, the whole model finishes."""
    cascade = Cascade([(STUDENT, 2), (DEFAULT_RERANKER, None)])
    answers = list(QUESTIONS.values())
    for row, query in enumerate(QUESTIONS):
        assert int(np.argmax(cascade.rerank(query, answers))) == row


def test_nothing_that_trains_is_needed():
    """Neither torch nor the packages of the evaluation."""
    code = (
        "import sys\n"
        "for name in ('torch', 'matplotlib', 'ir_measures', 'scipy', 'onnx'):\n"
        "    sys.modules[name] = None\n"
        "from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder\n"
        "print(len(TextCrossEncoder(DEFAULT_RERANKER).rerank('a', ['b', 'c'])))"
    )
    assert python(code) == "2\n"
