"""The registry of models."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import get_args

import pytest
from fastembed.rerank.cross_encoder import TextCrossEncoder as Fastembed

from qdrant_rerank import (
    DEFAULT_RERANKER,
    ModelFile,
    ModelSource,
    ModelSpec,
    TextCrossEncoder,
)
from qdrant_rerank.errors import InvalidInputError, UnknownModelError
from qdrant_rerank.hub.catalog import BUILT_IN, MULTILINGUAL_RERANKER
from qdrant_rerank.hub.precision import FilePrecision
from qdrant_rerank.hub.registry import find_model, listing


def test_names_are_found_in_any_case_and_without_their_owner():
    """As people type them."""
    for name in (
        "Xenova/ms-marco-MiniLM-L-6-v2",
        "xenova/MS-marco-minilm-l-6-v2",
        "ms-marco-MiniLM-L-6-v2",
    ):
        assert find_model(name).model == "Xenova/ms-marco-MiniLM-L-6-v2"
    assert find_model(DEFAULT_RERANKER).sources is None


def test_a_miss_lists_the_nearest_names():
    """The user need not look the name up."""
    with pytest.raises(UnknownModelError, match="Did you mean .*bge-reranker-base"):
        TextCrossEncoder("bge-reranker-bse")
    with pytest.raises(UnknownModelError, match=r"list_supported_models\(\) lists the names"):
        find_model("zzzzzzzzzz")


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("grown-minilm-l6-v1", DEFAULT_RERANKER),
        ("Grown-MiniLM-L6-v2", DEFAULT_RERANKER),
        ("grown-minilm-l3-v2", "grown-e5-small-l6-v1"),
    ],
)
def test_a_model_that_was_bundled_once_is_answered_with_what_replaced_it(name, instead):
    """Bundled models changed between versions; a name in someone's code did not."""
    with pytest.raises(UnknownModelError, match=f"'{instead}' replaces it") as caught:
        TextCrossEncoder(name)
    assert name in str(caught.value)


def test_the_listing_has_fastembeds_keys():
    """Code that reads fastembed's listing reads this one."""
    keys = {
        "model",
        "sources",
        "model_file",
        "description",
        "license",
        "size_in_GB",
        "additional_files",
    }
    listed = TextCrossEncoder.list_supported_models()
    assert all(keys <= set(entry) for entry in listed)
    assert {DEFAULT_RERANKER, "BAAI/bge-reranker-base"} <= {entry["model"] for entry in listed}


def test_the_registry_states_its_facts():
    """Each name once, short names too; sizes, max lengths and licences of all."""
    listed = [listing(spec) for spec in BUILT_IN.values()]
    assert {entry["model"].rpartition("/")[2] for entry in listed} >= set(
        "ms-marco-MiniLM-L-6-v2 ms-marco-MiniLM-L-12-v2 ms-marco-TinyBERT-L-2-v2 bge-reranker-base "
        "bge-reranker-large bge-reranker-v2-m3 bge-reranker-v2-m3-int8 jina-reranker-v1-tiny-en "
        "jina-reranker-v1-turbo-en jina-reranker-v2-base-multilingual mxbai-rerank-xsmall-v1 "
        "mxbai-rerank-base-v1 mxbai-rerank-large-v1 gte-multilingual-reranker-base "
        "gte-reranker-modernbert-base Qwen3-Reranker-0.6B".split()
    )
    for entry in listed:
        assert find_model(entry["model"].rpartition("/")[2]).model == entry["model"]
        # Without a file that is known, what the repository has is loaded.
        assert (entry["size_in_GB"] > 0) == bool(entry["model_file"])
        assert entry["max_length"] >= 512
        assert entry["license"]
        for precision, file in entry["precisions"].items():
            assert precision in get_args(FilePrecision)
            assert file["size_in_GB"] > 0
    restricted = [entry["model"] for entry in listed if not entry["commercial_use"]]
    assert restricted == ["jinaai/jina-reranker-v2-base-multilingual"]


def test_the_listing_agrees_with_fastembeds_on_its_models():
    """Names, repositories, files and licences; code that passes one's entry to the other works."""
    ours = {entry["model"]: entry for entry in TextCrossEncoder.list_supported_models()}
    for theirs in Fastembed.list_supported_models():
        entry = ours[theirs["model"]]
        assert entry["sources"]["hf"] == theirs["sources"]["hf"]
        for key in ("model_file", "license", "additional_files"):
            assert entry[key] == theirs[key]
        assert entry["size_in_GB"] == pytest.approx(theirs["size_in_GB"], rel=0.15)


def test_a_custom_model_is_listed_and_its_name_cannot_be_taken_twice():
    """Built-in names are taken, too."""
    name = f"me/{uuid.uuid4()}"
    TextCrossEncoder.add_custom_model(name, ModelSource(hf="me/repository"), license="mit")
    assert name in [entry["model"] for entry in TextCrossEncoder.list_supported_models()]
    for taken in (name.upper(), "BAAI/bge-reranker-base"):
        with pytest.raises(InvalidInputError, match="already registered"):
            TextCrossEncoder.add_custom_model(taken, ModelSource(hf="me/repository"))
    with pytest.raises(InvalidInputError, match="no hub repository"):
        TextCrossEncoder.add_custom_model(f"me/{uuid.uuid4()}", ModelSource(url="http://x"))
    with pytest.raises(InvalidInputError, match="sources of .* are missing"):
        TextCrossEncoder.add_custom_model(f"me/{uuid.uuid4()}")


def test_a_custom_model_may_be_a_spec():
    """Which has its own sources, and only files inside the repository."""
    name = f"me/{uuid.uuid4()}"
    files = (ModelFile("a.onnx"), ModelFile("b.onnx", "int8", sha256="0" * 64))
    spec = ModelSpec(name, ModelSource(hf="me/repository", revision="f" * 40), files=files)
    TextCrossEncoder.add_custom_model(spec)
    assert find_model(name) is spec
    assert find_model(name).file("int8").path == "b.onnx"
    with pytest.raises(InvalidInputError, match="no fp16 file; its precisions are auto, fp32, int"):
        spec.file("fp16")
    with pytest.raises(InvalidInputError, match="sources are given twice"):
        TextCrossEncoder.add_custom_model(spec, ModelSource(hf="me/repository"))
    for path in ("/etc/passwd", "../x.onnx", "a/../../x.onnx", "a\\b.onnx", ""):
        outside = replace(spec, model=f"me/{uuid.uuid4()}", files=(ModelFile(path),))
        with pytest.raises(InvalidInputError, match="expected a path relative"):
            TextCrossEncoder.add_custom_model(outside)


def test_the_precision_of_a_custom_file_is_told_by_its_name():
    """So that asking for int8 finds it."""
    name = f"me/{uuid.uuid4()}"
    source = ModelSource(hf="me/repository")
    TextCrossEncoder.add_custom_model(name, source, model_file="onnx/model_quantized.onnx")
    assert find_model(name).file("int8").path == "onnx/model_quantized.onnx"


def test_a_custom_model_never_changes_what_a_name_meant():
    """A short name that a built-in model has stays with it."""
    owner = f"me{uuid.uuid4().hex}"
    TextCrossEncoder.add_custom_model(f"{owner}/bge-reranker-base", ModelSource(hf="me/repository"))
    assert find_model("bge-reranker-base").model == "BAAI/bge-reranker-base"
    assert find_model(f"{owner}/bge-reranker-base").model == f"{owner}/bge-reranker-base"


def test_one_of_many_threads_gets_the_name():
    """The others are told that it is taken."""
    name = f"me/{uuid.uuid4()}"

    def add(_):
        try:
            TextCrossEncoder.add_custom_model(name, ModelSource(hf="me/repository"))
        except InvalidInputError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(add, range(64))) == 1


def test_every_model_says_its_languages():
    """ISO codes or "multilingual"; the bundled ones know English alone."""
    for spec in BUILT_IN.values():
        assert spec.languages
        assert all(code == "multilingual" or len(code) == 2 for code in spec.languages)
        assert listing(spec)["languages"] == list(spec.languages)
        assert (spec.sources is not None) or spec.languages == ("en",)
    for name in (MULTILINGUAL_RERANKER, "jinaai/jina-reranker-v2-base-multilingual"):
        assert find_model(name).languages == ("multilingual",)
