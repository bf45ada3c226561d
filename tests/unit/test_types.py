"""Results: JSON, tables, and what a notebook shows."""

import json

import numpy as np
import pytest
from qdrant_client.models import ScoredPoint

from qdrant_rerank import RerankedPoint, SearchResults, SearchTrace, Snippet
from qdrant_rerank.reranking.ordering import order_by_score


@pytest.fixture
def results():
    """Two scored hits and one without text."""
    points = [
        ScoredPoint(id=1, version=0, score=0.9, payload={"text": "<b>bold</b>", "n": 1}),
        ScoredPoint(id=2, version=0, score=0.8, payload={"text": "x" * 500, "tags": ["a"]}),
        ScoredPoint(id=3, version=0, score=0.7, payload=None, vector={"dense": [1.0]}),
    ]
    scores = np.array([0.1, 0.2], dtype=np.float32)
    ordered = order_by_score(points, [0, 1], scores, keep_unscored=True)
    return SearchResults(ordered, query="<script>", trace=SearchTrace(candidates=3))


def test_dicts_are_plain_json(results):
    """Nothing is lost but minus infinity, which JSON has not."""
    rows = json.loads(json.dumps(results.to_dicts(), allow_nan=False))
    assert [row["id"] for row in rows] == [2, 1, 3]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert rows[2] == {
        "rank": 3,
        "id": 3,
        "score": None,
        "payload": None,
        "vector": {"dense": [1.0]},
        "rerank_score": None,
        "retrieval_score": 0.7,
        "retrieval_rank": 3,
    }


def test_a_data_frame_has_a_column_a_payload_field(results):
    """In result order; empty results keep the columns."""
    frame = results.to_pandas()
    assert frame["id"].tolist() == [2, 1, 3]
    assert frame["payload.n"].tolist()[1] == 1
    empty = SearchResults([], query="q", trace=SearchTrace()).to_pandas()
    assert list(empty.columns) == list(frame.columns)[:6]


def test_a_snippet_survives_json_and_has_columns():
    """With its place in the payload."""
    hit = ScoredPoint(id=1, version=0, score=0.9, payload={"body": "a <b> c"})
    snippet = Snippet("<b>", 2, 5, "body")
    [point] = order_by_score(
        [hit], [0], np.ones(1, dtype=np.float32), keep_unscored=True, snippets={0: snippet}
    )
    assert RerankedPoint.model_validate_json(point.model_dump_json()) == point
    results = SearchResults([point], query="q", trace=SearchTrace())
    assert json.loads(json.dumps(results.to_dicts()))[0]["snippet"] == {
        "text": "<b>",
        "start": 2,
        "end": 5,
        "field": "body",
    }
    assert results.to_pandas()["snippet.text"].tolist() == ["<b>"]
    assert "<mark>&lt;b&gt;</mark>" in results._repr_html_()


def test_html_escapes_query_and_payload(results):
    """A notebook runs no code of a document's."""
    shown = results._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "<b>bold" not in shown
    assert "&lt;b&gt;bold" in shown
    assert "▲1" in shown
    assert "▼1" in shown
    assert "x" * 201 not in shown


def test_results_are_a_list_and_points_are_scored_points(results):
    """Old code keeps working."""
    assert isinstance(results, list)
    assert results[:1] == [results[0]]
    assert isinstance(results[0], ScoredPoint)
    copy = RerankedPoint.model_validate_json(results[0].model_dump_json())
    assert copy == results[0]
    assert "3 hits" in repr(results)
