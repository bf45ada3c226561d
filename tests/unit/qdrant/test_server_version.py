"""What a request needs of a server, and what is said where it lacks it."""

import pytest
from qdrant_client import models

from qdrant_rerank.errors import QdrantRequestError
from qdrant_rerank.qdrant.server_version import needs, parse_version, require_version


def request(**fields):
    """A request of the Query API."""
    return models.QueryRequest(**fields)


RRF = models.RrfQuery(rrf=models.Rrf(k=60))
WEIGHTED = models.RrfQuery(rrf=models.Rrf(weights=[1.0, 2.0]))
BRANCH = models.Prefetch(query=[0.1])
DOCUMENT = models.Document(text="a", model="Qdrant/bm25")


@pytest.mark.parametrize(
    ("asked", "since"),
    [
        (request(query=[0.1, 0.2]), []),
        (request(prefetch=[BRANCH], query=models.FusionQuery(fusion=models.Fusion.RRF)), []),
        (request(prefetch=[BRANCH], query=models.FusionQuery(fusion="dbsf")), []),
        (request(prefetch=[BRANCH], query=RRF), [(1, 16, 0)]),
        (request(prefetch=[BRANCH], query=WEIGHTED), [(1, 17, 0), (1, 16, 0)]),
        (request(query=models.TextQuery(text="a"), using="body"), [(1, 20, 0)]),
        (request(query=DOCUMENT), [(1, 15, 3)]),
        (request(query=models.NearestQuery(nearest=DOCUMENT)), [(1, 15, 3)]),
        (
            request(
                prefetch=models.Prefetch(prefetch=[models.Prefetch(query=DOCUMENT)], query=[0.1]),
                query=models.TextQuery(text="a"),
            ),
            [(1, 20, 0), (1, 15, 3)],
        ),
        (request(params=models.SearchParams(acorn=models.AcornSearchParams())), [(1, 16, 0)]),
        *(
            (request(filter=models.Filter(should=[models.Filter(must_not=[one])])), [since])
            for one, since in (
                (models.HasVectorCondition(has_vector="a"), (1, 13, 0)),
                (
                    models.FieldCondition(key="a", match=models.MatchPhrase(phrase="b")),
                    (1, 15, 0),
                ),
                (
                    models.FieldCondition(key="a", match=models.MatchTextAny(text_any="b")),
                    (1, 16, 0),
                ),
            )
        ),
        (
            request(shard_key=models.ShardKeyWithFallback(target="a", fallback="b")),
            [(1, 16, 0)],
        ),
    ],
)
def test_everything_in_a_request_is_looked_at(asked, since):
    """However deep; the newest need comes first."""
    assert [feature.since for feature in needs([asked, asked])] == since


def test_a_server_that_is_too_old_is_told_with_both_versions():
    """And with what to do instead."""
    features = needs([request(prefetch=[BRANCH], query=WEIGHTED)])
    require_version(features, (1, 17, 0), "Qdrant at x")
    require_version([], (1, 0, 0), "Qdrant at x")
    with pytest.raises(
        QdrantRequestError,
        match=r"Qdrant at x is of version 1\.16\.3, which lacks Rrf with weights; expected 1\.17\.0"
        r" or newer\. Upgrade it, or pass Rrf without weights, or fusion='rrf'\.",
    ):
        require_version(features, (1, 16, 3), "Qdrant at x")


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("1.17.0", (1, 17, 0)),
        ("v1.20.1-dev", (1, 20, 1)),
        ("1.9", (1, 9, 0)),
        ("unknown", None),
        ("", None),
    ],
)
def test_versions_are_read(said, version):
    """What is none is none."""
    assert parse_version(said) == version
