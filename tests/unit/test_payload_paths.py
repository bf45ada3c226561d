"""Payload fields as Qdrant's paths, and what Qdrant returns for them."""

from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.payload import PayloadText, field_paths, require_path, whole_field
from qdrant_rerank.qdrant.embedded.client import EdgeClient
from qdrant_rerank.qdrant.lookups import completed, text_payload
from qdrant_rerank.reranking.ordering import keep_order

NAMES = st.sampled_from(["title", "a.b", "full text", "größe", 'a"b', "a[0]", "a", "b", "x-y_1"])
PAYLOADS = st.recursive(
    st.sampled_from(["iron", "", 7]),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)


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
