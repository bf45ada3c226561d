"""TextCrossEncoder on real ONNX models: parity with fastembed, equivalences, damage."""

import inspect
import itertools
import os
import pickle
import random
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from fastembed.rerank.cross_encoder import TextCrossEncoder as Fastembed
from hypothesis import given, settings
from hypothesis import strategies as st

from qdrant_rerank import TextCrossEncoder
from qdrant_rerank.errors import InvalidInputError, ModelFileError, ModelOutputError
from tests.models import variants
from tests.models.build import WORDS

QUERY = "which bread rises?"
DOCUMENTS = ["bread rises in the oven", "the sea", "", "rye " * 300, "né 東京 🙂 \x00 שלום"]
TEXTS = st.lists(
    st.one_of(
        st.lists(st.sampled_from(WORDS), max_size=80).map(" ".join),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture(params=["tiny_bert", "tiny_xlmr"], scope="module")
def directory(request):
    """With and without token_type_ids; [SEP] and </s></s> between the texts."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def encoder(directory):
    """Ours."""
    return TextCrossEncoder(directory)


@pytest.fixture(scope="module")
def fastembed(directory):
    """Theirs, on the same file."""
    return Fastembed("Xenova/ms-marco-MiniLM-L-6-v2", specific_model_path=str(directory))


@settings(max_examples=30, deadline=None)
@given(query=st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join), texts=TEXTS)
def test_scores_equal_fastembeds(encoder, fastembed, query, texts):
    """On the same fp32 file, to 1e-4."""
    theirs = list(fastembed.rerank(query, texts))
    assert encoder.rerank(query, texts) == pytest.approx(theirs, abs=1e-4)
    pairs = [(query, text) for text in texts]
    theirs = list(fastembed.rerank_pairs(pairs, batch_size=3))
    assert list(encoder.rerank_pairs(pairs, batch_size=3)) == pytest.approx(theirs, abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(texts=TEXTS, data=st.data())
def test_batches_order_and_companions_never_change_a_score(encoder, texts, data):
    """fp32: to the last bits of a float."""
    alone = [encoder.rerank(QUERY, [text])[0] for text in texts]
    order = data.draw(st.permutations(range(len(texts))))
    size = data.draw(st.none() | st.integers(1, 5))
    together = encoder.rerank(QUERY, [texts[i] for i in order], batch_size=size)
    assert together == pytest.approx([alone[i] for i in order], abs=1e-5)


@settings(max_examples=10, deadline=None)
@given(texts=TEXTS, data=st.data())
def test_int8_scores_are_the_same_to_the_bit(bundled, texts, data):
    """Batches hold one pair, so no companion sets its scale."""
    alone = [bundled.rerank(QUERY, [text])[0] for text in texts]
    order = data.draw(st.permutations(range(len(texts))))
    assert bundled.rerank(QUERY, [texts[i] for i in order]) == [alone[i] for i in order]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_never_change_a_score(directory, encoder, threads):
    """However many batches run at once."""
    other = TextCrossEncoder(directory, threads=threads)
    assert other.rerank(QUERY, DOCUMENTS) == pytest.approx(
        encoder.rerank(QUERY, DOCUMENTS), abs=1e-5
    )


def test_rerank_is_eager_and_returns_floats_in_input_order(encoder):
    """Any iterable of documents; none is no error."""
    scores = encoder.rerank(QUERY, (document for document in DOCUMENTS))
    assert isinstance(scores, list)
    assert all(type(score) is float for score in scores)
    assert scores == [pytest.approx(encoder.rerank(QUERY, [d])[0], abs=1e-5) for d in DOCUMENTS]
    assert encoder.rerank(QUERY, []) == []
    assert list(encoder.rerank_pairs([])) == []


def test_rerank_pairs_reads_an_endless_generator_lazily(encoder):
    """It reads no more than a block ahead."""
    drawn = itertools.count()

    def endless():
        while True:
            next(drawn)
            yield QUERY, "bread"

    scores = encoder.rerank_pairs(endless())
    assert next(drawn) == 0  # nothing was read by the call
    assert len(list(itertools.islice(scores, 5))) == 5
    assert next(drawn) <= 1024 + 1


def test_rerank_pairs_keeps_memory_flat(encoder):
    """50,000 pairs cost no more than 10,000."""

    def peak(count):
        tracemalloc.start()
        for _ in encoder.rerank_pairs(((QUERY, f"bread {i}") for i in range(count)), parallel=2):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(10_000) < 1.2 * peak(3_000)


@pytest.mark.parametrize("parallel", [None, 0, 1, 3])
def test_parallel_runs_give_the_same_scores_without_processes(encoder, parallel):
    """Threads only: nothing is forked or spawned."""
    pairs = [(QUERY, document) for document in DOCUMENTS * 3]
    before = _children()
    scores = list(encoder.rerank_pairs(pairs, parallel=parallel))
    assert scores == pytest.approx(encoder.rerank(QUERY, DOCUMENTS * 3), abs=1e-5)
    assert _children() == before


def _children():
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"batch_size": -1}, {"parallel": -1}, {"batch_size": 2.5}]
)
def test_rerank_pairs_checks_its_arguments_at_the_call(encoder, wrong):
    """Not at the first score."""
    with pytest.raises(InvalidInputError, match="expected"):
        encoder.rerank_pairs([(QUERY, "a")], **wrong)


def test_wrong_texts_are_named(encoder):
    """By their place and type."""
    with pytest.raises(InvalidInputError, match="document of pair 1 is a NoneType"):
        encoder.rerank(QUERY, ["a", None])
    with pytest.raises(InvalidInputError, match="query of pair 0 is an int"):
        encoder.rerank(3, ["a"])
    with pytest.raises(InvalidInputError, match=r"Pass \[document\]"):
        encoder.rerank(QUERY, "one str")
    with pytest.raises(InvalidInputError, match=r"expected a \(query, document\)"):
        list(encoder.rerank_pairs([("a", "b", "c")]))
    with pytest.raises(InvalidInputError, match="batch_size is 0"):
        encoder.rerank(QUERY, ["a"], batch_size=0)


def test_lazy_load_loads_once_under_concurrent_first_calls(directory, encoder):
    """Eight threads start together and score with one model."""
    lazy = TextCrossEncoder(directory, lazy_load=True)
    assert "not loaded yet" in repr(lazy)
    gate, sessions, scores = threading.Barrier(8), set(), []

    def call():
        gate.wait()
        scores.append(lazy.rerank(QUERY, DOCUMENTS))
        sessions.add(id(lazy._model.scorer().runtime))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sessions) == 1
    expected = encoder.rerank(QUERY, DOCUMENTS)
    assert scores == [pytest.approx(expected, abs=1e-5)] * 8


def test_a_lazy_model_still_checks_its_name():
    """A typo shows at construction, not at the first query of a user."""
    with pytest.raises(ValueError, match="No model named") as caught:
        TextCrossEncoder("no-such-model", lazy_load=True)
    assert "TextCrossEncoder.list_supported_models() lists the names" in str(caught.value)
    assert len(str(caught.value)) < 300  # and not all names


def test_a_copy_in_another_process_loads_its_own(encoder):
    """Sessions do not pickle; names and options do."""
    copy = pickle.loads(pickle.dumps(encoder))
    assert copy.rerank(QUERY, DOCUMENTS) == pytest.approx(
        encoder.rerank(QUERY, DOCUMENTS), abs=1e-5
    )


def test_pairs_that_were_cut_are_told(encoder):
    """By the query or by the document; blanks that are cut off are not missed."""
    fits = "rye " * 20
    pairs = [
        (QUERY, fits),
        (QUERY, "rye " * 300),
        ("rye " * 300, "a"),
        (QUERY, fits + " " * 90_000),
    ]
    assert encoder.score_pairs(pairs).truncated.tolist() == [False, True, True, False]


def test_token_count_is_what_the_model_reads_and_loads_no_model(directory, tmp_path):
    """After truncation, without padding; a damaged ONNX file does not matter."""
    broken = variants.truncated(directory, tmp_path / "m")
    encoder = TextCrossEncoder(broken, lazy_load=True)
    pairs = [(QUERY, document) for document in DOCUMENTS]
    whole = TextCrossEncoder(directory).score_pairs(pairs)
    assert encoder.token_count(iter(pairs), batch_size=2) == whole.tokens <= whole.padded_tokens


def test_activations(directory, encoder):
    """Logits, 0 to 1, or the caller's own."""
    logits = np.array(encoder.rerank(QUERY, DOCUMENTS))
    sigmoid = TextCrossEncoder(directory, activation="sigmoid").rerank(QUERY, DOCUMENTS)
    assert sigmoid == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-5)
    doubled = TextCrossEncoder(directory, activation=lambda x: 2 * x).rerank(QUERY, DOCUMENTS)
    assert doubled == pytest.approx(2 * logits, abs=1e-4)
    with pytest.raises(InvalidInputError, match="activation is 'relu'"):
        TextCrossEncoder(directory, activation="relu")
    with pytest.raises(InvalidInputError, match="softmax is always 1"):
        TextCrossEncoder(directory, activation="softmax")


def test_the_models_own_activation_on_request(directory, encoder, tmp_path):
    """Raw logits unless asked; then the activation of its configuration."""
    logits = encoder.rerank(QUERY, DOCUMENTS)
    assert encoder.activation == "identity"
    own = TextCrossEncoder(directory, activation="auto", lazy_load=True)
    assert own.activation == "sigmoid"
    assert own.rerank(QUERY, DOCUMENTS) == pytest.approx(1 / (1 + np.exp(-np.array(logits))))
    raw = variants.configured(
        directory,
        tmp_path / "raw",
        sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"},
    )
    assert TextCrossEncoder(raw, activation="auto").rerank(QUERY, DOCUMENTS) == logits


def test_heads_of_several_labels(directory, encoder, tmp_path):
    """The configuration's names; softmax over all; a choice if the names do not tell."""
    logits = np.array(encoder.rerank(QUERY, DOCUMENTS))
    two = variants.two_labels(directory, tmp_path / "two")
    named = variants.configured(two, tmp_path / "named", id2label={"0": "yes", "1": "no"})
    assert TextCrossEncoder(named).rerank(QUERY, DOCUMENTS) == pytest.approx(-logits, abs=1e-5)
    assert TextCrossEncoder(named, label="no").rerank(QUERY, DOCUMENTS) == pytest.approx(
        logits, abs=1e-5
    )
    other = variants.configured(
        two, tmp_path / "other", id2label={"0": "duplicate", "1": "not_duplicate"}
    )
    with pytest.raises(ModelOutputError, match="0: 'duplicate', 1: 'not_duplicate'. Pass the one"):
        TextCrossEncoder(other)
    duplicate = TextCrossEncoder(other, label="duplicate").rerank(QUERY, DOCUMENTS)
    assert duplicate == pytest.approx(-logits, abs=1e-5)
    shares = TextCrossEncoder(two, activation="softmax").rerank(QUERY, DOCUMENTS)
    assert shares == pytest.approx(1 / (1 + np.exp(-2 * logits)), abs=1e-5)
    three = variants.three_labels(directory, tmp_path / "three")
    assert TextCrossEncoder(three, label=2).rerank(QUERY, DOCUMENTS) == pytest.approx(
        logits, abs=1e-5
    )
    with pytest.raises(InvalidInputError, match="label is 'relevant'"):
        TextCrossEncoder(three, label="relevant")


def test_max_length_cuts(directory, encoder):
    """A shorter max length reads less of a long document."""
    short = TextCrossEncoder(directory, max_length=16)
    assert short.max_length == 16
    assert short.token_count([(QUERY, "rye " * 300)]) == 16
    assert short.rerank(QUERY, ["rye"]) == pytest.approx(encoder.rerank(QUERY, ["rye"]), abs=1e-5)


def test_any_layout_of_a_local_model_loads(directory, encoder, tmp_path):
    """A directory, flat or with onnx/, the file itself, its only file, or specific_model_path."""
    flat = variants.flat(directory, tmp_path / "flat")
    optimized = variants.flat(directory, tmp_path / "optimized")
    (optimized / "model.onnx").rename(optimized / "model_optimized.onnx")
    expected = encoder.rerank(QUERY, DOCUMENTS[:2])
    file = directory / "onnx" / "model.onnx"
    for name in (str(directory), file, flat, flat / "model.onnx", optimized):
        assert TextCrossEncoder(name).rerank(QUERY, DOCUMENTS[:2]) == pytest.approx(
            expected, abs=1e-5
        )
    named = TextCrossEncoder("bge-reranker-base", specific_model_path=directory)
    assert named.rerank(QUERY, DOCUMENTS[:2]) == pytest.approx(expected, abs=1e-5)


def test_a_two_label_head_scores_column_one_and_a_vector_output_works(directory, encoder, tmp_path):
    """(no, yes) is not inverted; (n,) is as good as (n, 1)."""
    expected = pytest.approx(encoder.rerank(QUERY, DOCUMENTS), abs=1e-5)
    for variant in (variants.two_labels, variants.one_dimension):
        made = variant(directory, tmp_path / variant.__name__)
        assert TextCrossEncoder(made).rerank(QUERY, DOCUMENTS) == expected


@pytest.mark.parametrize(
    ("variant", "error", "seen"),
    [
        (variants.truncated, ModelFileError, r"\([\d,]+ bytes\) is not a model"),
        (variants.three_labels, ModelOutputError, r"returned shape \(1, 3\)"),
        (variants.embedding, ModelOutputError, "Is it an embedding"),
    ],
)
def test_what_is_no_cross_encoder_is_refused_on_loading(directory, tmp_path, variant, error, seen):
    """The file is named, and what it did."""
    made = variant(directory, tmp_path / "m")
    with pytest.raises(error, match=seen):
        TextCrossEncoder(made)


def test_nan_logits_are_an_error_that_says_where(directory, tmp_path):
    """They would sort anywhere."""
    made = TextCrossEncoder(variants.nan_logits(directory, tmp_path / "m"))
    with pytest.raises(
        ModelOutputError, match="returned nan for 5 of 5 pairs, the first at index 0"
    ):
        made.rerank(QUERY, DOCUMENTS)


def test_missing_files_are_named(directory, tmp_path):
    """Which, where, and what was there instead."""
    made = variants.copy_of(directory, tmp_path / "m")
    (made / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match=r"No tokenizer\.json in"):
        TextCrossEncoder(made)
    (made / "onnx" / "model.onnx").rename(made / "onnx" / "other.onnx")
    (made / "third.onnx").touch()
    with pytest.raises(ModelFileError, match=r"ONNX files there: onnx/other\.onnx, third\.onnx"):
        TextCrossEncoder(made)


def test_a_tokenizer_of_another_model_is_named(tiny_bert, bundled, tmp_path):
    """Its ids lie beyond the embeddings."""
    made = variants.copy_of(tiny_bert, tmp_path / "m")
    theirs = bundled._model.files.tokenizer / "tokenizer.json"
    (made / "tokenizer.json").write_bytes(theirs.read_bytes())
    with pytest.raises(ModelOutputError, match="another model's"):
        TextCrossEncoder(made).rerank("zygote quantum", ["xylophone"])


def test_ten_megabytes_are_scored_in_bounded_time_and_memory(encoder):
    """Characters are clipped before tokenising."""
    document = "the bread rises " * 650_000
    tracemalloc.start()
    began = time.perf_counter()
    score = encoder.rerank(QUERY, [document])
    assert time.perf_counter() - began < 3
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()
    assert score == pytest.approx(encoder.rerank(QUERY, [document[:50_000]]), abs=1e-5)


def test_odd_texts_get_finite_scores(encoder):
    """Lone surrogates, NUL, emoji, right-to-left, nothing."""
    odd = ["\ud800 a", "\x00", "🙂" * 200, "שלום عالم", "", " ", "a\u0301" * 50]
    assert np.isfinite(encoder.rerank("\udfff?", odd)).all()


def test_scoring_from_many_threads_at_once(encoder):
    """Every caller gets the scores that it would get alone."""
    rng = random.Random(0)
    work = [rng.choices(WORDS, k=rng.randint(1, 90)) for _ in range(24)]
    expected = [encoder.rerank(QUERY, [" ".join(words), "x"]) for words in work]
    seen = [None] * len(work)

    def call(i):
        seen[i] = encoder.rerank(QUERY, [" ".join(work[i]), "x"])

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [pytest.approx(scores, abs=1e-5) for scores in expected]


@pytest.mark.parametrize(
    "method",
    [
        "__init__",
        "rerank",
        "rerank_pairs",
        "token_count",
        "list_supported_models",
        "add_custom_model",
    ],
)
def test_signatures_are_fastembeds(method):
    """The same names in the same order; batch sizes default to the token budget.

    And a ModelSpec has its own sources.
    """
    theirs = [
        p
        for p in inspect.signature(getattr(Fastembed, method)).parameters.values()
        if p.kind is not p.VAR_KEYWORD
    ]
    ours = list(inspect.signature(getattr(TextCrossEncoder, method)).parameters.values())
    assert [p.name for p in ours[: len(theirs)]] == [p.name for p in theirs]
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[len(theirs) :])
    for our, their in zip(ours, theirs, strict=False):
        if our.name not in {"batch_size", "cuda", "sources"}:
            assert our.default == their.default, our.name


def test_unknown_keywords_are_a_type_error(directory):
    """A typo is not swallowed."""
    with pytest.raises(TypeError, match="thread"):
        TextCrossEncoder(directory, thread=2)


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"threads": 0}, "threads is 0"),
        ({"cuda": True}, "CUDA was asked for"),
        ({"device_ids": [0], "cuda": True}, "CUDA was asked for"),
        ({"device_id": 0, "cuda": True}, "CUDA was asked for"),
        ({"device_id": 0, "device_ids": [0]}, "Pass one of them"),
        ({"enable_cpu_mem_arena": 1}, "expected True or False"),
        ({"providers": ["TensorrtExecutionProvider"]}, "this onnxruntime has"),
        ({"providers": []}, "none named"),
        ({"providers": ["CPUExecutionProvider"], "cuda": True}, "excludes cuda=True"),
        ({"precision": "int4"}, "precision is 'int4'"),
    ],
)
def test_options_that_cannot_be_met_are_refused(directory, options, seen):
    """Never a silent run on something else."""
    with pytest.raises(InvalidInputError, match=seen):
        TextCrossEncoder(directory, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"device_ids": [0]},
        {"device_ids": [0, 1], "cuda": False},
        {"device_id": 0},
        {"enable_cpu_mem_arena": False},
        {"enable_cpu_mem_arena": False, "threads": 1},
    ],
)
def test_options_of_fastembed_run_on_a_cpu_as_there(tiny_bert, options):
    """The same arguments in both classes, without a GPU; the same scores."""
    name = "Xenova/ms-marco-MiniLM-L-6-v2"
    theirs = Fastembed(name, specific_model_path=str(tiny_bert), **options)
    ours = TextCrossEncoder(name, specific_model_path=str(tiny_bert), **options)
    assert ours.provider == "CPUExecutionProvider"
    expected = list(theirs.rerank(QUERY, DOCUMENTS))
    assert ours.rerank(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-4)


def test_attributes_of_fastembed_are_what_was_passed(tiny_bert, tmp_path):
    """Also in a copy for another process."""
    given = {"cache_dir": str(tmp_path), "threads": 1, "lazy_load": True}
    name = "Xenova/ms-marco-MiniLM-L-6-v2"
    theirs = Fastembed(name, specific_model_path=str(tiny_bert), **given)
    for ours in (
        made := TextCrossEncoder(name, specific_model_path=str(tiny_bert), **given),
        pickle.loads(pickle.dumps(made)),
    ):
        assert (ours.cache_dir, ours.threads) == (theirs.cache_dir, theirs.threads)
        assert ours.model_name == theirs.model_name
    plain = TextCrossEncoder(tiny_bert, lazy_load=True)
    assert (plain.cache_dir, plain.threads) == (None, None)


@pytest.mark.parametrize("kind", [str, object])
def test_pairs_may_be_a_numpy_array(encoder, kind):
    """Rows are pairs, as fastembed takes them; an array of two texts is one pair."""
    pairs = [(QUERY, document) for document in ("bread", "the sea", "rye rises")]
    array = np.array(pairs, dtype=kind)
    expected = pytest.approx(encoder.score_pairs(pairs).scores.tolist(), abs=1e-5)
    assert list(encoder.rerank_pairs(array)) == expected
    assert encoder.score_pairs(array).scores.tolist() == expected
    assert encoder.token_count(array) == encoder.token_count(pairs)
    assert len(list(encoder.rerank_pairs(array[0]))) == 1
    with pytest.raises(InvalidInputError, match=r"expected a \(query, document\)"):
        encoder.score_pairs(np.array([["a", "b", "c"]]))
    with pytest.raises(InvalidInputError, match=r"expected a \(query, document\)"):
        encoder.score_pairs(np.array(["a", "b", "c"]))


def test_one_pair_may_be_given_alone(encoder):
    """To each call that takes pairs, as fastembed's rerank_pairs does."""
    pair = (QUERY, "bread rises")
    [expected] = encoder.rerank(*pair[:1], [pair[1]])
    assert encoder.score_pairs(pair).scores.tolist() == [pytest.approx(expected, abs=1e-5)]
    assert list(encoder.rerank_pairs(pair)) == [pytest.approx(expected, abs=1e-5)]
    assert encoder.token_count(pair) == encoder.token_count([pair])
    assert encoder.score_pairs((("a", "b"), ("c", "d"))).scores.shape == (2,)


@pytest.mark.parametrize("long_documents", ["truncate", "windows"])
def test_all_labels_are_scored_at_once(directory, tmp_path, long_documents):
    """Each column is what the encoder of that label scores; NaN where the time was up."""
    three = variants.three_labels(directory, tmp_path / "three")
    pairs = [(QUERY, document) for document in DOCUMENTS]
    encoders = [
        TextCrossEncoder(three, label=label, long_documents="truncate") for label in range(3)
    ]
    chosen = TextCrossEncoder(three, label=2, long_documents=long_documents)
    found = chosen.score_pairs(pairs)
    assert found.label_logits.shape == (len(pairs), 3)
    assert found.label_logits.dtype == np.float32
    assert found.label_logits[:, 2] == pytest.approx(found.scores, abs=1e-5)
    for label, encoder in enumerate(encoders):
        short = encoder.score_pairs(pairs[:3]).scores
        assert found.label_logits[:3, label] == pytest.approx(short, abs=1e-5)
    cut = chosen.score_pairs(pairs, deadline_s=1e-9)
    assert cut.label_logits.shape == (len(pairs), 3)
    assert np.isnan(cut.label_logits[~cut.scored]).all()


def test_providers_may_be_named(directory, encoder):
    """With options, as onnxruntime takes them."""
    chosen = TextCrossEncoder(directory, providers=[("CPUExecutionProvider", {})])
    assert chosen.rerank(QUERY, ["a"]) == pytest.approx(encoder.rerank(QUERY, ["a"]), abs=1e-5)


def test_long_queries_and_documents_score_as_in_fastembed(tiny_bert):
    """To the last token that is cut off, and with words that are longer than any."""
    theirs = Fastembed("Xenova/ms-marco-MiniLM-L-6-v2", specific_model_path=str(tiny_bert))
    ours = TextCrossEncoder(tiny_bert)
    rng = random.Random(0)
    words = [*WORDS, "x" * 120, "東京"]
    texts = [" ".join(rng.choices(words, k=k)) for k in (3, 50, 64, 65, 300, 1500)]
    pairs = [("a b " * 2000, "internationalization " * 2000), *itertools.product(texts, texts)]
    for query, document in pairs:
        expected = list(theirs.rerank(query, [document], batch_size=1))
        assert ours.rerank(query, [document]) == pytest.approx(expected, abs=1e-6)
