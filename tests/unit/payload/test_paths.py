"""Paths into payloads, against qdrant-client's own and against what engines do with them."""

from contextlib import closing

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models
from qdrant_client.local.payload_value_extractor import value_by_key

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.payload import PayloadText, field_paths, require_path, whole_field
from qdrant_rerank.payload.paths import parse_path, path_of, strings, values_at
from qdrant_rerank.qdrant.embedded.client import EdgeClient
from qdrant_rerank.qdrant.lookups import completed, text_payload
from qdrant_rerank.reranking.ordering import keep_order

NAMES = st.sampled_from(
    ["title", "a.b", "full text", "größe", 'a"b', "a[0]", "a[].b", "a", "b", "x-y_1"]
)
PAYLOADS = st.recursive(
    st.sampled_from(["iron", "", 7]),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)
WORDS = ["iron", "bread", "copper"]
#: What Qdrant reads without quotes, and what it needs quotes for.
PLAIN_KEYS = st.sampled_from(["a", "b", "x-y_1"])
KEYS = PLAIN_KEYS | st.sampled_from(["a.b", "full text", "b[0]"])
STEPS = st.lists(KEYS, min_size=1, max_size=1).flatmap(
    lambda first: st.lists(KEYS | st.integers(0, 2) | st.none(), max_size=4).map(
        lambda rest: first + rest
    )
)
VALUES = st.recursive(
    st.sampled_from([*WORDS, "", 7, True, None]),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=12,
)


@given(steps=STEPS, payload=st.dictionaries(KEYS, VALUES, max_size=4))
@example(steps=["a", "b"], payload={"a.b": "iron"})
def test_a_path_leads_to_the_values_that_qdrant_clients_own_leads_to(steps, payload):
    """Keys, quoted keys, one item and every item; a list at the end counts as its items.

    What is ours: a field whose own name is the path comes first.
    """
    path = path_of(steps)
    if path in payload:
        named = payload[path]
        expected = named if isinstance(named, list) else [named]
    else:
        expected = value_by_key(payload, path) or []
    assert values_at(payload, path) == expected
    assert parse_path(path) == tuple(steps)


@given(st.text(alphabet='ab.[]0"-', max_size=8))
def test_every_path_of_qdrant_clients_is_one_and_means_the_same(path):
    """What its parser takes, ours takes; what is no path is only the name of a field."""
    payload = {"a": [{"b": "iron"}, "bread"], "b": {"a-": ["copper"]}, "0": {"": 1}, "": 2}
    try:
        expected = value_by_key(payload, path) or []
    except ValueError:
        assert parse_path(path) is None or values_at({path: "iron"}, path) == ["iron"]
        return
    assert values_at(payload, path) == expected


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


@settings(max_examples=60, deadline=None)
@given(
    steps=STEPS,
    payload=st.dictionaries(KEYS, VALUES, max_size=4),
)
def test_a_filter_finds_the_texts_that_a_path_reads(engine, steps, payload):
    """By the same path, in a condition of the engine."""
    path = path_of(steps)
    engine.upsert("points", [models.PointStruct(id=1, vector={}, payload=payload)])
    found = {
        word
        for word in WORDS
        if engine.count(
            "points",
            count_filter=models.Filter(
                must=[models.FieldCondition(key=path, match=models.MatchValue(value=word))]
            ),
        ).count
    }
    assert found == set(strings(values_at(payload, path)))


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, payload=st.dictionaries(KEYS, VALUES, max_size=4))
def test_what_is_fetched_for_a_path_holds_its_text(engine, steps, payload):
    """Lists are fetched whole, since Qdrant does not select by an index."""
    text = PayloadText([path_of(steps)])
    engine.upsert("points", [models.PointStruct(id=1, vector={}, payload=payload)])
    [found] = engine.retrieve("points", [1], with_payload=text_payload(text))
    assert text(found.payload) == text(payload)


@pytest.mark.parametrize(
    ("path", "texts"),
    [
        ("chunks[].text", ["one", "two"]),
        ("chunks[1].text", ["two"]),
        ("chunks[7].text", []),
        ("chunks.text", []),
        ('"a.b".c', ["quoted"]),
        ("a.b", ["name"]),
        ("tags", ["x", "y"]),
        ("tags[]", ["x", "y"]),
        ("full text", ["spaces"]),
        ("a..b", []),
        ("chunks[", []),
        ("chunks[18446744073709551616]", []),
    ],
)
def test_paths_are_as_in_qdrants_filters(path, texts):
    """A name with dots comes first, unless it is quoted; a name with spaces needs no quotes."""
    payload = {
        "chunks": [{"text": "one"}, {"text": "two"}],
        "a.b": "name",
        "a": {"b": "nested"},
        "tags": ["x", 3, "y", " "],
        "full text": "spaces",
    }
    payload["a.b"] = {"c": "quoted"} if '"' in path else "name"
    assert strings(values_at(payload, path)) == texts


def test_a_key_that_cannot_be_quoted_has_no_path():
    """Qdrant has no escapes."""
    assert path_of(['a"b']) is None
    assert path_of(["a\\b", "c"]) is None
    assert path_of(["full text", None, 0, "a"]) == '"full text"[][0].a'


def test_what_is_asked_for_is_cut_before_its_first_index():
    """And a field whose own name is the path may be meant, unless there are quotes."""
    assert field_paths(["chunks[0].text"]) == ["chunks", '"chunks[0].text"']
    assert field_paths(['"a.b".c']) == ['"a.b".c']
    assert field_paths(["a", "a"]) == ["a"]


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
