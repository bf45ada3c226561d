"""Plans and requests, without an engine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import models

from qdrant_rerank import Bm25Encoder, QdrantInference, SearchOptions, StaticEmbedder, TextIndex
from qdrant_rerank.errors import InvalidInputError, SchemaMismatchError
from qdrant_rerank.qdrant.recall_plan import RecallPlan, plan_recall
from qdrant_rerank.qdrant.recall_request import (
    RecallQuery,
    Scope,
    given_request,
    prefetches_of,
    recall_request,
)
from qdrant_rerank.qdrant.schema import Branch, CollectionSchema
from tests.releases import CLIENT

ONLY = models.Filter(must=[models.HasIdCondition(has_id=[1])])
DENSE = np.array([0.5, 0.25], dtype=np.float32)
SPARSE = models.SparseVector(indices=[3], values=[1.0])
NO_TERMS = models.SparseVector(indices=[], values=[])
BRANCHES = st.tuples(st.integers(0, 3), st.integers(0, 3)).filter(any)


def schema(**dense):
    """Dense vectors of these sizes, and two sparse ones."""
    return CollectionSchema(
        "docs",
        {n: models.VectorParams(size=s, distance=models.Distance.COSINE) for n, s in dense.items()},
        {n: models.SparseVectorParams(modifier=models.Modifier.IDF) for n in ("title", "body")},
    )


def plan(dense, sparse):
    """So many branches of each kind."""
    return RecallPlan(
        (
            *(Branch(f"d{i}", dense=True, dimension=2) for i in range(dense)),
            *(Branch(f"s{i}", dense=False) for i in range(sparse)),
        )
    )


@given(
    kinds=BRANCHES,
    terms=st.booleans(),
    filtered=st.booleans(),
    counts=st.tuples(st.none() | st.integers(1, 50), st.none() | st.integers(1, 50)),
    weighted=st.booleans() if CLIENT >= (1, 17) else st.just(False),
)
def test_each_branch_keeps_its_count_weight_and_filter(kinds, terms, filtered, counts, weighted):
    """However many of each kind, and whether the query has terms or not."""
    dense, sparse = kinds
    weights = [float(place + 1) for place in range(dense + sparse)]
    options = SearchOptions(
        fusion=models.Rrf(weights=weights) if weighted else "rrf",
        dense_candidates=counts[0],
        sparse_candidates=counts[1],
    )
    scope = Scope(limit=5, candidates=20, query_filter=ONLY if filtered else None)
    query = RecallQuery(DENSE, SPARSE if terms else NO_TERMS)
    request = recall_request(plan(dense, sparse), query, scope, options)
    left = sparse if terms or not dense else 0
    if dense + left == 1:
        assert request.prefetch is None
        assert request.using == ("d0" if dense else "s0")
        assert request.filter == scope.query_filter
        return
    names = [f"d{i}" for i in range(dense)] + [f"s{i}" for i in range(left)]
    assert [branch.using for branch in request.prefetch] == names
    assert [branch.limit for branch in request.prefetch] == (
        [counts[0] or 20] * dense + [counts[1] or 20] * left
    )
    assert all(branch.filter == scope.query_filter for branch in request.prefetch)
    assert request.filter is None
    if weighted:
        assert request.query.rrf.weights == weights[: len(names)]
    else:
        assert request.query.fusion == models.Fusion.RRF


def test_a_callers_request_is_not_changed():
    """It may be sent again."""
    ready = models.QueryRequest(query=[1.0], offset=2)
    prefetch = models.Prefetch(query=[1.0])
    scope = Scope(limit=3, offset=4, candidates=3, query_filter=ONLY, with_payload=["text"])
    sent = given_request(ready, None, None, scope, SearchOptions())
    assert (sent.limit, sent.offset, sent.with_payload) == (3, 6, ["text"])
    assert ready == models.QueryRequest(query=[1.0], offset=2)
    given_request(None, [prefetch], None, scope, SearchOptions())
    assert prefetch.filter is None


@pytest.mark.parametrize("wrong", [[], [3], "text", models.QueryRequest(query=[1.0])])
def test_what_is_no_prefetch_is_refused(wrong):
    """With what it is."""
    with pytest.raises(InvalidInputError, match=r"prefetch (holds a|is empty)"):
        prefetches_of(wrong)


def test_names_are_searched_in_the_order_given():
    """Dense ones first; unknown ones, and those of another size, are named."""
    embedder = StaticEmbedder.bundled()
    found = plan_recall(
        schema(a=256, b=256, c=3),
        embedder,
        Bm25Encoder(),
        dense_vector=["b", "a"],
        sparse_vector=["title", "body"],
    )
    assert [branch.using for branch in found.branches] == ["b", "a", "title", "body"]
    assert (found.dense, found.dimension, found.sparse) == ("b", 256, "title")
    for names, seen in ((["a", "x"], "no dense vector 'x'"), (["a", "c"], "that filled 'c'")):
        with pytest.raises(SchemaMismatchError, match=seen):
            plan_recall(schema(a=256, c=3), embedder, None, dense_vector=names)
    with pytest.raises(SchemaMismatchError, match="no sparse vector 'x'"):
        plan_recall(schema(), None, Bm25Encoder(), sparse_vector=["title", "x"])


def test_a_model_of_qdrants_needs_no_size():
    """The only dense vector is its; of several it must be told which."""
    model = QdrantInference("a/model")
    assert plan_recall(schema(a=3), model, None).dense == "a"
    assert plan_recall(schema(a=3, b=4), QdrantInference("m", dimension=4), None).dense == "b"
    with pytest.raises(SchemaMismatchError, match="gives dense vectors, which fits 2"):
        plan_recall(schema(a=3, b=4), model, None)


def test_a_multivector_is_searched_only_by_name():
    """A dense embedder's vector fits it, but need not mean the same."""
    comparator = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    rows = models.VectorParams(
        size=4, distance=models.Distance.COSINE, multivector_config=comparator
    )
    multi = CollectionSchema("docs", {"rows": rows}, {})
    model = QdrantInference("m", dimension=4)
    with pytest.raises(SchemaMismatchError, match="name it: SearchOptions\\(dense_vector='rows'"):
        plan_recall(multi, model, None)
    [branch] = plan_recall(multi, model, None, dense_vector="rows").branches
    assert branch.multivector


def test_a_text_index_is_no_sparse_vector():
    """So add fills none for it."""
    found = plan_recall(schema(a=3), QdrantInference("m"), TextIndex("body"))
    assert found.sparse is None
    assert str(found.branches[-1]) == "text index 'body'"
    scored = CollectionSchema("docs", {}, {}, indexed=frozenset("ab"), scored=frozenset("a"))
    assert plan_recall(scored, None, TextIndex("a")).branches[0].using == "a"
    with pytest.raises(SchemaMismatchError, match="create_payload_index"):
        plan_recall(scored, None, TextIndex("b"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: QdrantInference(""),
        lambda: QdrantInference(None),
        lambda: TextIndex(" "),
        lambda: TextIndex("a", k=-1),
        lambda: TextIndex("a", b=2),
    ],
)
def test_wrong_encoders_are_refused_when_made(make):
    """With what was expected."""
    with pytest.raises(InvalidInputError, match="expected"):
        make()
