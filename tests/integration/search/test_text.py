"""Where the text is: collections that others wrote, and what happens where no text is found."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from uuid import UUID

import pytest
from qdrant_client import QdrantClient, models

from qdrant_rerank import AsyncHybridSearcher, HybridSearcher, SearchOptions
from qdrant_rerank.embedders import load_embedder
from qdrant_rerank.errors import InvalidInputError, MissingTextError
from qdrant_rerank.evaluation.compare import with_reranker
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER
from qdrant_rerank.qdrant.embedded.client import EdgeClient
from qdrant_rerank.qdrant.schema import TEXT_KEY
from tests.releases import needs_client
from tests.writers import IRON, WRITTEN, written

TEXTS = [
    "Bread is baked in a hot oven for an hour.",
    "Cast iron pans must be hot before the oil goes in.",
    IRON,
    "The melting of glaciers changes the level of the sea.",
    "An iron curtain divided the continent for decades.",
]
QUERY = "How hot must it be for iron to melt?"
RECALL = SearchOptions(on_rerank_error="recall")


class Counting:
    """A reranker that notes what it reads; longer texts are better."""

    def __init__(self):
        self.read = []
        self.lock = threading.Lock()

    def rerank(self, query, documents):
        """Their lengths."""
        with self.lock:
            self.read.extend(documents)
        return [float(len(document)) for document in documents]


@pytest.fixture(params=["local mode", "the real engine"])
def engine(request):
    """An embedded engine, empty."""
    with closing(QdrantClient(":memory:") if request.param == "local mode" else EdgeClient()) as it:
        yield it


def fill(client, payloads, collection="docs", start=0):
    """A collection with one unnamed dense vector, as others make it."""
    embedder = load_embedder(DEFAULT_EMBEDDER)
    if not client.collection_exists(collection):
        size = embedder.dimension
        params = models.VectorParams(size=size, distance=models.Distance.COSINE)
        client.create_collection(collection, params)
    vectors = embedder.embed_documents([str(payload) for payload in payloads]).tolist()
    client.upsert(
        collection,
        [
            models.PointStruct(id=str(UUID(int=start + n)), vector=vector, payload=payload)
            for n, (vector, payload) in enumerate(zip(vectors, payloads, strict=True))
        ],
    )


def order(results):
    """Ids and rerank scores; local mode's own scores differ in the last digits."""
    return [(hit.id, pytest.approx(hit.rerank_score, abs=1e-4)) for hit in results]


@pytest.mark.parametrize("writer", WRITTEN)
def test_a_collection_of_a_known_writer_is_reranked_by_default(bundled, engine, writer):
    """By its texts alone, at the first search and later ones, whatever is returned of a hit."""
    fill(engine, [{**written(writer, text), "n": n} for n, text in enumerate(TEXTS)])
    searcher = HybridSearcher("docs", client=engine, reranker=bundled)
    assert searcher.text.source == "auto"
    first = searcher.search(QUERY, with_payload=["n"])
    assert searcher.text.source == WRITTEN[writer]
    for results in (first, searcher.search(QUERY, with_payload=["n"])):
        trace = results.trace
        assert (trace.status, trace.pairs, trace.missing_text) == ("reranked", 5, 0)
        assert trace.text == WRITTEN[writer]
        assert results[0].payload == {"n": 2}
        scores = [hit.rerank_score for hit in results]
        expected = bundled.rerank(QUERY, [TEXTS[hit.payload["n"]] for hit in results])
        assert scores == pytest.approx(list(expected), abs=1e-4)


@pytest.mark.parametrize("writer", ["langchain", "llama-index"])
def test_before_there_was_a_choice_the_page_was_not_reranked(bundled, client, writer):
    """A field that no hit has: counted, told by the status, and the order of the first stage."""
    fill(client, [written(writer, text) for text in TEXTS])
    searcher = HybridSearcher("docs", client=client, reranker=bundled, text="text")
    if writer == "llama-index":  # has its text where no field of the payload has it
        searcher = HybridSearcher("docs", client=client, reranker=bundled, text="body")
    with pytest.warns(UserWarning, match="None of the 5 hits has text"):
        results = searcher.search(QUERY)
    trace = results.trace
    assert (trace.status, trace.missing_text, trace.pairs) == ("no text", 5, 0)
    assert [hit.retrieval_rank for hit in results] == [1, 2, 3, 4, 5]
    drop = SearchOptions(on_missing_text="drop")
    with pytest.warns(UserWarning, match="None of the 5 hits has text"):
        results = searcher.search(QUERY, options=drop)
    assert (len(results), results.trace.status) == (0, "no text")


def test_a_batch_groups_and_an_event_loop_choose_the_same(bundled, client):
    """All of them go one way, and a page of a searcher in an event loop is that of the other."""
    fill(client, [{**written("langchain", text), "n": n % 2} for n, text in enumerate(TEXTS)])

    async def search():
        async with AsyncHybridSearcher("docs", client=client, reranker=bundled) as searcher:
            pages = await asyncio.gather(*(searcher.search(QUERY) for _ in range(4)))
            return pages, searcher.text.source

    [page, *others], source = asyncio.run(search())
    assert source == "page_content"
    assert [order(other) for other in others] == [order(page)] * 3
    batch = HybridSearcher("docs", client=client, reranker=bundled)
    assert order(batch.search_batch([QUERY, "bread"])[0]) == order(page)
    assert batch.text.source == "page_content"
    groups = HybridSearcher("docs", client=client, reranker=bundled)
    found = groups.search_groups(QUERY, group_by="n")
    assert found[0].hits[0].id == page[0].id
    assert (groups.text.source, found.trace.text) == ("page_content", "page_content")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"title": "A title of many words", "abstract": IRON}, "Pass text='abstract' or 'title'"),
        ({"year": 1999}, r"no text in 5 payloads, which have \['year'\]"),
        (None, "the points have no payload"),
    ],
)
def test_what_cannot_be_chosen_is_an_error_before_anything_is_scored(client, payload, message):
    """Or the order of the first stage, where that is asked for; it stays open."""
    fill(client, [payload] * 5)
    reranker = Counting()
    searcher = HybridSearcher("docs", client=client, reranker=reranker)
    with pytest.raises(MissingTextError, match=message):
        searcher.search(QUERY)
    results = searcher.search(QUERY, options=RECALL)
    assert (results.trace.status, results.trace.text) == ("degraded", None)
    assert results.trace.cause.startswith("MissingTextError: text='auto'")
    assert [hit.retrieval_rank for hit in results] == [1, 2, 3, 4, 5]
    assert (reranker.read, searcher.text.source) == ([], "auto")
    recall = HybridSearcher("docs", client=client, reranker=None)
    assert len(recall.search(QUERY)) == 5


def test_no_hits_choose_nothing(client):
    """The next search may find some."""
    fill(client, [{"body": IRON}])
    searcher = HybridSearcher("docs", client=client, reranker=Counting())
    nothing = {"must": [{"key": "n", "match": {"value": 1}}]}
    assert searcher.search(QUERY, query_filter=nothing).trace.status == "no candidates"
    assert searcher.text.source == "auto"
    assert searcher.search(QUERY).trace.text == "body"


def test_a_node_that_does_not_parse_is_an_error_or_the_first_stages_order(client):
    """Never an order that leaves it out silently."""
    payloads = [written("llama-index", text) for text in TEXTS]
    payloads[3]["_node_content"] = "{cut"
    fill(client, payloads)
    searcher = HybridSearcher("docs", client=client, reranker=Counting())
    with pytest.raises(InvalidInputError, match=f"Point '{UUID(int=3)}' has no LlamaIndex node"):
        searcher.search(QUERY)
    results = searcher.search(QUERY, options=RECALL)
    assert results.trace.status == "degraded"
    assert "LlamaIndex node" in results.trace.cause
    assert [hit.retrieval_rank for hit in results] == [1, 2, 3, 4, 5]


def test_the_choice_is_not_made_anew(client):
    """Points of another shape have no text then, and the page says so."""
    fill(client, [{"body": text} for text in TEXTS])
    searcher = HybridSearcher("docs", client=client, reranker=Counting())
    searcher.search(QUERY)
    fill(client, [{"passage": f"{text} Again.", "n": 1} for text in TEXTS], start=9)
    only_new = {"must": [{"key": "n", "match": {"value": 1}}]}
    with pytest.warns(UserWarning, match="'body' is missing.*Pass text='passage'"):
        results = searcher.search(QUERY, query_filter=only_new)
    assert (results.trace.status, results.trace.text) == ("no text", "body")
    assert searcher.text.source == "body"


def test_threads_of_first_searches_read_one_field():
    """Half of them meet points of one shape only, and half of the other."""
    with closing(EdgeClient()) as client:
        fill(client, [{"body": f"{text} One.", "n": 1} for text in TEXTS])
        fill(client, [{"passage": f"{text} Two.", "n": 2} for text in TEXTS], start=9)
        reranker = Counting()
        searcher = HybridSearcher("docs", client=client, reranker=reranker)
        start = threading.Barrier(8)

        def search(n):
            start.wait()
            only = {"must": [{"key": "n", "match": {"value": n % 2 + 1}}]}
            options = SearchOptions(on_missing_text="drop")
            return searcher.search(QUERY, query_filter=only, options=options).trace.text

        with ThreadPoolExecutor(8) as threads, pytest.warns(UserWarning, match="5 hits has text"):
            sources = list(threads.map(search, range(8)))
        assert {searcher.text.name} == set(sources)
        assert len({text[-4:] for text in reranker.read}) == 1


@needs_client(1, 20)
def test_a_new_collection_records_where_its_texts_are(client):
    """Another searcher reads it back, and needs no look at payloads that would tell otherwise."""
    first = HybridSearcher("docs", client=client, reranker=Counting())
    first.add([{"text": text, "body": text * 9} for text in TEXTS], progress=False)
    assert first.text.source == "text"
    template = HybridSearcher("other", client=client, reranker=None, text=["title", "body"])
    template.add([{"title": "A title of words", "body": text} for text in TEXTS], progress=False)
    function = HybridSearcher("made", client=client, reranker=None, text=lambda p: p["text"])
    function.add([{"text": "iron"}], progress=False)
    assert TEXT_KEY not in client.get_collection("made").config.metadata
    for collection, source in (("docs", "text"), ("other", ("title", "body"))):
        for query in (QUERY, first.search(QUERY)[0].id if collection == "docs" else "bread"):
            searcher = HybridSearcher(collection, client=client, reranker=Counting())
            assert searcher.search(query).trace.status == "reranked"
            assert searcher.text.source == source
    recall = HybridSearcher("docs", client=client, reranker=None)
    recall.search(QUERY)
    assert recall.text.source == "text"


def test_a_collection_of_an_older_release_is_read_from_text(client):
    """Though another field is longer: that was its default, and its vectors are made of it."""
    made = HybridSearcher("docs", client=client, reranker=None)
    made.add([{"text": text, "body": text * 9} for text in TEXTS], progress=False)
    metadata = client.get_collection("docs").config.metadata
    del metadata[TEXT_KEY]
    client.delete_collection("docs")
    client.create_collection(
        "docs",
        {"dense": models.VectorParams(size=256, distance=models.Distance.COSINE)},
        metadata={name: metadata[name] for name in metadata if "sparse" not in name},
    )
    again = HybridSearcher("docs", client=client, reranker=None, sparse=None, text="text")
    again.add([{"text": text, "body": text * 9} for text in TEXTS], progress=False)
    searcher = HybridSearcher("docs", client=client, reranker=Counting(), sparse=None)
    assert searcher.search(QUERY).trace.text == "text"


def test_texts_are_added_where_the_collection_has_them(client):
    """A str goes into the field of its writer; what cannot be written is refused."""
    fill(client, [written("langchain", text) for text in TEXTS])
    searcher = HybridSearcher("docs", client=client, reranker=Counting())
    searcher.add(["Copper melts at 1085 degrees."], ids=[7], progress=False)
    [point] = client.retrieve("docs", [7])
    assert point.payload == {"page_content": "Copper melts at 1085 degrees."}
    fill(client, [written("llama-index", text) for text in TEXTS], "nodes")
    nodes = HybridSearcher("nodes", client=client, reranker=Counting())
    with pytest.raises(InvalidInputError, match="text='llama-index' is not one field"):
        nodes.add(["Copper melts at 1085 degrees."], progress=False)
    fill(client, [{"title": "A title of many words", "abstract": IRON}], "open")
    ambiguous = HybridSearcher("open", client=client, reranker=Counting())
    with pytest.raises(MissingTextError, match="cannot choose"):
        ambiguous.add(["Copper melts at 1085 degrees."], progress=False)
    nested = HybridSearcher("open", client=client, reranker=None, text='article."full.text"')
    nested.add(["Copper melts at 1085 degrees."], ids=[8], progress=False)
    [point] = client.retrieve("open", [8])
    assert point.payload == {"article": {"full.text": "Copper melts at 1085 degrees."}}


def test_the_id_of_a_hit_can_be_searched_with(client):
    """A UUID is the id of a point, also as a str; with a space before it, it is a text."""
    fill(client, [written("haystack", text) for text in TEXTS])
    searcher = HybridSearcher("docs", client=client, reranker=Counting())
    best = searcher.search(IRON)[0]
    assert isinstance(best.id, str)
    like = searcher.search(best.id, limit=4)
    assert best.id not in [hit.id for hit in like]
    assert like.query == searcher.text(best.payload)
    assert order(searcher.search(UUID(best.id), limit=4)) == order(like)
    assert order(searcher.search_batch([best.id], limit=4)[0]) == order(like)
    groups = searcher.search_groups(best.id, group_by="meta.source")
    assert groups.query == like.query
    text = searcher.search(f" {best.id}")
    assert (text.query, len(text)) == (f" {best.id}", 5)
    for no_id in (best.id.replace("-", ""), f"{{{best.id}}}", f"{best.id}?"):
        assert searcher.search(no_id).query == no_id
    with pytest.raises(InvalidInputError, match="has no such point.*put a space before"):
        searcher.search(str(UUID(int=99)))


def test_filters_may_be_dicts(client):
    """As in the REST interface; the same points as by a model."""
    fill(client, [{"text": text, "year": 2000 + n} for n, text in enumerate(TEXTS)])
    searcher = HybridSearcher("docs", client=client, reranker=Counting())
    late = {
        "must": [{"key": "year", "range": {"gte": 2002}}],
        "must_not": [{"has_id": [str(UUID(int=4))]}, {"is_empty": {"key": "text"}}],
    }
    model = models.Filter(**late)
    expected = searcher.search(QUERY, query_filter=model)
    assert {hit.payload["year"] for hit in expected} == {2002, 2003}
    assert order(searcher.search(QUERY, query_filter=late)) == order(expected)
    assert order(searcher.search_batch([QUERY], query_filter=late)[0]) == order(expected)
    groups = searcher.search_groups(QUERY, group_by="year", query_filter=late)
    assert {group.id for group in groups} == {2002, 2003}
    prefetch = models.Prefetch(query=[0.1] * 256, limit=5)
    assert len(searcher.search(QUERY, prefetch=prefetch, query_filter=late)) == 2

    async def search():
        async with AsyncHybridSearcher("docs", client=client, reranker=Counting()) as it:
            return await it.search(QUERY, query_filter=late)

    assert order(asyncio.run(search())) == order(expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"year": 2002},
            r"query_filter\['year'\] is no part of a filter; expected a models.Filter",
        ),
        ({"must": [{"key": "year", "rnge": {}}]}, r"\['must'\]\[0\] is no condition of a filter"),
        ({"must": [{"year": 2002}]}, r"\['must'\]\[0\] is no condition"),
        ({"should": "year"}, r"query_filter\['should'\] is no condition"),
        ([{"key": "year"}], "query_filter is a list"),
        (models.IsEmptyCondition(is_empty={"key": "a"}), "query_filter is an IsEmptyCondition"),
    ],
)
def test_a_dict_that_is_no_filter_is_named(client, given, message):
    """Before anything is asked."""
    searcher = HybridSearcher("nowhere", client=client, reranker=Counting())
    for search in (searcher.search, lambda q, **more: searcher.search_batch([q], **more)):
        with pytest.raises(InvalidInputError, match=message):
            search(QUERY, query_filter=given)


def test_copies_of_a_searcher_share_the_choice(client):
    """One collection has one text, whatever reranks it."""
    fill(client, [written("mcp", text) for text in TEXTS])
    searcher = HybridSearcher("docs", client=client, reranker=Counting())
    with_reranker(searcher, None).search(QUERY)
    assert searcher.text.source == "document"
