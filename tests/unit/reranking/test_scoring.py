"""What may be given as a reranker, an embedder or a text function, checked when it is given."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client.models import SparseVector

from qdrant_rerank import Cascade, HybridSearcher, rerank_points
from qdrant_rerank.embedders import load_embedder, load_sparse
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.payload import PayloadText
from qdrant_rerank.reranking.loading import load_reranker


class Fine:
    """Takes documents of any name, and more arguments if it must."""

    def rerank(self, question, texts, batch_size=64, **options):
        """One score per text."""
        return [0.0 for _ in texts]


class KeywordOnly:
    """Has names of its own, and cannot be called by position."""

    def rerank(self, *, wanted, documents):
        """Never called."""


class FlashRank:
    """As FlashRank's ``Ranker``: one request that holds query and passages."""

    def rerank(self, request):
        """Never called."""


class NeedsMore:
    """As a ranker that must be told a language."""

    def rerank(self, query, documents, language):
        """Never called."""


class Asynchronous:
    """Returns a coroutine, which is no scores."""

    async def rerank(self, query, documents):
        """Never called."""


class NoMethod:
    """Has an attribute of that name."""

    rerank = "yes"


class Wrapped:
    """Passes everything on."""

    def rerank(self, *args, **options):
        """One score per document."""
        return [1.0 for _ in args[1]]


REFUSED = [
    (KeywordOnly(), r"KeywordOnly.rerank\(\*, wanted, documents\) cannot be called as"),
    (FlashRank(), r"FlashRank.rerank\(request\) cannot be called as rerank\(query, documents\)"),
    (NeedsMore(), "missing a required argument: 'language'"),
    (Asynchronous(), "Asynchronous.rerank is async"),
    (Fine, r"reranker is the class Fine; expected an object. Pass Fine\(\.\.\.\)"),
    (NoMethod(), r"reranker is a NoMethod; expected an object with rerank\(query, documents\)"),
    (3, "reranker is an int; expected a model name, a path"),
]


@pytest.mark.parametrize(("reranker", "said"), REFUSED)
def test_a_reranker_that_cannot_be_called_is_refused_at_once(reranker, said, client):
    """By each call that takes one, before anything is searched or scored."""
    for use in (
        load_reranker,
        lambda found: load_reranker(Cascade([(found, 3)])),
        lambda found: HybridSearcher("c", client=client, reranker=found),
        lambda found: rerank_points("q", [], reranker=found, on_rerank_error="recall"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            use(reranker)


@pytest.mark.parametrize("reranker", [Fine(), Wrapped(), Cascade([(Fine(), 3)])])
def test_a_reranker_that_can_be_called_is_taken(reranker):
    """Whatever its arguments are called."""
    assert load_reranker(reranker) is reranker


def test_documents_are_a_list(client):
    """So a reranker may index them, measure them and read them twice."""

    class Indexes:
        def rerank(self, query, documents):
            assert isinstance(documents, list)
            return [float(len(documents[row])) for row in range(len(documents))]

    searcher = HybridSearcher("c", client=client, reranker=Indexes())
    searcher.add(["iron", "a loaf of bread"], progress=False)
    assert [hit.score for hit in searcher.search("q")] == [15.0, 4.0]


class Dense:
    """An embedder with one defect, or none."""

    name = "dense"
    dimension = 2

    def embed_query(self, text):
        """The same for all."""
        return np.ones(2, dtype=np.float32)

    def embed_documents(self, texts):
        """The same for all."""
        return np.ones((len(texts), 2), dtype=np.float32)


class DenseKeyword(Dense):
    """Cannot be called by position."""

    def embed_query(self, *, text):
        """Never called."""


class DenseAsync(Dense):
    """Returns a coroutine."""

    async def embed_documents(self, texts):
        """Never called."""


class Sparse:
    """A sparse encoder."""

    name = "sparse"

    def embed_query(self, text):
        """One term."""
        return SparseVector(indices=[1], values=[1.0])

    def embed_documents(self, texts):
        """One term each."""
        return [self.embed_query(text) for text in texts]


class SparseOfTwo(Sparse):
    """Needs a second argument."""

    def embed_documents(self, texts, language):
        """Never called."""


@pytest.mark.parametrize(
    ("load", "encoder", "said"),
    [
        (load_embedder, Dense, "embedder is the class Dense"),
        (load_embedder, DenseKeyword(), r"DenseKeyword.embed_query\(\*, text\) cannot be called"),
        (load_embedder, DenseAsync(), "DenseAsync.embed_documents is async"),
        (load_sparse, Sparse, "sparse is the class Sparse"),
        (load_sparse, SparseOfTwo(), r"SparseOfTwo.embed_documents\(texts, language\) cannot be"),
    ],
)
def test_an_encoder_that_cannot_be_called_is_refused_at_once(load, encoder, said):
    """Its signature and the place of the argument are in the message."""
    with pytest.raises(InvalidInputError, match=said):
        load(encoder)
    assert load_embedder(Dense()).name == "dense"
    assert load_sparse(Sparse()).name == "sparse"


async def asynchronous(payload):
    """Returns a coroutine."""
    return payload["text"]


@pytest.mark.parametrize("function", [lambda: "", lambda a, b: "", asynchronous])
def test_a_text_function_that_cannot_be_called_is_refused_at_once(function):
    """It must take the payload, and return the text itself."""
    with pytest.raises(InvalidInputError, match="text: "):
        PayloadText(function)


@given(st.sampled_from([str, dict.values, functools.partial(dict.get, key=None)]))
def test_a_function_whose_signature_is_unknown_is_taken(function):
    """As of many built-in ones."""
    PayloadText(function)
