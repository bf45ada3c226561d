"""States of documents: scores as of the whole model, files that are whole, refusals."""

import gc
import inspect
import io
import json
import os.path
import pickle
import re
import shutil
import statistics
import struct
import tracemalloc
import weakref
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdrant_rerank import (
    DEFAULT_RERANKER,
    DocumentStates,
    PairScores,
    TextCrossEncoder,
    Windows,
)
from qdrant_rerank.cross_encoder.document_states import Passage, pack, unpack
from qdrant_rerank.cross_encoder.state_quantizer import StateQuantizer, quantizer_file
from qdrant_rerank.cross_encoder.state_scorer import StoredText
from qdrant_rerank.errors import (
    DamagedFileError,
    DeadlineError,
    InvalidInputError,
    ModelFileError,
)
from qdrant_rerank.hub.specs import BUNDLED_DIRECTORY
from qdrant_rerank.qdrant.stored_states import encoded
from tests.models.build import WORDS

PRECISIONS = ["int8", "float16", "pq"]
BUNDLED = [DEFAULT_RERANKER, "grown-e5-small-cross-v1", "grown-e5-small-l6-v1"]
QUERY = "melting point of iron"
DOCUMENTS = [
    "Iron melts at 1538 degrees Celsius.",
    "Bread is baked in an oven at 230 degrees.",
    "The melting point of a metal is the temperature at which it becomes liquid; iron's is high.",
    "What is the melting point of iron?",
    "Copper melts at 1085 degrees, tin at 232, and both conduct electricity well.",
    "",
]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    """Where the parts of the models are kept."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def exact(cache_dir):
    """The bundled model in floats: nothing is rounded but the states."""
    return TextCrossEncoder(DEFAULT_RERANKER, cache_dir=cache_dir, precision="fp32")


@pytest.fixture(scope="module")
def encoder(cache_dir):
    """The bundled model as it is."""
    return TextCrossEncoder(DEFAULT_RERANKER, cache_dir=cache_dir)


def kendalltau(one, other):
    """Kendall's tau of two lists of scores."""
    signs = [np.sign(np.subtract.outer(scores, scores)) for scores in (one, other)]
    return (signs[0] * signs[1]).sum() / (len(one) * (len(one) - 1))


def made_up(count, seed=0, words=(5, 80)):
    """Texts of the test models' words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(*words))) for _ in range(count)]


@pytest.mark.parametrize(("model", "within"), [*zip(BUNDLED, (1e-3, 2e-3, 1e-3), strict=True)])
def test_float16_states_score_as_the_whole_model(model, within, cache_dir):
    """Nothing differs by more than that from a model that reads both texts now."""
    whole = TextCrossEncoder(model, cache_dir=cache_dir, precision="fp32")
    documents = DOCUMENTS + made_up(20)
    states = whole.encode_documents(documents, precision="float16")
    assert np.allclose(whole.rerank(QUERY, states), whole.rerank(QUERY, documents), atol=within)


@pytest.mark.parametrize(("precision", "least"), [("int8", 0.99), ("pq", 0.97)])
def test_states_keep_the_order(encoder, precision, least):
    """On real texts, Kendall's tau with states that are nearly exact."""
    modules = (statistics, shutil, json, os.path)
    functions = [one for module in modules for one in vars(module).values() if callable(one)]
    documents = list(dict.fromkeys(filter(None, map(inspect.getdoc, functions))))
    scores = [
        encoder.rerank("copy a file", encoder.encode_documents(documents, precision=one))
        for one in (precision, "float16")
    ]
    assert len(documents) > 60
    assert kendalltau(*scores) >= least


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_score_depends_on_its_pair_alone(encoder, precision):
    """Other documents, their order and encoding alone change no bit of a score."""

    def encode(texts):
        return encoder.encode_documents(texts, precision=precision)

    states = encode(DOCUMENTS)
    scores = encoder.rerank(QUERY, states)
    turned = encode(DOCUMENTS[::-1])
    assert encoder.rerank(QUERY, turned)[::-1] == scores
    for row, text in enumerate(DOCUMENTS):
        assert encoder.rerank(QUERY, encode([text])) == [scores[row]]
    assert encoder.rerank(QUERY, states[1:3]) == scores[1:3]


PHRASES = st.lists(st.sampled_from(WORDS[:40]), max_size=30).map(" ".join)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(PRECISIONS), st.lists(PHRASES, min_size=1, max_size=6), st.data())
def test_a_record_and_its_score_depend_on_their_text_alone(encoder, precision, texts, data):
    """To the bit, whatever is encoded and scored with them, stored or as texts."""
    row = data.draw(st.sampled_from(range(len(texts))))
    states = encoder.encode_documents(texts, precision=precision)
    alone = encoder.encode_documents([texts[row]], precision=precision)
    assert bytes(states[row]) == bytes(alone[0])
    scores = encoder.rerank(QUERY, states)
    assert encoder.rerank(QUERY, alone) == [scores[row]]
    model = encoder.states_models[precision]
    read = [StoredText.of(text, model, precision, None) for text in texts]
    assert encoder.rerank(QUERY, read) == scores


@pytest.mark.parametrize(("precision", "most"), [("int8", 400), ("pq", 100)])
def test_states_are_small(encoder, precision, most):
    """Bytes of a token as it is stored, with what comes with each document."""
    texts = [inspect.getdoc(one) for one in (shutil.copyfile, json.dumps, statistics.median)]
    tokens = encoder.token_count([("", text) for text in texts])
    states = encoder.encode_documents(texts, precision=precision)
    assert sum(len(encoded(bytes(record))) for record in states) / tokens <= most


@pytest.mark.parametrize("scores_first", [True, False])
def test_the_weights_are_in_memory_once(cache_dir, scores_first):
    """The parts take the place of a whole model that has scored nothing; asking loads none."""
    encoder = TextCrossEncoder(DEFAULT_RERANKER, cache_dir=cache_dir, activation="sigmoid")

    def told():
        return encoder.workers, encoder.activation, encoder.has_cores_for(encoder.workers)

    asked = told()
    assert encoder.provider
    whole = weakref.ref(encoder._model.loaded_scorer)
    before = encoder.rerank(QUERY, DOCUMENTS) if scores_first else None
    states = encoder.encode_documents(DOCUMENTS)
    assert told() == asked
    assert encoder.provider == "CPUExecutionProvider"
    gc.collect()
    assert (whole() is None) == (not scores_first)
    assert ("in two parts" in repr(encoder)) == (not scores_first)
    by_states = encoder.rerank(QUERY, states)
    after = encoder.rerank(QUERY, DOCUMENTS)
    assert before in (None, after)
    assert after != by_states


def test_no_documents(encoder):
    """No documents make no states and no scores."""
    states = encoder.encode_documents([])
    assert (len(states), states.precision, encoder.rerank(QUERY, states)) == (0, None, [])


@pytest.mark.parametrize("precision", ["int8", "pq"])
def test_a_long_document_is_read_in_passages(cache_dir, precision):
    """The best passage of a long document is found, whatever the query's length."""
    encoder = TextCrossEncoder(
        DEFAULT_RERANKER, cache_dir=cache_dir, long_documents=Windows(overlap=8), max_length=96
    )
    text = " ".join(made_up(8, words=(30, 40))) + " Iron melts at 1538 degrees Celsius."
    states = encoder.encode_documents([text, DOCUMENTS[1]], precision=precision)
    found = encoder.states().stored(states[0])
    assert found is not None
    assert len(found.passages) > 3
    assert found.passages[-1].span[1] == len(text)
    assert found.passages[0].span[0] == 0
    scores = encoder.rerank(QUERY, states)
    parts = [text[slice(*each.span)] for each in found.passages]
    alone = encoder.encode_documents(parts, precision=precision)
    assert scores[0] == max(encoder.rerank(QUERY, alone))


def test_a_cut_document_is_read_alike_for_all_queries(cache_dir):
    """A document is cut at seven eighths of the max length, and marked as cut."""
    encoder = TextCrossEncoder(DEFAULT_RERANKER, cache_dir=cache_dir, max_length=64)
    states = encoder.encode_documents([" ".join(WORDS), "short"])
    cut, whole = (unpack(record) for record in states)
    assert (cut.truncated, whole.truncated) == (True, False)
    assert len(cut.passages[0].ids) <= 56
    long_query = " ".join(WORDS[:60])
    assert np.isfinite(encoder.rerank(long_query, states)).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_file_is_what_was_saved(encoder, tmp_path, precision):
    """States that were saved and loaded give the same scores."""
    states = encoder.encode_documents(DOCUMENTS, precision=precision)
    states.save(tmp_path / "states.bin")
    loaded = DocumentStates.load(tmp_path / "states.bin")
    assert [bytes(one) for one in loaded] == [bytes(one) for one in states]
    assert (loaded.precision, loaded.model) == (precision, encoder.states_models[precision])
    assert encoder.rerank(QUERY, loaded) == encoder.rerank(QUERY, states)


def test_a_file_of_no_documents(encoder, tmp_path):
    """An empty file is one, too."""
    encoder.encode_documents([]).save(tmp_path / "none")
    assert len(DocumentStates.load(tmp_path / "none")) == 0


def test_every_damage_of_a_file_is_found(encoder, tmp_path):
    """A changed byte, a missing end and another file are told apart from states."""
    path = tmp_path / "states.bin"
    encoder.encode_documents(DOCUMENTS[:2]).save(path)
    written = path.read_bytes()
    for at in (25, 40, len(written) // 2, len(written) - 1):
        path.write_bytes(written[:at] + bytes([written[at] ^ 1]) + written[at + 1 :])
        with pytest.raises(DamagedFileError, match="checksum"):
            DocumentStates.load(path)
    for end in (24, len(written) - 5):
        path.write_bytes(written[:end])
        with pytest.raises(DamagedFileError, match="damaged"):
            DocumentStates.load(path)
    for other in (b"", b"{}" * 100):
        path.write_bytes(other)
        with pytest.raises(ModelFileError):
            DocumentStates.load(path)
    with pytest.raises(ModelFileError, match="cannot be read"):
        DocumentStates.load(tmp_path / "nowhere")


def test_a_file_with_a_forged_count_is_refused(encoder, tmp_path):
    """Also with a checksum that fits."""
    path = tmp_path / "states.bin"
    encoder.encode_documents(DOCUMENTS[:2]).save(path)
    written = bytearray(path.read_bytes()[:-4])
    for count in (2**62, 2**40, 3, 1):
        written[23:31] = struct.pack("<Q", count)
        path.write_bytes(written + struct.pack("<I", zlib.crc32(written)))
        with pytest.raises(DamagedFileError, match="damaged"):
            DocumentStates.load(path)


def test_a_path_that_is_none_is_refused():
    """The error says what was expected."""
    with pytest.raises(InvalidInputError, match="path is None; expected a str or a Path"):
        DocumentStates.load(None)


def test_states_go_to_another_process(encoder, tmp_path):
    """Also those of a file, which the other process may not have."""
    states = encoder.encode_documents(DOCUMENTS)
    states.save(tmp_path / "states.bin")
    copy = pickle.loads(pickle.dumps(DocumentStates.load(tmp_path / "states.bin")[1:]))
    assert encoder.rerank(QUERY, copy) == encoder.rerank(QUERY, states[1:])


@pytest.mark.parametrize("precision", ["int8", "pq"])
def test_states_that_are_too_long_or_too_short_are_damaged(encoder, precision):
    """Another writer may have written them, with a checksum that fits."""
    record = encoder.encode_documents(DOCUMENTS[:1], precision=precision)[0]
    assert encoder.states().stored(record) is not None
    head, body = bytes(record[:68]), bytes(record[68:-4])
    for other in (b"", body[:-20], body[:20] + zlib.compress(bytes(10**6), wbits=-15)):
        made = head + other
        assert encoder.states().stored(made + struct.pack("<I", zlib.crc32(made))) is None


def test_a_small_record_does_not_fill_the_memory():
    """Another writer may have deflated zeros, which take a thousandth of their bytes."""
    tokens, width = 200, 50_000
    made = struct.pack("<4B2H32sf3I", 2, 0, 0, 0, width, 1, b"", 1.0, tokens, 0, 1)
    made += bytes(2 * tokens) + zlib.compress(bytes(tokens * width), wbits=-15)
    tracemalloc.start()
    read = unpack(made + struct.pack("<I", zlib.crc32(made)))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read is None
    assert most < 10**6


@pytest.mark.parametrize("precision", ["int8", "pq"])
@pytest.mark.parametrize("scale", [np.nan, np.inf])
def test_a_scale_that_is_no_number_is_damage(encoder, scale, precision):
    """A search reads such a text anew, and does not fail."""
    record = bytearray(encoder.encode_documents(DOCUMENTS[:1], precision=precision)[0][:-4])
    struct.pack_into("<f", record, 40, scale)
    assert encoder.states().stored(record + struct.pack("<I", zlib.crc32(record))) is None


def test_a_forged_quantized_record_is_read_anew(encoder):
    """Of an id that the model lacks, of a passage without tokens, or without its quantizer."""
    model = encoder.states_models["pq"]
    [record] = encoder.encode_documents(DOCUMENTS[:1], precision="pq")
    assert unpack(record) is None
    expected = encoder.rerank(QUERY, DocumentStates([record]))
    text = bytes(record[24:40])
    tokens = struct.unpack_from("<I", record, 44)[0]
    changes = {
        "long ids": lambda made: struct.pack_into("<H", made, 56, 65_535),
        "no tokens": lambda made: struct.pack_into("<3I", made, 44, 0, 0, 1),
        "more tokens": lambda made: struct.pack_into("<3I", made, 44, tokens + 1, 0, 1),
        "width": lambda made: struct.pack_into("<H", made, 4, 8),
        "kind": lambda made: struct.pack_into("<B", made, 1, 0),
    }
    for change in changes.values():
        made = bytearray(record[:-4])
        change(made)
        assert made[24:40] == text
        forged = bytes(made) + struct.pack("<I", zlib.crc32(made))
        stored = StoredText.of(DOCUMENTS[0], model, "pq", forged)
        assert encoder.rerank(QUERY, [stored]) == expected


@pytest.mark.parametrize("model", BUNDLED[1:])
def test_a_model_without_a_quantizer_is_refused(cache_dir, model):
    """Before it is loaded; the error names one that has a quantizer, and what else to do."""
    other = TextCrossEncoder(model, cache_dir=cache_dir, lazy_load=True)
    with pytest.raises(InvalidInputError, match=f"'int8', or {DEFAULT_RERANKER}") as error:
        other.encode_documents(["a"], precision="pq")
    assert model in str(error.value)
    assert other._model.loaded_scorer is other._model.loaded_states is None


def test_a_damaged_quantizer_is_refused(cache_dir, tmp_path):
    """It is cut off, its arrays do not fit each other, or one is missing; int8 needs none."""
    folder = shutil.copytree(BUNDLED_DIRECTORY / DEFAULT_RERANKER, tmp_path / "model")
    file = quantizer_file(folder / "onnx" / "model.onnx")
    whole = file.read_bytes()
    with np.load(file) as kept:
        arrays = dict(kept)
    fewer = {name: array for name, array in arrays.items() if name != "decode"}
    for change in (fewer, {**arrays, "groups": arrays["groups"][:-1]}, None):
        np.savez_compressed(file, **(change or arrays))
        if change is None:
            file.write_bytes(whole[:1000])
        with pytest.raises(ModelFileError, match=re.escape(str(file))):
            TextCrossEncoder(folder, cache_dir=cache_dir).encode_documents(["a"], precision="pq")
    file.unlink()
    encoder = TextCrossEncoder(folder, cache_dir=cache_dir)
    assert len(encoder.encode_documents(["a"])) == 1
    with pytest.raises(InvalidInputError, match="has none"):
        encoder.encode_documents(["a"], precision="pq")


@pytest.mark.parametrize("damage", ["empty", "array", "deflated", "method"])
def test_a_quantizer_with_wrong_bytes_is_refused(tmp_path, damage):
    """Whatever numpy and its unpacker raise, the error names the file, and what to do."""
    shutil.copytree(BUNDLED_DIRECTORY / DEFAULT_RERANKER / "onnx", tmp_path / "onnx")
    model = tmp_path / "onnx" / "model.onnx"
    file = quantizer_file(model)
    made = bytearray(file.read_bytes())
    match damage:
        case "empty":
            made = bytearray()
        case "array":
            array = io.BytesIO()
            np.save(array, np.zeros(3))
            made = bytearray(array.getvalue())
        case "deflated":  # in the middle of the largest array
            made[len(made) // 2 : len(made) // 2 + 2000] = b"\xff" * 2000
        case "method":  # of compression, of the first array
            made[made.index(b"PK\x01\x02") + 10] = 99
    file.write_bytes(made)
    with pytest.raises(ModelFileError, match=re.escape(str(file))):
        StateQuantizer.read(model)


def test_a_forged_record_is_read_anew(encoder):
    """Of another width than the model's, or of no tokens, though all digests are right."""
    [record] = encoder.encode_documents(DOCUMENTS[:1])
    model, text = bytes(record[8:24]), bytes(record[24:40])
    whole = encoder.score_pairs([(QUERY, DOCUMENTS[0])]).logits
    read = None
    for width, tokens in ((8, 3), (0, 3), (8, 0)):
        passage = Passage(np.zeros(tokens, np.int64), np.zeros((tokens, width), np.float32), (0, 1))
        forged = pack([passage], precision="int8", model=model, text=text, truncated=False)
        assert (unpack(forged) is not None) == (width > 0 and tokens > 0)
        stored = StoredText.of(DOCUMENTS[0], model, "int8", forged)
        found = encoder.score_pairs([(QUERY, stored)]).logits
        assert read is None or found == read
        read = found
    assert abs(read[0] - whole[0]) < 0.5


def test_a_damaged_record_is_refused(encoder):
    """No score is made of a record that is not as it was written."""
    record = bytearray(encoder.encode_documents(DOCUMENTS[:1])[0])
    record[200] ^= 1
    with pytest.raises(InvalidInputError, match="states of document 0 are damaged"):
        encoder.rerank(QUERY, DocumentStates([bytes(record)]))
    assert unpack(bytes(record)[:10]) is None
    nothing = struct.pack("<4B2H32s", 2, 0, 0, 0, 384, 0, b"of no passages")
    assert unpack(nothing + struct.pack("<I", zlib.crc32(nothing))) is None
    record[:4] = struct.pack("<4B", 9, 0, 0, 0)
    with pytest.raises(DamagedFileError, match="format 2"):
        DocumentStates([bytes(record)])


def test_states_of_another_model_are_refused(encoder, exact, cache_dir):
    """Another model's, another precision's and another max length's states are foreign."""
    states = encoder.encode_documents(DOCUMENTS[:1])
    others = [
        exact,
        TextCrossEncoder("grown-e5-small-l6-v1", cache_dir=cache_dir),
        TextCrossEncoder(DEFAULT_RERANKER, cache_dir=cache_dir, max_length=128),
        TextCrossEncoder(DEFAULT_RERANKER, cache_dir=cache_dir, long_documents="windows"),
    ]
    for other in others:
        with pytest.raises(InvalidInputError, match="of another model"):
            other.rerank(QUERY, states)
    mixed = [*states, *exact.encode_documents(DOCUMENTS[:1])]
    with pytest.raises(InvalidInputError, match="2 models or precisions"):
        DocumentStates(mixed)
    assert TextCrossEncoder(DEFAULT_RERANKER).states_models == encoder.states_models


def test_a_model_without_a_trunk_is_refused(tiny_bert, cache_dir):
    """The error names the models that have one."""
    encoder = TextCrossEncoder(tiny_bert, cache_dir=cache_dir)
    whole = encoder._model.loaded_scorer
    with pytest.raises(InvalidInputError, match=", ".join(BUNDLED)):
        encoder.encode_documents(["a"])
    assert encoder._model.loaded_scorer is whole  # no parts have taken its place


@pytest.mark.parametrize("precision", ["fp32", "float32", None, 8])
def test_a_wrong_precision_is_refused(encoder, precision):
    """The error names the precisions."""
    with pytest.raises(InvalidInputError, match="'int8', 'float16', 'pq'"):
        encoder.encode_documents(["a"], precision=precision)


@pytest.mark.parametrize("documents", ["one text", [1], [None]])
def test_wrong_documents_are_refused(encoder, documents):
    """One text is not several, and a number is no text."""
    with pytest.raises(InvalidInputError):
        encoder.encode_documents(documents)


def test_a_deadline_ends_with_the_first_documents(encoder):
    """Scores before the deadline are those of the first documents."""
    states = encoder.encode_documents(made_up(400, words=(40, 60)))
    with pytest.raises(DeadlineError) as error:
        encoder.rerank(QUERY, states, deadline_s=0.02)
    done = error.value.scores
    assert len(done) < 400
    assert done == encoder.rerank(QUERY, states[: len(done)] if done else states[:0])


def test_an_activation_and_a_pickled_copy(cache_dir, encoder):
    """Activations work on states; a copy in another process makes the same states."""
    states = encoder.encode_documents(DOCUMENTS)
    sigmoid = TextCrossEncoder(DEFAULT_RERANKER, cache_dir=cache_dir, activation="sigmoid")
    logits = np.array(encoder.rerank(QUERY, states))
    assert np.allclose(sigmoid.rerank(QUERY, states), 1 / (1 + np.exp(-logits)))
    copy = pickle.loads(pickle.dumps(encoder))
    assert bytes(copy.encode_documents(DOCUMENTS[:1])[0]) == bytes(states[0])


def test_pairs_tell_no_stored_states_without_any(encoder):
    """``stored`` is for pairs that came with states."""
    found = encoder.score_pairs([(QUERY, DOCUMENTS[0])])
    assert isinstance(found, PairScores)
    assert found.stored is None
