"""Templates, with and without all of their fields."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdrant_rerank.payload import PayloadText
from qdrant_rerank.payload.template import Template

LETTERS = st.text(alphabet="xyzß木9", min_size=1, max_size=6)
LITERALS = st.text(alphabet="ab (){}[]\"'«»:,.\n-", max_size=12)


@pytest.mark.parametrize(
    ("template", "fields", "text"),
    [
        ("{title}\n{body}", {"body": "B"}, "B"),
        ("{title}\n{body}", {"title": "T"}, "T"),
        ("Title: {title}\nBody: {body}", {"body": "B"}, "Body: B"),
        ("Title: {title}\nBody: {body}", {"title": "T"}, "Title: T"),
        ("Title: {title} Body: {body}", {"body": "B"}, "Body: B"),
        ("Title: {title} Body: {body}", {"title": "T"}, "Title: T"),
        ("{title} ({year})\n{body}", {"title": "T", "body": "B"}, "T\nB"),
        ("{title} ({year})\n{body}", {"year": 1999, "body": "B"}, "(1999)\nB"),
        ("«{title}» - {body}", {"body": "B"}, "B"),
        ("{title}: {body}", {"body": "B"}, "B"),
        ("{title}: {body}", {"title": "T"}, "T"),
        ("{a}, {b}, {c}.", {"a": "A", "c": "C"}, "A, C."),
        ("{a}, {b}, {c}.", {"a": "A", "b": "B"}, "A, B"),
        ("{a}, {b}, {c}.", {"c": "C"}, "C."),
        ("{a} {b}", {"a": "A", "b": [7, " "]}, "A 7"),
        ("Title:\n{title}\n\nBody:\n{body}", {"body": "B"}, "Body:\nB"),
        ("Title:\n{title}\n\nBody:\n{body}", {"title": "T"}, "Title:\nT"),
        ("{a}\n\n{b}\n\n{c}", {"a": "A", "c": "C"}, "A\n\nC"),
        ("A page of a book.\n{a}\n{b}", {"b": "B"}, "A page of a book.\nB"),
    ],
)
def test_a_field_without_text_is_left_out_with_what_belongs_to_it(template, fields, text):
    """Its label, its brackets, its line; the rest stays as it is."""
    assert PayloadText(template)(fields) == text
    everything = dict.fromkeys(PayloadText(template).fields, " ") | fields
    assert PayloadText(template)(everything) == text


@given(st.lists(st.tuples(LITERALS, LETTERS), min_size=1, max_size=5), LITERALS)
def test_with_all_fields_a_template_is_filled_in_as_it_is(parts, rest):
    """Not a character of the words between the fields changes."""
    fields = {f"f{place}": text for place, (_, text) in enumerate(parts)}
    written = "".join(
        escaped(literal) + f"{{f{place}}}" for place, (literal, _) in enumerate(parts)
    )
    filled = "".join(literal + text for literal, text in parts) + rest
    assert Template(written + escaped(rest)).fill(fields) == filled


@given(st.lists(st.tuples(LITERALS, LETTERS), min_size=1, max_size=5), LITERALS, st.data())
def test_what_is_left_is_in_the_text_and_what_is_missing_adds_nothing(parts, rest, data):
    """Whatever the words between the fields are, and whatever is missing."""
    names = [f"f{place}" for place in range(len(parts))]
    kept = data.draw(st.sets(st.sampled_from(names)))
    fields = {name: text for name, (_, text) in zip(names, parts, strict=True) if name in kept}
    written = "".join(
        escaped(literal) + f"{{{name}}}" for name, (literal, _) in zip(names, parts, strict=True)
    )
    text = Template(written + escaped(rest)).fill(fields)
    if not fields:
        assert text is None
        return
    place = 0
    for name in names:
        if name in fields:
            place = text.index(fields[name], place) + len(fields[name])
    literals = "".join(literal for literal, _ in parts) + rest
    assert len(text) <= len(literals) + sum(map(len, fields.values()))


def test_numbers_alone_are_no_text_where_others_are_missing():
    """A page must not be ordered by years because the name of its text is wrong."""
    assert PayloadText("{titel} ({year})")({"title": "T", "year": 1999}) is None
    assert PayloadText("{year}")({"year": 1999}) == "1999"
    assert PayloadText("{title}\n{body}")({"title": " ", "body": None}) is None


def test_each_field_is_named_once():
    """For the request that fetches them."""
    assert Template("{a}: {b} {a}").fields == ("a", "b")


def escaped(literal):
    """A literal as a template has it."""
    return literal.replace("{", "{{").replace("}", "}}")
