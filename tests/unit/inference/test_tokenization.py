"""Pairs -> token ids."""

import json
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from qdrant_rerank.errors import InvalidInputError, ModelFileError
from qdrant_rerank.inference.tokenization import PairTokenizer
from tests.models import variants

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
SPECIALS = {"tiny-bert": 3, "tiny-xlmr": 4}


@pytest.fixture(params=["tiny_bert", "tiny_xlmr"], scope="module")
def directory(request):
    """Both templates: [CLS] q [SEP] d [SEP] and <s> q </s></s> d </s>."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def tokenizer(directory):
    """Loaded as TextCrossEncoder loads it."""
    return PairTokenizer.from_directory(directory)


def stock(directory, limit=None):
    """The same file without our code."""
    made = Tokenizer.from_file(str(directory / "tokenizer.json"))
    made.no_padding()
    made.no_truncation() if limit is None else made.enable_truncation(limit)
    return made


@settings(max_examples=50, deadline=None)
@given(query=ANY_TEXT, document=ANY_TEXT)
def test_ids_and_types_are_the_tokenizers_own_for_the_models_max_length(
    directory, tokenizer, query, document
):
    """The stored truncation and padding (64) are reset; the model reads 128."""
    [pair] = tokenizer([(query, document)])
    expected = stock(directory, 128).encode(query, document)
    assert pair.ids.tolist() == expected.ids
    assert pair.type_ids.tolist() == expected.type_ids
    assert tokenizer.max_length == 128
    assert len(pair) <= 128


@settings(max_examples=30, deadline=None)
@given(words=st.integers(1, 60), rest=st.integers(0, 400))
def test_a_query_of_up_to_half_the_max_length_stays_whole(directory, tokenizer, words, rest):
    """The document takes the cut, whatever its length."""
    query = " ".join(["bread"] * words)
    own = stock(directory).encode(query, add_special_tokens=False).ids
    assume(len(own) <= (128 - SPECIALS[directory.name]) // 2)
    [pair] = tokenizer([(query, "butter " * rest)])
    assert pair.ids.tolist()[1 : 1 + len(own)] == own


def test_a_batch_equals_its_pairs_alone(tokenizer):
    """No pair sees another."""
    pairs = [("a question", "short"), ("q", "long " * 300), ("", ""), ("né à 東京", "🙂 \x00 שלום")]
    together = tokenizer(pairs)
    assert [p.ids.tolist() for p in together] == [tokenizer([p])[0].ids.tolist() for p in pairs]


def test_ten_megabytes_are_cut_before_tokenising(tokenizer):
    """Bounded time; the tokens are those of the text's start."""
    text = "the quick brown fox " * 500_000
    began = time.perf_counter()
    [pair] = tokenizer([("query", text)])
    assert time.perf_counter() - began < 2  # unclipped: 4 s and more
    assert pair.ids.tolist() == tokenizer([("query", text[:100_000])])[0].ids.tolist()


def test_text_behind_much_white_space_is_still_read(tokenizer):
    """The first clip gives fewer tokens than the max length, so a wider one is tried."""
    [pair] = tokenizer([("query", " " * 50_000 + "answer")])
    assert pair.ids.tolist() == tokenizer([("query", "answer")])[0].ids.tolist()


def test_lone_surrogates_read_as_the_replacement_character(tokenizer):
    """They have no UTF-8, which the tokenizer needs."""
    broken, fixed = tokenizer([("q\ud800", "a \udfff b")]), tokenizer([("q\ufffd", "a \ufffd b")])
    assert broken[0].ids.tolist() == fixed[0].ids.tolist()


def test_max_length_is_checked_against_the_position_table(directory):
    """XLM-R's table is two longer than its max length."""
    assert PairTokenizer.from_directory(directory, max_length=128).max_length == 128
    with pytest.raises(InvalidInputError, match="max_length is 129.*positions for 128"):
        PairTokenizer.from_directory(directory, max_length=129)
    with pytest.raises(InvalidInputError, match="max_length is 3"):
        PairTokenizer.from_directory(directory, max_length=3)


def test_configuration_files_are_optional(directory, tmp_path):
    """With tokenizer.json alone the max length is 512."""
    bare = PairTokenizer.from_directory(variants.flat(directory, tmp_path / "m"))
    assert bare.max_length == 512
    assert bare.pad_id == PairTokenizer.from_directory(directory).pad_id


@pytest.mark.parametrize(
    ("file", "content", "seen"),
    [
        ("tokenizer.json", None, "No tokenizer.json"),
        ("tokenizer.json", "{", "not a readable tokenizer"),
        ("config.json", "{", "not readable JSON"),
        ("tokenizer_config.json", "[]", "holds a list"),
    ],
)
def test_damaged_files_are_named(directory, tmp_path, file, content, seen):
    """What was seen, and what to do."""
    copy = variants.copy_of(directory, tmp_path / "m")
    (copy / file).unlink() if content is None else (copy / file).write_text(content)
    with pytest.raises(ModelFileError, match=seen):
        PairTokenizer.from_directory(copy)


def test_a_max_length_of_the_tokenizers_configuration_counts(directory, tmp_path):
    """The smallest of what the files say."""
    copy = variants.copy_of(directory, tmp_path / "m")
    config = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 40}))
    assert PairTokenizer.from_directory(copy).max_length == 40
