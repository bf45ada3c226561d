"""Which objects and functions are an embedder, by the calls that they take; and why others not."""

import asyncio
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client.models import SparseVector

from qdrant_rerank import AsyncHybridSearcher, HybridSearcher, OnnxEmbedder
from qdrant_rerank.embedders import load_embedder, load_sparse
from qdrant_rerank.errors import InvalidInputError, ModelOutputError, QdrantConnectionError


def lengths(texts):
    """A function of texts."""
    return [[float(len(text)), 1.0] for text in texts]


async def lengths_awaited(texts):
    """A coroutine function of texts."""
    await asyncio.sleep(0)
    return np.array(lengths(texts))


class Callable:
    """An object that is called with texts."""

    def __call__(self, input):
        return lengths(input)


class AsyncCallable:
    """The same, awaited."""

    async def __call__(self, input):
        return lengths(input)


class Client:
    """An async client with a name of its own."""

    name, dimension = "client", 2

    async def embed_query(self, text):
        return lengths([text])[0]

    async def embed_documents(self, texts):
        return lengths(texts)


class OfPairs:
    """Has the name of a method that embeds, and another signature."""

    def encode(self, query, document):
        return 0.0


class Prefixed:
    """Embeds queries and documents each in its way, as LangChain's Embeddings do."""

    model_name = "org/prefixed"

    def embed_query(self, text):
        return [1.0, float(len(text))]

    def embed_documents(self, texts):
        return [[0.0, float(len(text))] for text in texts]


@pytest.mark.parametrize(
    ("embedder", "name"),
    [
        (lengths, "lengths"),
        (lambda texts: np.array(lengths(texts)), "<lambda>"),
        (partial(lambda more, texts: lengths(texts), 1), "<lambda>"),
        (partial(lengths), "lengths"),
        (Callable(), "Callable"),
        (Prefixed(), "org/prefixed"),
    ],
)
@settings(deadline=None, max_examples=10)
@given(texts=st.lists(st.text(max_size=20), max_size=5))
def test_a_function_or_an_object_is_an_embedder(embedder, name, texts):
    """Vectors in the order of the texts, of the length that the first one showed."""
    loaded = load_embedder(embedder)
    assert loaded.known_dimension is None
    assert (loaded.name, loaded.dimension) == (name, 2)
    made = loaded.embed_documents(texts)
    assert made.shape == (len(texts), 2)
    assert made.dtype == np.float32
    place = 1 if name == "org/prefixed" else 0
    assert made[:, place].tolist() == [len(text) for text in texts]
    queries = loaded.embed_queries(texts)
    assert queries.shape == (len(texts), 2)
    for text, query in zip(texts, queries, strict=True):
        np.testing.assert_array_equal(loaded.embed_query(text), query)


def yielded(texts):
    """A generator of vectors, as fastembed's ``embed`` is."""
    for text in texts:
        yield np.array([len(text), 1.0], dtype=np.float64)


@pytest.mark.parametrize("embedder", [yielded, lambda texts: map(np.array, lengths(texts))])
def test_an_iterator_of_vectors_is_read(client, embedder):
    """In the order of the texts."""
    loaded = load_embedder(embedder)
    assert loaded.embed_documents(["a", "bcd"])[:, 0].tolist() == [1, 3]
    searcher = HybridSearcher("docs", client=client, embedder=embedder, sparse=None, reranker=None)
    assert searcher.add(["one", "seven and more"]) == 2


def test_a_function_that_returns_a_coroutine_is_told_so():
    """A lambda hides it from the check of the signature."""
    loaded = load_embedder(lambda texts: lengths_awaited(list(texts)))
    with pytest.raises(ModelOutputError, match=r"returned <coroutine.*async def.*AsyncHybrid"):
        loaded.embed_documents(["a"])


def test_queries_and_documents_go_to_their_own_methods():
    """Of an object that has both."""
    loaded = load_embedder(Prefixed())
    assert loaded.embed_query("abc").tolist() == [1.0, 3.0]
    assert loaded.embed_documents(["abc"]).tolist() == [[0.0, 3.0]]


class HalfAsync(Client):
    """Only its queries are coroutines."""

    def embed_documents(self, texts):
        return lengths(texts)


@pytest.mark.parametrize("embedder", [lengths_awaited, AsyncCallable(), Client(), HalfAsync()])
def test_coroutines_are_awaited_by_the_async_searcher(client, embedder):
    """And refused by the other one, with the reason."""
    with pytest.raises(InvalidInputError, match=r"is async, and HybridSearcher has no event loop"):
        HybridSearcher("docs", embedder=embedder)

    async def use():
        async with AsyncHybridSearcher(
            "docs", client=client, embedder=embedder, sparse=None, reranker=None
        ) as searcher:
            added = await searcher.add(["one", "three", "seven and more"])
            found = await searcher.search_batch(["seven and more", "one"], 1)
            return added, [hits[0].payload["text"] for hits in found], searcher.embedder

    added, texts, loaded = asyncio.run(use())
    assert (added, texts) == (3, ["seven and more", "one"])
    assert loaded.dimension == 2


def test_a_coroutine_ends_at_the_deadline_and_when_cancelled(client):
    """It is cancelled itself, and not only left alone."""
    ended = []

    async def slow(texts):
        try:
            await asyncio.sleep(0 if len(texts) > 1 or texts == ["a"] else 60)
        except asyncio.CancelledError:
            ended.append(texts)
            raise
        return lengths(texts)

    async def use():
        async with AsyncHybridSearcher(
            "docs", client=client, embedder=slow, sparse=None, reranker=None
        ) as searcher:
            await searcher.add(["one", "two"])
            with pytest.raises(QdrantConnectionError, match="encoding the query"):
                await searcher.search("late", deadline_s=0.3)
            task = asyncio.create_task(searcher.search("cancelled"))
            await asyncio.sleep(0.3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(use())
    assert ended == [["late"], ["cancelled"]]


def test_a_failure_of_a_coroutine_is_its_own(client):
    """As that of a function is."""

    async def broken(texts):
        raise KeyError("vectors")

    async def use():
        async with AsyncHybridSearcher("docs", client=client, embedder=broken) as searcher:
            await searcher.add(["one"])

    with pytest.raises(KeyError, match="vectors"):
        asyncio.run(use())


class Module:
    """Takes anything, as a module of torch does."""

    def __call__(self, *args, **kwargs):
        return args


def one_text(text: str):
    """A function of one text."""
    return [0.0]


@pytest.mark.parametrize(
    ("embedder", "said"),
    [
        (7, r"is an int; expected a model name.*def embed\(texts\)"),
        (OfPairs(), r"an OfPairs, and its encode\(query, document\) cannot be called as encode"),
        (lambda: [], r"cannot be called as a function of texts"),
        (Module(), r"Module, and its __call__\(\*args, \*\*kwargs\) cannot be called"),
        (lambda a, b: [], r"cannot be called as a function of texts"),
        (one_text, r"'one_text' of one text; .*lambda texts: \[your_function"),
        (OnnxEmbedder, "is the class OnnxEmbedder; expected an object"),
        (Prefixed, "is the class Prefixed"),
        ([1.0, 2.0], "is a list"),
    ],
)
def test_what_does_not_embed_is_refused_by_the_constructor(embedder, said):
    """With what was seen, and the two lines that adapt it."""
    with pytest.raises(InvalidInputError, match=f"(?s){said}"):
        HybridSearcher("docs", embedder=embedder)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda texts: lengths(texts[:1]) if len(texts) > 1 else lengths(texts), r"\(1, 2\)"),
        (lambda texts: [lengths(texts)], r"\(1, \d, 2\).*vector per token"),
        (lambda texts: ["a"] * len(texts), "expected an array"),
        (lambda texts: [[0.0] * len(text) for text in texts], r"expected (an array|one vector)"),
        (lambda texts: None, "expected"),
    ],
)
def test_output_that_is_not_one_vector_per_text_is_refused(function, said):
    """Before anything is sent."""
    with pytest.raises(ModelOutputError, match=said):
        load_embedder(function).embed_documents(["one", "three"])


class Own:
    """An ``Embedder``."""

    def __init__(self, name="own", dimension=2):
        self.name, self.dimension = name, dimension

    def embed_query(self, text):
        return lengths([text])[0]

    def embed_documents(self, texts):
        return lengths(texts)


@pytest.mark.parametrize("name", [5, "", " ", None])
def test_a_name_that_no_collection_can_record_is_refused(name):
    """By the constructor."""
    with pytest.raises(InvalidInputError, match="embedder is an Own with the name"):
        HybridSearcher("docs", embedder=Own(name))


@pytest.mark.parametrize("dimension", ["2", None, 0, 2.0, True])
def test_a_dimension_that_is_no_length_is_refused(client, dimension):
    """Before a collection is made, and before one is searched."""
    searcher = HybridSearcher("docs", client=client, embedder=Own(dimension=dimension))
    with pytest.raises(InvalidInputError, match="The dimension of the embedder 'own' is"):
        searcher.add(["one"])
    assert not client.collection_exists("docs")


def test_another_embedder_is_told_at_search(client):
    """The collection records the function's name."""
    HybridSearcher("docs", client=client, embedder=lengths, reranker=None).add(["one"])
    other = HybridSearcher("docs", client=client, embedder=Callable(), reranker=None)
    with pytest.raises(Exception, match="'lengths'; 'Callable' does not fit"):
        other.search("one")


def test_a_callers_own_vector_needs_no_embedder(client):
    """Nor does a point's id; so the embedder's server may be down."""

    def down(texts):
        raise KeyError("vectors")

    HybridSearcher("docs", client=client, embedder=lengths, reranker=None).add(
        ["one", "three"], ids=[1, 2]
    )
    searcher = HybridSearcher("docs", client=client, embedder=down, sparse=None, reranker=None)
    assert len(searcher.search("one", recall=[1.0, 0.5])) == 2
    with pytest.raises(KeyError, match="vectors"):
        searcher.search("one")


def test_a_sparse_encoder_is_no_text_to_look_up():
    """What is neither is refused."""
    for wrong in (7, lengths, OfPairs()):
        with pytest.raises(InvalidInputError, match="expected 'Qdrant/bm25'"):
            load_sparse(wrong)


class WithIndices:
    """As langchain-qdrant's ``SparseVector``: not the client's, but with its fields."""

    def __init__(self, text):
        self.indices, self.values = [len(text)], [1.0]


class SparseEmbeddings:
    """As langchain-qdrant's: without a name."""

    def embed_query(self, text):
        return WithIndices(text)

    def embed_documents(self, texts):
        return [WithIndices(text) for text in texts]


def test_sparse_embeddings_without_a_name_are_called_as_their_class():
    """And their vectors become the client's."""
    loaded = load_sparse(SparseEmbeddings())
    assert loaded.name == "SparseEmbeddings"
    assert loaded.embed_query("abc") == SparseVector(indices=[3], values=[1.0])
    assert loaded.embed_documents(["a", "ab"])[1] == SparseVector(indices=[2], values=[1.0])
    assert loaded.embed_documents([]) == []
