"""Results: JSON, tables, and what a notebook shows."""

import copy
import json
import pickle

import numpy as np
import pytest
from pydantic import TypeAdapter
from qdrant_client.models import Record, ScoredPoint

from qdrant_rerank import (
    GroupedResults,
    RerankedGroup,
    RerankedPoint,
    SearchResults,
    SearchTrace,
    Snippet,
)
from qdrant_rerank.reranking.ordering import order_by_score
from qdrant_rerank.types import UNSCORED


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
    """A hit that was not scored has a score that JSON can hold, below all others."""
    rows = json.loads(json.dumps(results.to_dicts(), allow_nan=False))
    assert [row["id"] for row in rows] == [2, 1, 3]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert rows[2] == {
        "rank": 3,
        "id": 3,
        "score": UNSCORED,
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


@pytest.fixture
def groups(results):
    """Two groups of these hits, one of them with the point of its own."""
    made = [
        RerankedGroup(id="a", hits=results[:2], lookup=Record(id=7, payload={"title": "A"})),
        RerankedGroup(id=5, hits=results[2:]),
    ]
    return GroupedResults(made, query="<script>", trace=results.trace)


def test_a_part_of_the_results_is_results(results, groups):
    """With the query and the trace, so that it has the same tables."""
    for found in (results, groups):
        part = found[:1]
        assert type(part) is type(found)
        assert (part.query, part.trace) == (found.query, found.trace)
        assert list(part) == [found[0]]
        assert len(found[::-1]) == len(found)
        assert part.to_dicts() == found.to_dicts()[:1]
    assert len(results[1:].to_pandas()) == 2
    assert pickle.loads(pickle.dumps(results[:2])).query == "<script>"
    assert copy.deepcopy(groups).to_dicts() == groups.to_dicts()


def test_groups_have_dicts_a_data_frame_and_a_table(groups):
    """Plain JSON by group; one row per hit in the tables."""
    rows = json.loads(json.dumps(groups.to_dicts(), allow_nan=False))
    assert [(row["rank"], row["id"], len(row["hits"])) for row in rows] == [(1, "a", 2), (2, 5, 1)]
    assert rows[0]["lookup"]["payload"] == {"title": "A"}
    assert rows[1]["lookup"] is None
    frame = groups.to_pandas()
    assert frame["group"].tolist() == ["a", "a", 5]
    assert frame["id"].tolist() == [2, 1, 3]
    shown = groups._repr_html_()
    assert shown.count("<tr>") == 4
    assert "<th>group</th>" in shown
    assert "<script>" not in shown


def test_printed_results_have_one_line_per_hit(results, groups):
    """Below a line with the query; nothing in a payload drives the terminal."""
    results[0].payload["text"] = "\x1b[2J\r\nred " * 400
    for found in (results, groups):
        head, *lines = str(found).splitlines()
        assert "'<script>'" in head
        assert len(lines) == 3
        assert max(map(len, lines)) < 120
        assert "\x1b" not in str(found)
    assert [line.split()[3:5] for line in str(results).splitlines()[1:]] == [
        ["0.200", "2"],
        ["0.100", "1"],
        ["-", "3"],
    ]
    results[1].payload["when"] = object()  # JSON has no such thing, but a program may
    assert len(str(results).splitlines()) == len(str(groups).splitlines()) == 4
    assert "object" in results._repr_html_()
    empty = SearchResults([], query="q", trace=SearchTrace())
    assert str(empty) == "SearchResults('q', 0 hits)"


def test_an_unscored_hit_survives_json_in_every_way(results, groups):
    """As pydantic, FastAPI and json write it, and as it is read back."""
    last = results[-1]
    assert last.rerank_score is None
    assert last.score < min(hit.score for hit in results[:-1])
    for hit in results:
        text = json.dumps(hit.model_dump(mode="json"), allow_nan=False)
        assert RerankedPoint.model_validate_json(text) == hit
        assert RerankedPoint.model_validate_json(hit.model_dump_json()) == hit
        assert ScoredPoint.model_validate_json(hit.model_dump_json()).score == hit.score
    for group in groups:
        text = json.dumps(group.model_dump(mode="json"), allow_nan=False)
        assert RerankedGroup.model_validate_json(text) == group
    written = TypeAdapter(list[RerankedPoint]).dump_json(results)
    assert TypeAdapter(list[RerankedPoint]).validate_json(written) == results
    assert np.isfinite(results.to_pandas()["score"].astype(np.float32)).all()
