"""What the components of all frameworks have in common, and what they say without a framework."""

import re
import subprocess
import sys

import pytest

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.integrations.shared import as_text, require_all, require_page, text_and_metadata
from qdrant_rerank.payload import PayloadText

UUID_TEXT = "10a16983-0c97-4840-becb-1a8583eb564b"


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("langchain", "langchain_core", "langchain"),
        ("llama_index", "llama_index", "llama-index"),
        ("haystack", "haystack", "haystack"),
        ("dspy", "dspy", "dspy"),
        ("mcp", "mcp", "mcp"),
    ],
)
def test_a_module_without_its_framework_names_the_extra(module, package, extra):
    """When it is imported, in a process that has no such package."""
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from qdrant_rerank.errors import MissingDependencyError\n"
        "try:\n"
        f"    import qdrant_rerank.integrations.{module}\n"
        "except MissingDependencyError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300
    )
    assert f'pip install "qdrant-rerank[{extra}]"' in done.stdout, done.stderr


def test_a_query_is_a_text_even_if_it_looks_like_an_id():
    """A UUID gets the space that a searcher asks for; a blank query is refused."""
    assert as_text("why") == "why"
    assert as_text(UUID_TEXT) == f" {UUID_TEXT}"
    with pytest.raises(InvalidInputError):
        as_text(" ")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"limit": 0}, "k is 0; expected 1 or more"),
        ({"limit": None}, "k is None"),
        ({"limit": 5, "candidates": 4}, "candidates is 4 and k 5"),
        ({"candidates": "many"}, "candidates is 'many'"),
        ({"score_threshold": "high"}, "score_threshold is 'high'"),
        ({"query_filter": {"most": []}}, "['most'] is no part of a filter"),
        ({"text": 5}, "text=5; expected a payload field"),
        ({"text": None}, "text=None"),
        ({"text": "{title"}, "text="),
    ],
)
def test_what_a_component_says_of_its_page_is_checked(wrong, told):
    """With the framework's own name of the limit."""
    right = {"limit": 5, "score_threshold": 0.5, "candidates": 5, "query_filter": {"must": []}}
    require_page("k", **right)
    require_page("k", **(right | {"limit": None}), optional=True)
    with pytest.raises(InvalidInputError, match=re.escape(told)):
        require_page("k", **(right | wrong))


def test_what_is_reranked_is_of_the_frameworks_kind():
    """The error names the place and the kind of the first other one; one text is not several."""
    require_all("documents", [1, 2], int)
    with pytest.raises(InvalidInputError, match="is a str; expected ints of builtins"):
        require_all("documents", [1, "two"], int)
    with pytest.raises(InvalidInputError, match="documents is one str"):
        require_all("documents", "two", str)


@pytest.mark.parametrize(
    ("payload", "source", "expected"),
    [
        ({"page_content": "a", "metadata": {"n": 1}}, "page_content", ("a", {"n": 1})),
        ({"page_content": "a", "n": 1}, "page_content", ("a", {"n": 1})),
        ({"text": "a", "n": 1}, "text", ("a", {"n": 1})),
        ({"title": "t", "body": "b"}, "{title} {body}", ("t b", {"title": "t", "body": "b"})),
        ({"_node_content": '{"text": "a"}', "n": 1}, "llama-index", ("a", {"n": 1})),
        ({"n": 1}, "text", ("", {"n": 1})),
        (None, "text", ("", {})),
    ],
)
def test_the_text_is_not_repeated_in_the_metadata(payload, source, expected):
    """The framework's own field comes first, then what the searcher reads."""
    found = text_and_metadata(payload, PayloadText(source), "page_content", "metadata")
    assert found == expected
