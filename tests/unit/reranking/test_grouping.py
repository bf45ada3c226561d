"""Groups of chunks, and what Qdrant does with the same payloads."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from qdrant_rerank.reranking.grouping import GroupedResults, group_points
from qdrant_rerank.reranking.ordering import keep_order
from qdrant_rerank.types import SearchTrace

VALUES = st.one_of(
    st.integers(-2, 3),
    st.sampled_from(["a", "b", ""]),
    st.booleans(),
    st.none(),
    st.floats(0, 1),
    st.lists(st.one_of(st.integers(0, 2), st.sampled_from(["a", "c"]), st.none()), max_size=3),
)
PAYLOADS = st.lists(
    st.one_of(
        st.just({}),
        st.just(None),
        VALUES.map(lambda value: {"doc": value}),
        VALUES.map(lambda value: {"nested": {"doc": value}}),
    ),
    min_size=1,
    max_size=6,
)


def chunks(payloads):
    """Points in this order."""
    return keep_order(
        [
            models.ScoredPoint(id=row, version=0, score=1 - row / 100, payload=payload)
            for row, payload in enumerate(payloads)
        ]
    )


@pytest.mark.filterwarnings("ignore:None of the .* hits has a whole number")
@settings(max_examples=30, deadline=None)
@given(
    payloads=PAYLOADS,
    path=st.sampled_from(["doc", "nested.doc"]),
    size=st.integers(1, 3),
    limit=st.integers(1, 4),
)
def test_groups_are_those_of_qdrant(payloads, path, size, limit):
    """Same groups, hits and order as query_points_groups, missing and odd keys included."""
    client = QdrantClient(":memory:")
    client.create_collection(
        "docs", vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT)
    )
    client.upsert(
        "docs",
        [
            models.PointStruct(id=row, vector=[1 - row / 100, 0.0], payload=payload)
            for row, payload in enumerate(payloads)
        ],
    )
    theirs = client.query_points_groups(
        "docs", group_by=path, query=[1.0, 0.0], group_size=size, limit=limit
    ).groups
    ours = group_points(chunks(payloads), path, group_size=size, limit=limit)
    assert [(group.id, [hit.id for hit in group.hits]) for group in ours] == [
        (group.id, [hit.id for hit in group.hits]) for group in theirs
    ]
    client.close()


def test_groups_stand_in_the_order_of_their_best_chunks():
    """And a chunk of two groups is in both."""
    found = group_points(
        chunks([{"doc": "b"}, {"doc": "a"}, {"doc": ["b", "c"]}, {"doc": "b"}]), "doc", group_size=2
    )
    assert [(group.id, [hit.id for hit in group.hits]) for group in found] == [
        ("b", [0, 2]),
        ("a", [1]),
        ("c", [2]),
    ]
    assert all(isinstance(group, models.PointGroup) for group in found)
    assert [hit.retrieval_rank for hit in found[0].hits] == [1, 3]
    results = GroupedResults(found, query="q", trace=SearchTrace())
    assert results.groups == found
    assert "3 groups" in repr(results)


def test_a_field_that_no_chunk_has_is_said():
    """With its name; no chunks at all are no reason to."""
    with pytest.warns(UserWarning, match="None of the 2 hits has .* group_by='dco'"):
        assert group_points(chunks([{"doc": "b"}, None]), "dco", group_size=2) == []
    assert group_points([], "dco", group_size=2) == []
