"""What doctor says about a server and a collection: seen, wrong, and how to fix it."""

import pytest
from qdrant_client import models

from qdrant_rerank import Bm25Encoder, QdrantInference
from qdrant_rerank.cli.doctor_server import (
    check_average_length,
    check_collection,
    check_filters,
    check_schema,
    check_strict_mode,
    check_texts,
    check_versions,
    list_collections,
)
from qdrant_rerank.payload import TextChoice
from qdrant_rerank.qdrant.embedded.config import full_config
from qdrant_rerank.qdrant.schema import CollectionSchema


def info(**changed):
    """A healthy collection."""
    config = full_config(
        None, None, hnsw=None, optimizers=None, quantization=None, metadata=None, params={}
    )
    told = {
        "status": "green",
        "optimizer_status": "ok",
        "segments_count": 1,
        "points_count": 100,
        "indexed_vectors_count": 100,
        "payload_schema": {},
        "config": config,
    }
    return models.CollectionInfo(**{**told, **changed})


def schema(**changed):
    """The vectors of a collection that add made."""
    told = {
        "collection": "docs",
        "dense": {"dense": models.VectorParams(size=4, distance="Cosine")},
        "sparse": {"bm25": models.SparseVectorParams(modifier="idf")},
        "embedder": "one",
    }
    return CollectionSchema(**{**told, **changed})


def wrong(findings):
    """What is wrong, and how to fix it."""
    return [(finding.seen, finding.fix) for finding in findings if finding.wrong]


def test_a_healthy_collection_has_nothing_wrong():
    """And says how large it is."""
    [found] = check_collection(info(), embedded=False)
    assert (found.wrong, found.seen) == (False, "100 points, status green.")


@pytest.mark.parametrize(
    ("changed", "embedded", "seen"),
    [
        ({"points_count": 0}, False, "no points"),
        ({"status": "red"}, False, "Status red"),
        ({"optimizer_status": {"error": "out of disk"}}, False, "out of disk"),
        ({"points_count": 50_000, "indexed_vectors_count": 0}, False, "reads all of them"),
        ({"points_count": 50_000, "indexed_vectors_count": 0}, True, None),
    ],
)
def test_a_sick_collection_is_told(changed, embedded, seen):
    """With how to fix it; an embedded engine needs no graph."""
    found = wrong(check_collection(info(**changed), embedded=embedded))
    if seen is None:
        assert found == []
    else:
        assert seen in found[0][0]
        assert found[0][1]


def test_vectors_that_do_not_fit_are_wrong_and_others_a_remark():
    """Encoders, the recorded name, BM25 without IDF."""
    assert wrong(check_schema(schema(), None)) == []
    assert wrong(check_schema(schema(), "of another size"))[0][0] == "of another size"
    odd = schema(embedder=None, sparse={"splade": models.SparseVectorParams()})
    remarks = [finding.seen for finding in check_schema(odd, None) if finding.fix]
    assert "no record of the embedder" in remarks[0]
    assert "'splade'" in remarks[1]


def test_texts_that_are_missing_are_counted():
    """Wrong from one in twenty; what the others have is named."""
    text = TextChoice("text")
    assert wrong(check_texts([{"text": "a"}] * 9, text)) == []
    few = check_texts([{"text": "a"}] * 99 + [{"body": "b"}], text)
    assert wrong(few) == []
    [(seen, fix)] = wrong(check_texts([{"text": "a"}, {"body": "b"}, None], text))
    assert "1 of 3 sampled points have text at 'text'" in seen
    assert "'body'" in seen
    assert "--text" in fix
    assert list(check_texts([], text)) == []


def test_what_was_found_by_itself_is_named():
    """And what keeps the texts from being found."""
    [found] = check_texts([{"page_content": "a"}] * 9, TextChoice("auto"))
    assert not found.wrong
    assert "at 'page_content', which was found by itself" in found.seen
    [(seen, fix)] = wrong(check_texts([{"n": 1, "url": "a.b"}], TextChoice("auto")))
    assert "text='auto' found no text in 1 payloads, which have ['n', 'url']" in seen
    assert "--text (in Python: text=...): 'url'." in fix


def test_filters_need_a_field_and_an_index():
    """The type of the index is that of the values."""
    payloads = [{"year": 1999, "a": {"b": "x"}, "price": 1.5, "ok": True, "tags": ["t"]}]
    indexed = schema(indexed=frozenset({"year"}))
    assert wrong(check_filters(["year"], indexed, payloads, indexes=True)) == []
    kinds = {"price": "float", "ok": "bool", "a.b": "keyword", "tags[]": "keyword"}
    for name, kind in kinds.items():
        [(_, fix)] = wrong(check_filters([name], indexed, payloads, indexes=True))
        assert fix == f"client.create_payload_index('docs', {name!r}, {kind!r})"
        assert wrong(check_filters([name], indexed, payloads, indexes=False)) == []
    [(seen, _)] = wrong(check_filters(["yaer"], indexed, payloads, indexes=True))
    assert "No sampled point has the payload field 'yaer'" in seen


@pytest.mark.parametrize(
    ("server", "fix"),
    [
        ("1.20.3", None),
        ("1.19.0", None),
        ("1.17.1", "Upgrade the server."),
        ("1.23.0", "Upgrade qdrant-client."),
        ("dev", None),
    ],
)
def test_versions_may_be_one_minor_apart(server, fix):
    """A version that is none decides nothing."""
    found = wrong(check_versions(server, "1.20.0"))
    assert [one[1] for one in found] == ([] if fix is None else [fix])


def test_limits_of_strict_mode_are_wrong_where_a_search_meets_them():
    """Else they are notes; a collection without strict mode has none."""
    limits = {"max_query_limit": 50, "unindexed_filtering_retrieve": False, "max_timeout": 3}

    def found(candidates, filters, **changed):
        config = models.StrictModeConfigOutput(**{"enabled": True, **limits, **changed})
        return list(check_strict_mode(config, candidates, filters, schema(indexed={"year"})))

    assert wrong(found(50, ["year"])) == []
    [(seen, fix)] = wrong(found(100, ["year"]))
    assert "50 points" in seen
    assert "--candidates 50" in fix
    [(seen, _)] = wrong(found(50, ["year", "tag"]))
    assert "which 'tag' lack" in seen
    [(_, fix)] = wrong(found(50, [], upsert_max_batchsize=10))
    assert "--batch-size 10" in fix
    assert found(100, ["tag"], enabled=False) == []
    assert list(check_strict_mode(None, 100, ["tag"], schema())) == []


def test_collections_are_counted_and_the_first_named():
    """No collection is a note with what makes one."""
    assert list_collections([]).fix
    assert list_collections(["b", "a"]).seen == "It has 2 collections: 'a', 'b'."
    many = list_collections([f"c{n:02}" for n in range(60)]).seen
    assert many.endswith("'c49' and 10 more.")


LONG = [" ".join(f"word{n}" for n in range(40))] * 20


@pytest.mark.parametrize(
    ("recorded", "seen", "is_wrong"),
    [
        (
            40.0,
            "length of 40 terms, as the collection records. The sampled documents have 40",
            False,
        ),
        (55.0, "length of 55 terms", False),
        (
            61.0,
            "length of 61 terms, as the collection records. The sampled documents have 40",
            True,
        ),
        (20.0, "length of 20 terms", True),
    ],
)
def test_a_recorded_length_that_is_far_from_the_true_one_is_wrong(recorded, seen, is_wrong):
    """By half or more, above or below; reindex measures it again."""
    encoder = Bm25Encoder(avg_len=recorded)
    [found] = check_average_length(schema(encoder=encoder.describe()), encoder, LONG)
    assert seen in found.seen
    assert found.wrong is is_wrong
    assert ("reindex FILE --collection docs" in found.fix) is is_wrong


def test_a_length_that_nobody_recorded_is_a_note():
    """Whoever filled it may have meant 256; another encoder, or no text, has nothing to check."""
    [found] = check_average_length(schema(), Bm25Encoder(), LONG)
    assert "256 terms, which is the default; none is recorded" in found.seen
    assert (found.wrong, "reindex" in found.fix) == (False, True)
    plain = schema(sparse={"s": models.SparseVectorParams()})
    for collection, encoder, texts in (
        (schema(), QdrantInference("Qdrant/bm25"), LONG),
        (schema(), None, LONG),
        (schema(), Bm25Encoder(), []),
        (plain, Bm25Encoder(), LONG),
    ):
        assert list(check_average_length(collection, encoder, texts)) == []
