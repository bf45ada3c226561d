"""What the files beside a tokenizer say, each field checked."""

import json
import shutil

import pytest
from tokenizers import Tokenizer

from qdrant_rerank import TextCrossEncoder
from qdrant_rerank.cross_encoder.prompts import QWEN3_RERANKER, PromptTokenizer
from qdrant_rerank.cross_encoder.windows import PairReader, Windows
from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.inference.tokenization import PairTokenizer
from tests.conftest import MODELS


def changed(source, target, file, **content):
    """A copy of a model in which a file has other fields."""
    folder = shutil.copytree(source, target)
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | content))
    return folder


@pytest.mark.parametrize(
    ("declared", "positions", "expected"),
    [
        ({"model_max_length": 100, "max_length": 64}, 128, 100),  # as saved by transformers 5
        ({"model_max_length": 10**30, "max_length": 64}, 128, 128),
        ({"model_max_length": 1e30, "max_length": 64}, 128, 128),
        ({"model_max_length": 512, "max_length": 64}, 128, 128),
        ({"max_length": 64}, 128, 128),
        ({"max_length": 64}, None, 64),  # nothing else is known
        ({"model_max_length": 100.0}, 128, 100),
        ({"model_max_length": None, "max_length": None}, None, 512),
        ({}, -1, 512),
    ],
)
def test_the_models_own_limit_is_its_max_length(tiny_bert, tmp_path, declared, positions, expected):
    """Not the length that a tokenizer was last cut to when it was saved."""
    folder = changed(tiny_bert, tmp_path / "m", "config.json", max_position_embeddings=positions)
    (folder / "tokenizer_config.json").write_text(json.dumps(declared))
    assert PairTokenizer.from_directory(folder).max_length == expected


@pytest.mark.parametrize(
    ("file", "content", "seen"),
    [
        ("tokenizer_config.json", {"padding_side": "middle"}, "'middle'; expected 'left' or 'rig"),
        ("tokenizer_config.json", {"truncation_side": "up"}, "truncation_side is 'up'; expected"),
        ("tokenizer_config.json", {"padding_side": 1}, "padding_side is 1; expected a string"),
        ("tokenizer_config.json", {"model_max_length": "512"}, "is '512'; expected a number"),
        ("tokenizer_config.json", {"max_length": True}, "max_length is True; expected a number"),
        ("config.json", {"max_position_embeddings": "9"}, "is '9'; expected a whole number"),
        ("config.json", {"max_position_embeddings": [9]}, r"is \[9\]; expected a whole number"),
        ("config.json", {"model_type": ["bert"]}, r"model_type is \['bert'\]; expected a string"),
        ("special_tokens_map.json", {"mask_token": 7}, "mask_token is 7; expected a token"),
        ("special_tokens_map.json", {"mask_token": [["a"]]}, "mask_token is .*expected a token"),
        ("special_tokens_map.json", {"mask_token": {"content": 1}}, "mask_token is .*expected a t"),
        ("special_tokens_map.json", {"mask_token": {"content": "a", "lstrip": []}}, "expected a t"),
    ],
)
def test_a_field_of_a_wrong_kind_is_named(tiny_bert, tmp_path, file, content, seen):
    """With its file, before anything is read with it."""
    folder = changed(tiny_bert, tmp_path / "m", file, **content)
    with pytest.raises(ModelFileError, match=f"{folder / file}: .*{seen}"):
        TextCrossEncoder(folder)


def test_a_field_that_pads_is_checked(tiny_bert, tmp_path):
    """Where the tokenizer itself names no padding."""
    folder = changed(tiny_bert, tmp_path / "m", "tokenizer.json", padding=None)
    for file, content, seen in (
        ("config.json", {"pad_token_id": "0"}, "pad_token_id is '0'; expected a whole number"),
        ("tokenizer_config.json", {"pad_token": 3}, "pad_token is 3; expected a token"),
    ):
        other = changed(folder, tmp_path / file, file, **content)
        with pytest.raises(ModelFileError, match=seen):
            TextCrossEncoder(other)
    negative = changed(folder, tmp_path / "negative", "config.json", pad_token_id=-1)
    assert PairTokenizer.from_directory(negative).pad_id == 0


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer_config.json", "special_tokens_map.json"]
)
@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe{}", b'{"a": ' * 100_000])
def test_files_that_no_parser_takes_are_named(tiny_bert, tmp_path, file, content):
    """Nested too deep, or in another encoding."""
    folder = shutil.copytree(tiny_bert, tmp_path / "m")
    (folder / file).write_bytes(content)
    with pytest.raises(ModelFileError, match=f"{folder / file} is not readable JSON"):
        TextCrossEncoder(folder)


def test_special_tokens_may_be_named_in_every_way_of_transformers(tiny_bert, tmp_path):
    """Strings, objects with flags, lists and dicts of these."""
    flags = {"__type": "AddedToken", "content": "[C]", "lstrip": False, "id": 7}
    folder = changed(
        tiny_bert,
        tmp_path / "m",
        "special_tokens_map.json",
        additional_special_tokens=["[A]", flags],
        extra_special_tokens={"image_token": "[B]"},
        bos_token=None,
    )
    added = PairTokenizer.from_directory(folder).without_truncation().get_added_tokens_decoder()
    assert {"[A]", "[B]", "[C]"} <= {str(token) for token in added.values()}


PANICS_ON_LOADING = {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}
PANICS_ON_A_TEXT = {"pre_tokenizer": {"type": "FixedLength", "length": 0}}
RAISES_ON_A_TEXT = {"model": {"type": "Unigram", "unk_id": None, "vocab": [["a", -1.0]]}}


@pytest.mark.parametrize("content", [PANICS_ON_LOADING, PANICS_ON_A_TEXT, RAISES_ON_A_TEXT])
@pytest.mark.parametrize("options", [{}, {"long_documents": "windows"}])
def test_a_tokenizer_whose_library_panics_is_named(tiny_bert, tmp_path, content, options):
    """A panic is no Exception, and would pass everything that handles one."""
    folder = changed(tiny_bert, tmp_path / "m", "tokenizer.json", **content)
    with pytest.raises(ModelFileError, match=r"tokenizer\.json.* fetch it again"):
        TextCrossEncoder(folder, **options)


def test_a_panic_of_a_prompts_tokenizer_and_of_a_splitter_is_named(tmp_path):
    """At construction, and at a text."""
    folder = changed(MODELS / "tiny-qwen3", tmp_path / "m", "tokenizer.json", **PANICS_ON_A_TEXT)
    with pytest.raises(ModelFileError, match=r"tokenizer\.json is not usable: chunk size"):
        PromptTokenizer.from_directory(folder, QWEN3_RERANKER)
    tokenizer = PromptTokenizer.from_directory(MODELS / "tiny-qwen3", QWEN3_RERANKER)
    reader = PairReader(tokenizer, Windows())
    broken = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer._tokenizer = reader._splitter._whole = broken
    for call in (lambda: tokenizer([("a", "b")]), lambda: reader._splitter("a", "b " * 500)):
        with pytest.raises(ModelFileError, match="failed on a text: chunk size"):
            call()
