"""The registry, and the tree of errors."""

import inspect
import uuid

import pytest

from qdrant_rerank import DEFAULT_RERANKER, ModelSource, TextCrossEncoder, errors
from qdrant_rerank.errors import InvalidInputError, UnknownModelError
from qdrant_rerank.registry import find_model


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
    """A typo mends itself."""
    with pytest.raises(UnknownModelError, match="Did you mean .*bge-reranker-base"):
        TextCrossEncoder("bge-reranker-bse")
    with pytest.raises(UnknownModelError, match="Supported: "):
        find_model("zzzzzzzzzz")


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


def test_the_tree_of_errors_is_the_one_drawn():
    """Every class, under its parent, at its depth."""
    drawn = {}
    path = []
    for line in errors.__doc__.splitlines():
        words = line.replace("│", " ").replace("├──", "   ").replace("└──", "   ").split()
        if words and words[0].endswith(("Error", "Warning")) and line.startswith("    "):
            depth = (len(line) - len(line.lstrip(" │├└─"))) // 4
            path = [*path[: depth - 1], words[0]]
            drawn[words[0]] = path[-2] if len(path) > 1 else None
    real = {
        name: next((b.__name__ for b in cls.__bases__ if b.__name__ in errors.__all__), None)
        for name, cls in inspect.getmembers(errors, inspect.isclass)
    }
    assert drawn == real
    assert set(real) == set(errors.__all__)
