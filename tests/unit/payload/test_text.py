"""Payload -> text, by each kind of text source."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdrant_rerank.errors import InvalidInputError, MissingTextError
from qdrant_rerank.payload import PayloadText

WORDS = st.text(min_size=1).filter(str.strip)


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


@pytest.mark.parametrize("value", [None, "", " \n", 3, [3, " "], {"a": 1}, b"bytes"])
def test_what_is_no_text_is_missing(value):
    """Neither str() of a number nor an empty string is scored."""
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
    ["", " ", [], ["a", ""], "{", "{}", "{a!r}", "{a:>10}", "{a.b[0]", "{{a}}", [3], None, {"a"}],
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


@pytest.mark.parametrize(
    ("function", "seen"),
    [
        (lambda payload: payload["body"], "raised KeyError('body')"),
        (lambda payload: "", "returned no text"),
        (len, "returned an int, not a str"),
        (lambda payload: ["a", "text"], "returned a list, not a str"),
    ],
)
def test_a_function_without_a_text_is_told_what_it_returned(function, seen):
    """A list or a number is no text, and the message says so."""
    error = PayloadText(function).missing({"title": "T"}, "Point 1")
    assert f"the text function {seen}; its payload has ['title']" in str(error)


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


def test_a_template_names_only_the_fields_that_lack_text():
    """Not those that have some."""
    error = PayloadText("{title} {text}").missing({"text": "full text"}, "It")
    assert "'title' is missing; its payload" in error.reason
    assert "is empty" not in error.reason


@given(st.lists(WORDS, min_size=1), WORDS)
def test_the_texts_of_a_list_are_joined(texts, title):
    """By newlines, whether the path names the list, its items or a field of them."""
    payload = {"tags": texts, "chunks": [{"text": text} for text in texts], "title": title}
    joined = "\n".join(texts)
    assert PayloadText("tags")(payload) == joined
    assert PayloadText("tags[]")(payload) == joined
    assert PayloadText("chunks[].text")(payload) == joined
    assert PayloadText("chunks[0].text")(payload) == texts[0]
    assert PayloadText(["title", "tags"])(payload) == f"{title}\n{joined}"
    assert PayloadText("{title}: {chunks[].text}")(payload) == f"{title}: {joined}"


@given(st.lists(WORDS, min_size=2), st.data())
def test_a_part_of_a_list_is_found_in_its_joined_text(texts, data):
    """The place is that in the texts joined by newlines."""
    read = PayloadText("chunks[].text")
    payload = {"chunks": [{"text": text} for text in texts]}
    end = data.draw(st.integers(1, len(read(payload))))
    found = read.locate(payload, 0, end)
    assert (found.text, found.field) == (read(payload)[:end], "chunks[].text")
    assert (found.start, found.end) == (0, end)


def test_a_source_names_itself():
    """For the trace, and for people."""
    assert PayloadText(["a", "b"]).name == "a, b"
    assert PayloadText("{a}: {b}").name == "{a}: {b}"
    assert PayloadText(len).name == "len"
    assert repr(PayloadText(["a", "b"])) == "PayloadText(['a', 'b'])"
    assert repr(PayloadText(len)) == "PayloadText(len)"
