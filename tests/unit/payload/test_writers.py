"""Presets and LlamaIndex's nodes."""

import json

import pytest

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.payload import PayloadText
from qdrant_rerank.payload.writers import node_text


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("LangChain", "langchain"),
        ("langchian", "langchain"),
        ("lang_chain", "langchain"),
        ("llamaindex", "llama-index"),
        ("llama_index", "llama-index"),
        ("haystacks", "haystack"),
        ("MCP", "mcp"),
        ("mcp-server-qdrant", "mcp"),
    ],
)
def test_an_unknown_preset_is_refused_with_the_nearest(name, preset):
    """And with how to read a field of that name, which works."""
    with pytest.raises(InvalidInputError, match=f"{name}.*not a preset.*text='{preset}'") as caught:
        PayloadText(name)
    assert f"--text {preset}" in caught.value.command_message
    assert f"text='\"{name}\"'" in str(caught.value)
    assert PayloadText(f'"{name}"')({name: "iron"}) == "iron"
    assert PayloadText([name])({name: "iron"}) == "iron"


@pytest.mark.parametrize("name", ["author", "audio", "language", "stack", "hay", "index", "lama"])
def test_the_names_of_other_fields_are_no_presets(name):
    """However usual."""
    assert PayloadText(name)({name: "iron"}) == "iron"


def test_a_field_that_is_called_as_a_preset_can_be_read():
    """In quotes, or in a list."""
    assert PayloadText('"langchain"')({"langchain": "iron"}) == "iron"
    assert PayloadText(["auto", "mcp"])({"auto": "iron", "mcp": "bread"}) == "iron\nbread"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"text": "iron"}, "iron"),
        ({"text": "", "text_resource": {"text": "iron"}}, "iron"),
        ({"text": " "}, "apart"),
        ({"text_resource": None}, "apart"),
        ({}, "apart"),
    ],
)
def test_the_text_of_a_node_is_in_it_or_beside_it(content, text):
    """LlamaIndex stores it in either place."""
    payload = {"_node_content": json.dumps(content), "text": "apart"}
    assert node_text(payload) == text
    assert PayloadText("llama-index")(payload) == text


def test_a_point_without_a_node_has_its_text_in_text():
    """As LlamaIndex reads it."""
    assert PayloadText("llama-index")({"text": "iron"}) == "iron"
    assert PayloadText("llama-index")({"body": "iron"}) is None
    assert PayloadText("llama-index")({"_node_content": json.dumps({"text": " "})}) is None


@pytest.mark.parametrize(
    "content", ["{broken", '"a str"', "[1]", "[" * 100_000, 7, ["a"], "not JSON"]
)
def test_a_node_that_does_not_parse_is_named(content):
    """With the point and the field; where a text is only shown there is none."""
    read = PayloadText("llama-index")
    payload = {"_node_content": content}
    with pytest.raises(
        InvalidInputError, match="Point 7 has no LlamaIndex node in '_node_content'"
    ):
        read.read(payload, "Point 7")
    assert read(payload) is None


def test_a_missing_node_says_what_is_there():
    """And what to pass."""
    error = PayloadText("llama-index").missing({"body": "iron"}, "Point 7")
    assert str(error) == (
        "Point 7 has no text: '_node_content' is missing, 'text' is missing; its payload has "
        "['body']. Pass text='body'."
    )
