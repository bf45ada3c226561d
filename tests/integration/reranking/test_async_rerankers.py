"""Rerankers that are awaited: deadlines, failures, several queries at the same time."""

import asyncio
import threading

import pytest

from qdrant_rerank import AsyncHybridSearcher, Cascade, HybridSearcher, SearchOptions
from qdrant_rerank.errors import InvalidInputError

TEXTS = ["Iron melts at 1538 C.", "Bread is baked.", "Ore is mined.", "A furnace is hot."]
RECALL = SearchOptions(on_rerank_error="recall")


@pytest.fixture
def first(client):
    """The ids in the first stage's order."""
    searcher = HybridSearcher("docs", client=client, reranker=None)
    searcher.add(TEXTS, progress=False)
    return [hit.id for hit in searcher.search("iron")]


def ask(client, reranker, method="search", query="iron", **options):
    """What a search in an event loop returns."""

    async def search():
        given = {"options": options.pop("options")} if "options" in options else {}
        async with AsyncHybridSearcher("docs", client=client, reranker=reranker, **given) as made:
            return await getattr(made, method)(query, **options)

    return asyncio.run(search())


class Never:
    """Waits for ever, and knows that it was given up."""

    given_up = False

    async def rerank(self, query, documents):
        """Nothing."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.given_up = True
            raise


class Fails:
    """Raises what it is given."""

    def __init__(self, error):
        self.error = error

    async def rerank(self, query, documents):
        """An error."""
        raise self.error


class Counts:
    """Answers only when so many queries wait at the same time."""

    def __init__(self, queries):
        self.barrier = asyncio.Barrier(queries)

    async def rerank(self, query, documents):
        """The length of each text."""
        await self.barrier.wait()
        return [len(query) * len(document) for document in documents]


def test_at_the_deadline_it_is_given_up(client, first):
    """The hits stay in retrieval order, and the trace says "partial"."""
    reranker = Never()
    found = ask(client, reranker, deadline_s=1.0)
    assert [hit.id for hit in found] == first
    assert (found.trace.status, found.trace.pairs) == ("partial", 0)
    assert reranker.given_up


@pytest.mark.parametrize("error", [RuntimeError("no"), TimeoutError("of its own")])
def test_its_failure_is_raised_or_leaves_the_order(client, first, error):
    """A timeout of its own is a failure, and no deadline."""
    with pytest.raises(type(error), match=str(error)):
        ask(client, Fails(error), deadline_s=600)
    found = ask(client, Fails(error), deadline_s=600, options=RECALL)
    assert [hit.id for hit in found] == first
    assert found.trace.status == "degraded"
    assert found.trace.cause == f"{type(error).__name__}: {error}"


def test_several_queries_are_asked_at_the_same_time(client, first):
    """Each gets its own scores."""
    queries = ["iron", "ore", "bread"]
    pages = ask(client, Counts(3), "search_batch", queries)
    for query, page in zip(queries, pages, strict=True):
        expected = sorted((len(query) * len(text) for text in TEXTS), reverse=True)
        assert [hit.rerank_score for hit in page] == expected


def test_groups_and_thresholds_work_as_with_others(client, first):
    """The order is made of the same scores."""
    found = ask(client, Counts(1), score_threshold=4 * len(TEXTS[3]))
    assert [hit.payload["text"] for hit in found] == [TEXTS[0], TEXTS[3]]
    groups = ask(client, Counts(1), "search_groups", group_by="text")
    assert groups[0].hits[0].payload["text"] == TEXTS[0]


class Lengths:
    """The length of each text, at once; knows the threads that asked."""

    def __init__(self):
        self.threads = set()

    def rerank(self, query, documents):
        """One number per text."""
        self.threads.add(threading.get_ident())
        return [float(len(document)) for document in documents]


async def shortest(query, documents):
    """The shortest first, after a turn of the loop."""
    await asyncio.sleep(0)
    return [-float(len(document)) for document in documents]


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_cascade_awaits_its_async_stages(client, first, place):
    """The order is that of the same cascade without async; other stages run in threads."""

    def now(query, documents):
        return asyncio.run(shortest(query, documents))

    model = Lengths()

    def cascade(stage):
        stages = [(stage, 3), (model, None)] if place == "first" else [(model, 3), (stage, None)]
        return Cascade(stages)

    searcher = HybridSearcher("docs", client=client, reranker=cascade(now))
    expected = {query: searcher.search(query) for query in ("iron", "bread")}
    model.threads.clear()
    for query, found in zip(
        expected, ask(client, cascade(shortest), "search_batch", list(expected)), strict=True
    ):
        assert [(hit.id, hit.rerank_score) for hit in found] == [
            (hit.id, hit.rerank_score) for hit in expected[query]
        ]
        assert found.trace.status == "reranked"
    assert threading.get_ident() not in model.threads
    nested = Cascade([(Lengths(), 4), (cascade(shortest), None)])
    found = ask(client, nested)
    assert [hit.id for hit in found] == [hit.id for hit in expected["iron"]]


def test_a_cascade_gives_up_an_async_stage_at_the_deadline(client, first):
    """What the stage before ordered stays, and the trace says "partial"."""
    never = Never()
    found = ask(client, Cascade([(Lengths(), 2), (never, None)]), deadline_s=1.0)
    lengths = sorted(map(len, TEXTS), reverse=True)
    assert [len(hit.payload["text"]) for hit in found] == lengths
    assert found.trace.status == "partial"
    assert never.given_up


def test_a_cascade_whose_async_stage_fails(client, first):
    """Its error is raised, or leaves the order of retrieval."""
    failing = Cascade([(Lengths(), 2), (Fails(RuntimeError("no")), None)])
    with pytest.raises(RuntimeError, match="no"):
        ask(client, failing)
    found = ask(client, failing, options=RECALL)
    assert [hit.id for hit in found] == first
    assert found.trace.cause == "RuntimeError: no"


def test_a_cascade_with_an_async_stage_needs_an_event_loop(client):
    """It says so where nothing awaits it, and names the searcher that does."""
    cascade = Cascade([(Lengths(), 2), (shortest, None)])
    assert cascade.asynchronous
    assert not Cascade([(Lengths(), None)]).asynchronous
    said = r"A stage of the cascade: .*shortest.* is async.*AsyncHybridSearcher"
    with pytest.raises(InvalidInputError, match=said):
        HybridSearcher("docs", client=client, reranker=cascade)
    with pytest.raises(InvalidInputError, match=said):
        cascade.rerank("iron", TEXTS)
