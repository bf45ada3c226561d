"""Random work on the embedded engine, local mode and a server: the same answers, crashes included.

``CONGRUENCE_SEEDS`` is how many seeds are tried, from ``CONGRUENCE_FIRST`` on: make congruence.
"""

import os
import shutil
import uuid
from contextlib import closing

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from qdrant_rerank.qdrant.embedded.client import EmbeddedClient
from tests.integration.qdrant.embedded.scenarios import INDEXES, NAMES, Scenario
from tests.integration.qdrant.embedded.test_call_table import calls
from tests.integration.qdrant.embedded.test_refused import copy_with_holes

FIRST = int(os.environ.get("CONGRUENCE_FIRST", "0"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("CONGRUENCE_SEEDS", "2")))
STEPS = 30
NEAR = 1e-4  # of scores: float32, added up in other orders


def answer(call, client):
    """What a call gives, or that it is refused."""
    try:
        return call(client)
    except Exception as error:
        return error


def plain(vector):
    """Vectors, rounded, so that they can be compared."""
    if isinstance(vector, dict):
        return {name: plain(one) for name, one in vector.items()}
    if vector is None or isinstance(vector, list):
        return vector and np.round(vector, 4).tolist()
    order = np.argsort(vector.indices)
    return [(vector.indices[at], round(vector.values[at], 4)) for at in order]


def assert_same_points(ours, theirs):
    """The same points, with their payloads and vectors."""
    left, right = ({str(one.id): one for one in points} for points in (ours, theirs))
    assert set(left) == set(right)
    for point_id, one in left.items():
        assert (one.payload or {}) == (right[point_id].payload or {}), point_id
        mine, other = plain(one.vector) or {}, plain(right[point_id].vector) or {}
        assert set(mine) == set(other), point_id
        for name, vector in mine.items():
            assert len(vector) == len(other[name])
            np.testing.assert_allclose(vector, other[name], atol=2 * NEAR)


def assert_same_hits(ours, theirs, kind, *, offset):
    """The same scores, and the same points but for those of the last score, or before an offset."""
    assert len(ours) == len(theirs)
    if kind in {"sample", "all"}:
        return
    if kind == "order":
        assert [one.payload["size"] for one in ours] == [one.payload["size"] for one in theirs]
        return
    np.testing.assert_allclose([h.score for h in ours], [h.score for h in theirs], atol=NEAR)
    if kind == "mmr":
        return
    edges = [hits.score for hits in (ours[:1] if offset else []) + ours[-1:]]
    left, right = ({str(one.id): one.score for one in hits} for hits in (ours, theirs))
    for one, other in ((left, right), (right, left)):
        for point_id, score in one.items():
            if all(abs(score - edge) > NEAR for edge in edges):
                assert abs(other[point_id] - score) <= NEAR


def check_reads(scenario, name, ours, theirs):
    """Points by id, pages, several queries at once, and names are the same in both."""
    ids = [one.id for one in ours.scroll(name, limit=100)[0]]
    asked = scenario.random.choices([*ids, 10**9], k=4)
    assert_same_points(*(c.retrieve(name, asked, with_vectors=True) for c in (ours, theirs)))
    where, pages = scenario.where(), []
    for client in (ours, theirs):
        pages.append([])
        start = None
        while True:
            page, start = client.scroll(name, where, limit=3, offset=start)
            pages[-1].append([str(one.id) for one in page])
            if start is None:
                break
    assert pages[0] == pages[1], where
    queries = [
        models.QueryRequest(
            query=scenario.vector("dense"), using="dense", filter=scenario.where(), limit=5
        )
        for _ in range(3)
    ]
    answers = [client.query_batch_points(name, queries) for client in (ours, theirs)]
    for mine, other in zip(*answers, strict=True):
        assert_same_hits(mine.points, other.points, "nearest", offset=None)
    for one in (name, f"{name}-alias", f"{name}-other", f"{name}-none"):
        assert ours.collection_exists(one) == theirs.collection_exists(one), one
    aliases = [
        sorted(one.alias_name for one in found.aliases if one.collection_name == name)
        for c in (ours, theirs)
        for found in (c.get_collection_aliases(name), c.get_aliases())
    ]
    assert all(one == aliases[0] for one in aliases), aliases
    for client in (ours, theirs):
        assert name in {one.name for one in client.get_collections().collections}


def check_matrix(scenario, name, ours, theirs):
    """How near all points are to each other is the same in both."""
    using, where = scenario.random.choice(NAMES), scenario.where()
    asked = {"query_filter": where, "sample": 100, "limit": 3, "using": using}
    mine, other = (c.search_matrix_offsets(name, **asked) for c in (ours, theirs))
    assert (mine.ids, mine.offsets_row) == (other.ids, other.offsets_row)
    np.testing.assert_allclose(mine.scores, other.scores, atol=NEAR)
    mine, other = (c.search_matrix_pairs(name, **asked).pairs for c in (ours, theirs))
    assert [one.a for one in mine] == [one.a for one in other]
    np.testing.assert_allclose([p.score for p in mine], [p.score for p in other], atol=NEAR)


def check(scenario, name, ours, theirs):
    """Everything that is stored, and some searches, are the same in both."""
    assert_same_points(*(c.scroll(name, limit=100, with_vectors=True)[0] for c in (ours, theirs)))
    if not ours.count(name).count:
        return  # local mode fails at some queries
    check_reads(scenario, name, ours, theirs)
    for _ in range(3):
        where = scenario.where()
        counts = [c.count(name, count_filter=where).count for c in (ours, theirs)]
        assert counts[0] == counts[1], where
    for _ in range(4):
        kind, asked = scenario.query()
        mine, other = (
            answer(lambda c, a=asked: c.query_points(name, **a), c) for c in (ours, theirs)
        )
        assert isinstance(mine, Exception) == isinstance(other, Exception), (
            kind,
            mine,
            other,
            asked,
        )
        if not isinstance(mine, Exception):
            try:
                assert_same_hits(mine.points, other.points, kind, offset=asked["offset"])
            except (AssertionError, KeyError) as error:
                raise AssertionError(f"{kind} {asked}\n{mine}\n{other}") from error
            for one in mine.points:
                wanted = asked["with_vectors"]
                assert one.vector is None or wanted, (kind, asked)
                assert wanted is True or set(one.vector or ()) <= {"dense"}
    key = scenario.random.choice(["colour", "tags", "size"])
    if key in scenario.indexes:
        where = scenario.where()
        mine, other = (
            c.facet(name, key, facet_filter=where, exact=True).hits for c in (ours, theirs)
        )
        # A server names values of its index that no point has any more, with a count of 0.
        assert [(h.value, h.count) for h in mine] == [(h.value, h.count) for h in other if h.count]
    vector, where = scenario.vector("dense"), scenario.where()
    groups = [
        c.query_points_groups(
            name, "colour", query=vector, using="dense", query_filter=where, limit=2, group_size=2
        ).groups
        for c in (ours, theirs)
    ]
    assert [(g.id, [str(h.id) for h in g.hits]) for g in groups[0]] == [
        (g.id, [str(h.id) for h in g.hits]) for g in groups[1]
    ]
    check_matrix(scenario, name, ours, theirs)
    if "size" in scenario.indexes:
        order = models.OrderBy(key="size", direction=scenario.random.choice(["asc", "desc"]))
        pages = [c.scroll(name, limit=9, order_by=order)[0] for c in (ours, theirs)]
        mine, other = ([one.payload["size"] for one in page] for page in pages)
        assert mine == other
    infos = [c.get_collection(name) for c in (ours, theirs)]
    assert infos[0].points_count == infos[1].points_count
    assert (infos[0].config.metadata or {}) == (infos[1].config.metadata or {})


def run(seed, theirs, path, *, texts):
    """Random changes on both, with checks, closings and crashes of ours in between."""
    scenario = Scenario(seed, texts=texts)
    name = f"congruence-{uuid.uuid4().hex}"
    ours, crashes = EmbeddedClient(path / "0"), 0
    try:
        for client in (ours, theirs):
            client.create_collection(name, **scenario.config)
        done = []
        for step in range(STEPS):
            kind, change = scenario.change(name)
            done.append(kind)
            mine, other = answer(change, ours), answer(change, theirs)
            assert isinstance(mine, Exception) == isinstance(other, Exception), (done, mine, other)
            happens = scenario.random.random()
            if happens < 0.1:
                ours.close()
                ours = EmbeddedClient(path / str(crashes))
            elif happens < 0.2:
                copy_with_holes(path / str(crashes), path / str(crashes + 1))
                ours.close()
                shutil.rmtree(path / str(crashes))
                crashes += 1
                ours = EmbeddedClient(path / str(crashes))
            elif happens < 0.25:
                ours.optimize(name)
            if step % 3 == 2:
                check(scenario, name, ours, theirs)
    finally:
        ours.close()
        theirs.delete_collection(name)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
@pytest.mark.parametrize("seed", SEEDS)
def test_as_local_mode(tmp_path, seed):
    """qdrant-client's own engine, which has no indexes."""
    with closing(QdrantClient(":memory:")) as local:
        run(seed, local, tmp_path, texts=False)


@pytest.mark.server
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", SEEDS)
def test_as_a_server(tmp_path, server_url, seed):
    """Qdrant itself, texts included."""
    key = os.environ.get("QDRANT_API_KEY")
    made = QdrantClient(server_url, api_key=key, timeout=60, check_compatibility=False)
    with closing(made) as server:
        if server.info().version.startswith("1.18."):
            pytest.skip("Qdrant 1.18 counts the values of a missing field otherwise than 1.19")
        run(seed, server, tmp_path, texts=True)


class Recorded:
    """A client, and the names of the calls that were made of it."""

    def __init__(self, client, called):
        self._client, self._called = client, called

    def __getattr__(self, name):
        """The client's own method."""
        self._called.add(name)
        return getattr(self._client, name)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
def test_every_call_is_compared(tmp_path):
    """All that the engine offers but for what has no answer to compare."""
    called = set()
    for seed in range(1000, 1100):
        with closing(QdrantClient(":memory:")) as local:
            run(seed, Recorded(local, called), tmp_path / str(seed), texts=False)
        missing = {name for name, method in calls().items() if method} - called
        if missing == {"close", "info", "migrate"}:
            return
    raise AssertionError(missing)


def test_the_scenarios_reach_every_index():
    """So that no kind of index is left out by chance."""
    kinds = set()
    for seed in range(20):
        scenario = Scenario(seed, texts=True)
        kinds |= {scenario.change("points")[0] for _ in range(STEPS)}
    assert {f"index {key}" for key in (*INDEXES, "text")} < kinds
