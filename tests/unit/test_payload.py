"""Payload -> text, paths and groups, and what Qdrant returns for these paths."""

from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from qdrant_rerank.errors import InvalidInputError, MissingTextError
from qdrant_rerank.payload import (
    PayloadText,
    field_paths,
    group_ids,
    lookup_ids,
    require_path,
    whole_field,
)
from qdrant_rerank.qdrant.embedded.client import EdgeClient
from qdrant_rerank.qdrant.lookups import completed, text_payload
from qdrant_rerank.reranking.ordering import keep_order

WORDS = st.text(min_size=1).filter(str.strip)
NAMES = st.sampled_from(["title", "a.b", "full text", "größe", 'a"b', "a[0]", "a", "b", "x-y_1"])
PAYLOADS = st.recursive(
    st.sampled_from(["iron", "", 7]),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)


@given(WORDS)
def test_a_field_is_returned_as_it_is(text):
    """No stripping, no change of any character."""
    assert PayloadText("body")({"body": text, "other": "x"}) == text


def test_a_dotted_path_reaches_nested_payload_and_a_dotted_name_comes_first():
    """As in Qdrant's filters, but a field of that very name wins."""
    read = PayloadText("a.b")
    assert read({"a": {"b": "nested"}}) == "nested"
    assert read({"a": {"b": "nested"}, "a.b": "flat"}) == "flat"
    assert read({"a": "no mapping"}) is None
    assert read.fields == ("a.b",)


@given(WORDS, WORDS)
def test_several_fields_are_joined_by_newlines_and_missing_ones_skipped(title, body):
    """A document without a title is still a document."""
    read = PayloadText(["title", "body"])
    assert read({"title": title, "body": body}) == f"{title}\n{body}"
    assert read({"body": body}) == body
    assert read({"title": 3, "body": " "}) is None


def test_a_template_fills_in_text_numbers_and_braces():
    """Numbers are written out; doubled braces are braces."""
    read = PayloadText("{{{title}}} {meta.year} {open}")
    assert read({"title": "A", "meta": {"year": 1999}, "open": True}) == "{A} 1999 True"
    assert read.fields == ("title", "meta.year", "open")


def test_a_template_needs_every_field():
    """Half a text would be scored as if it were the whole."""
    assert PayloadText("{title}\n{body}")({"title": "only"}) is None
    assert PayloadText("{title}")({"title": ["a", "b"]}) is None


@pytest.mark.parametrize("value", [None, "", " \n", 3, ["a"], {"a": 1}, b"bytes"])
def test_what_is_no_text_is_missing(value):
    """Neither str() of a list nor an empty string is scored."""
    assert PayloadText("body")({"body": value}) is None
    assert PayloadText(lambda payload: payload["body"])({"body": value}) is None


def test_a_function_that_finds_no_key_means_missing():
    """The natural lambda must not end a ranking half-way."""
    read = PayloadText(lambda payload: payload["body"])
    assert read({}) is None
    assert read(None) is None
    assert read.fields is None


def test_a_function_with_a_defect_is_not_hidden():
    """Only a failed lookup means missing."""
    with pytest.raises(AttributeError):
        PayloadText(lambda payload: payload["body"].strip())({"body": 3})


@pytest.mark.parametrize(
    "source",
    ["", " ", [], ["a", ""], "{", "{}", "{a!r}", "{a:>10}", "{a.b[0]", [3], None, 5, {"a"}],
)
def test_a_source_that_cannot_be_read_is_refused(source):
    """At construction, with the source in the message."""
    with pytest.raises(InvalidInputError, match="text="):
        PayloadText(source)


def test_a_missing_text_says_what_is_there_and_what_to_pass():
    """What was seen, what was expected, how to fix it."""
    with pytest.raises(MissingTextError) as caught:
        PayloadText("body").require({"title": "T", "n": 1}, "Point 42")
    assert str(caught.value) == (
        "Point 42 has no text: 'body' is missing; its payload has ['n', 'title']. "
        "Pass text='title'."
    )


def test_the_longest_texts_are_suggested_first_and_ids_never():
    """The type of what stands there is named with its article."""
    payload = {"_id": "a" * 40, "id": "b" * 40, "title": "T", "body": "Long.", "empty": " "}
    read = PayloadText("n")
    assert str(read.missing({"n": 1} | payload, "Point 1")).endswith(
        "Point 1 has no text: 'n' is an int, not a str; its payload has "
        "['_id', 'body', 'empty', 'id', 'n', 'title']. Pass text='body' or 'title'."
    )
    assert str(read.missing({"_id": "a"}, "Point 1")).endswith("its payload has ['_id'].")


def test_text_in_braces_runs_no_code():
    """A template reads payload; it cannot reach attributes."""
    assert PayloadText("{a.__class__}")({"a": "text"}) is None


@given(WORDS, WORDS, st.data())
def test_a_part_of_the_text_is_found_in_its_field(title, body, data):
    """The field that holds most of it; the part lies there, and nowhere else."""
    read = PayloadText(["title", "none", "body"])
    payload = {"title": title, "body": body}
    text = read(payload)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    found = read.locate(payload, start, end)
    assert payload[found.field][found.start : found.end] == found.text
    assert found.text in text[start:end]
    assert len(found.text) >= (end - start - 1) / 2


@given(WORDS, st.data())
def test_a_part_of_a_made_up_text_has_no_field(body, data):
    """Its place is in the text itself."""
    for source in ("<{body}>", lambda payload: payload["body"]):
        read = PayloadText(source)
        text = read({"body": body})
        start = data.draw(st.integers(0, len(text)))
        found = read.locate({"body": body}, start, len(text))
        assert (found.field, found.text) == (None, text[start:])


@pytest.fixture(scope="module", params=["local mode", "the real engine"])
def engine(request):
    """An embedded engine with an empty collection."""
    made = QdrantClient(":memory:") if request.param == "local mode" else EdgeClient()
    with closing(made) as client:
        client.create_collection(
            "points", {"dense": models.VectorParams(size=1, distance=models.Distance.DOT)}
        )
        yield client


@settings(max_examples=40, deadline=None)
@given(payload=st.dictionaries(NAMES, PAYLOADS, max_size=4), fields=st.lists(NAMES, min_size=1))
def test_what_recall_asks_for_holds_the_text(engine, payload, fields):
    """Whatever the fields are called; and the payload that is shown in the end is the whole one."""
    engine.upsert("points", [models.PointStruct(id=1, vector={}, payload=payload)])
    text = PayloadText(fields)
    [found] = engine.retrieve("points", [1], with_payload=text_payload(text))
    assert text(found.payload) == text(payload)
    [whole] = engine.retrieve("points", [1], with_payload=True)
    [point] = keep_order([models.ScoredPoint(id=1, version=0, score=0.0, payload=found.payload)])
    assert completed([point], {1: whole})[0].payload == payload


def test_a_field_that_no_path_can_name_needs_the_whole_payload():
    """Qdrant has no escapes within quotes, and no empty names."""
    assert field_paths(["title", 'a"b']) is None
    assert field_paths(["a..b"]) is None
    assert text_payload(PayloadText(['a"b'])) is True


@pytest.mark.parametrize(
    ("path", "whole"),
    [
        ("tags", "tags"),
        ("tags[]", "tags"),
        ("a.b[0].c", "a.b"),
        ('"x[y".z[]', '"x[y".z'),
    ],
)
def test_a_path_is_cut_before_its_first_index(path, whole):
    """Which Qdrant does not select by."""
    require_path("group_by", path)
    assert whole_field(path) == whole


@pytest.mark.parametrize("path", ["", "a[", "a..b", "[0]", "my field", "a[-1]", None, 3])
def test_what_is_no_path_is_named(path):
    """With what one looks like."""
    with pytest.raises(InvalidInputError, match="group_by is .*; expected a payload field"):
        require_path("group_by", path)


@pytest.mark.parametrize(
    ("payload", "ids"),
    [
        ({"tags": [{"id": 1}, {"id": 2}, {"id": 1}]}, [1, 2]),
        ({"tags": [{"id": 1}, {"id": True}]}, []),
        ({"tags": []}, []),
        (None, []),
    ],
)
def test_paths_reach_into_arrays(payload, ids):
    """As in Qdrant's filters."""
    assert group_ids(payload, "tags[].id") == ids


def test_only_what_can_be_an_id_is_looked_up():
    """A group with another name has no point of its own."""
    groups = [
        models.PointGroup(id=value, hits=[])
        for value in (3, -1, "abc", "936DA01F9ABD4d9d80C702AF85C822A8")
    ]
    assert lookup_ids(groups) == {
        3: 3,
        "936DA01F9ABD4d9d80C702AF85C822A8": "936da01f-9abd-4d9d-80c7-02af85c822a8",
    }


def test_a_template_names_only_the_fields_that_lack_text():
    """Not those that have some."""
    error = PayloadText("{title} {text}").missing({"text": "full text"}, "It")
    assert "'title' is missing; its payload" in error.reason
    assert "is empty" not in error.reason
