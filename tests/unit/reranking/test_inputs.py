"""What ``rerank_points`` takes: the shapes of points, dicts, pairs and frameworks' objects."""

import json
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np
import pytest
from qdrant_client.http.models import QueryResponse
from qdrant_client.models import Record, ScoredPoint

from qdrant_rerank import rerank_points
from qdrant_rerank.errors import InvalidInputError, MissingTextError
from qdrant_rerank.reranking.inputs import as_points

META = {"source": "metals.txt", "_id": "of the metadata"}


class Longest:
    """Longer is better."""

    def rerank(self, query, documents):
        """Their lengths."""
        return [float(len(document)) for document in documents]


@dataclass
class Document:
    """As LangChain's."""

    page_content: str
    metadata: dict = field(default_factory=dict)
    id: str | None = None


@dataclass
class HaystackDocument:
    """As Haystack's."""

    content: str | None
    meta: dict = field(default_factory=dict)
    id: str = "hash"
    score: float | None = None


@dataclass
class TextNode:
    """As LlamaIndex's; its content may hold metadata."""

    text: str
    metadata: dict = field(default_factory=dict)
    node_id: str = "node"

    def get_content(self, metadata_mode="all"):
        """Metadata and text."""
        return f"{self.metadata}\n{self.text}"


@dataclass
class Resource:
    """Of a LlamaIndex ``Node``."""

    text: str | None


@dataclass
class Node:
    """As LlamaIndex's of that name: the text is in a resource."""

    text_resource: Resource | None
    metadata: dict = field(default_factory=dict)
    node_id: str = "node"

    def get_content(self, metadata_mode="all"):
        """The text alone, if there is one."""
        return f"content of {self.node_id}"


@dataclass
class NodeWithScore:
    """As LlamaIndex's."""

    node: object
    score: float | None = None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (ScoredPoint(id=5, version=3, score=0.5, payload={"a": "iron"}), (5, 0.5, {"a": "iron"})),
        (Record(id="x", payload={"a": "iron"}), ("x", 0.0, {"a": "iron"})),
        (Record(id=4), (4, 0.0, None)),
        ({"id": 7, "payload": {"a": "iron"}, "score": 0.25}, (7, 0.25, {"a": "iron"})),
        ({"payload": {"a": "iron"}, "score": None}, (0, 0.0, {"a": "iron"})),
        ({"id": 7, "payload": None, "score": 0.25}, (7, 0.25, None)),
        ({"a": "iron"}, (0, 0.0, {"a": "iron"})),
        ({"id": 7, "text": "iron", "meta": {}}, (7, 0.0, {"id": 7, "text": "iron", "meta": {}})),
        ({"_id": "d", "text": "iron"}, ("d", 0.0, {"_id": "d", "text": "iron"})),
        ({"_id": True, "payload": "iron"}, (0, 0.0, {"_id": True, "payload": "iron"})),
        ((3, "iron"), (3, 0.0, {"text": "iron"})),
        (("doc", "iron"), ("doc", 0.0, {"text": "iron"})),
        ((np.int64(3), "iron"), (3, 0.0, {"text": "iron"})),
        ((UUID(int=3), "iron"), (str(UUID(int=3)), 0.0, {"text": "iron"})),
        (
            Document("iron", META, "own"),
            ("own", 0.0, {"page_content": "iron", "metadata": META}),
        ),
        (
            Document("iron", META),
            ("of the metadata", 0.0, {"page_content": "iron", "metadata": META}),
        ),
        (Document("iron"), (0, 0.0, {"page_content": "iron", "metadata": {}})),
        (
            HaystackDocument("iron", META, score=0.5),
            ("hash", 0.5, {"content": "iron", "meta": META}),
        ),
        (HaystackDocument(None), ("hash", 0.0, {"content": None, "meta": {}})),
        (TextNode("iron", META), ("node", 0.0, {"text": "iron", "metadata": META})),
        (Node(Resource("iron")), ("node", 0.0, {"text": "iron", "metadata": {}})),
        (Node(Resource(None)), ("node", 0.0, {"text": "content of node", "metadata": {}})),
        (
            NodeWithScore(TextNode("iron", META), 0.75),
            ("node", 0.75, {"text": "iron", "metadata": META}),
        ),
        (NodeWithScore(Node(Resource("iron"))), ("node", 0.0, {"text": "iron", "metadata": {}})),
    ],
)
def test_each_shape_becomes_a_point(given, expected):
    """With its id, its score and its metadata."""
    [point] = as_points([given])
    assert (point.id, point.score, point.payload) == expected


def test_vectors_of_records_and_dicts_stay():
    """For what is done with the hits afterwards."""
    point = {"id": 1, "payload": {}, "vector": [1.0, 2.0]}
    for given in (Record(**point), point):
        assert as_points([given])[0].vector == [1.0, 2.0]


def test_results_that_were_stored_as_dicts_are_points_again():
    """With the ids, the scores and the payloads that ``to_dicts`` wrote."""
    hits = [ScoredPoint(id=n, version=0, score=0.5, payload={"a": "b" * n}) for n in (5, 3)]
    found = rerank_points("q", hits, reranker=Longest(), text="a")
    again = as_points(json.loads(json.dumps(found.to_dicts())))
    assert [(hit.id, hit.score, hit.payload) for hit in again] == [
        (hit.id, hit.score, hit.payload) for hit in found
    ]


def test_a_response_and_an_iterator_are_several():
    """Each hit once, in order."""
    points = [ScoredPoint(id=n, version=0, score=0.0) for n in range(3)]
    assert as_points(QueryResponse(points=points)) == points
    assert as_points(iter(points)) == points


@pytest.mark.parametrize(
    "make",
    [
        lambda n, text: (n, text),
        lambda n, text: {"id": n, "text": text},
        lambda n, text: {"body": text},
        lambda n, text: {"id": n, "payload": {"page_content": text}},
        lambda n, text: Record(id=n, payload={"document": text}),
        lambda n, text: Document(text, META, str(n)),
        lambda n, text: TextNode(text, META, str(n)),
        lambda n, text: NodeWithScore(TextNode(text, META, str(n)), 1 / (n + 1)),
        lambda n, text: NodeWithScore(Node(Resource(text), META, str(n))),
    ],
)
def test_hits_of_each_shape_are_reranked_by_their_text(make):
    """Found by itself; the retrieval rank is the place in what was given."""
    texts = ["iron", "bread and butter", "copper ore"]
    found = rerank_points("q", [make(n, t) for n, t in enumerate(texts)], reranker=Longest())
    assert [hit.retrieval_rank for hit in found] == [2, 3, 1]
    assert [hit.rerank_score for hit in found] == [16.0, 10.0, 4.0]
    assert [int(hit.id) for hit in found] == [1, 2, 0]
    assert found.trace.status == "reranked"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a text"], "points holds a str at 0; expected ScoredPoints, .* LlamaIndex nodes"),
        ([(1, "iron"), 3], "points holds an int at 1"),
        ([(1.5, "iron")], r"Pair 0 of points has the id 1.5; expected \(id, text\)"),
        ([(True, "iron")], "Pair 0 of points has the id True"),
        ([(Document("iron"), 0.5)], "Of .document, score. pairs, pass the documents"),
        (([Record(id=1)], None), "What scroll.* returns is .*: pass the records"),
        ([object()], "points holds an object"),
        ([{1: "iron"}], r"at 0 a point whose payload.*valid string.*keys of the payload"),
        ([{"payload": {}, "vector": "iron"}], "at 0 a point whose vector.* is wrong"),
        ("iron", "points is one str; expected several"),
        ({"text": "iron"}, "points is one dict; expected several"),
    ],
)
def test_what_is_no_hit_is_named(given, message):
    """With what may be given."""
    with pytest.raises(InvalidInputError, match=message):
        rerank_points("q", given, reranker=Longest())


def test_what_has_no_text_is_an_error_or_a_status():
    """An error if it had to be found; else the page says that nothing was scored."""
    bare = [Record(id=1, payload={"n": 1})]
    with pytest.raises(MissingTextError, match="text='auto' found no text"):
        rerank_points("q", bare, reranker=Longest())
    with pytest.warns(UserWarning, match="None of the 1 hits has text"):
        found = rerank_points("q", bare, reranker=Longest(), text="body")
    assert (found.trace.status, found.trace.missing_text, found.trace.text) == (
        "no text",
        1,
        "body",
    )
    assert rerank_points("q", [], reranker=Longest()).trace.status == "no candidates"
    some = [*bare, Record(id=2, payload={"body": "iron"})]
    trace = rerank_points("q", some, reranker=Longest(), text="body").trace
    assert (trace.status, trace.missing_text, trace.pairs) == ("reranked", 1, 1)
