"""Objects of other packages as rerankers: what is taken, by the signature of which call."""

import asyncio
import functools
from types import SimpleNamespace

import numpy as np
import pytest

from qdrant_rerank import AsyncHybridSearcher, Cascade, ClientReranker, HybridSearcher
from qdrant_rerank.errors import InvalidInputError, ModelOutputError
from qdrant_rerank.reranking.adapters import PeerReranker
from qdrant_rerank.reranking.loading import load_reranker

DOCUMENTS = ["a loaf of bread", "iron", "melting"]
LENGTHS = [15.0, 4.0, 7.0]


def best_first(documents, name="relevance_score"):
    """As services answer: sorted, each item with its index."""
    rows = sorted(range(len(documents)), key=lambda row: -len(documents[row]))
    return [{"index": row, name: float(len(documents[row]))} for row in rows]


class Predicts:
    """As sentence-transformers' class."""

    num_labels = 1

    def predict(self, inputs, batch_size=32, show_progress_bar=None):
        """An array of float32."""
        assert show_progress_bar is False
        return np.array([len(document) for _, document in inputs], dtype=np.float32)

    def rank(self, query, documents, top_k=None):
        """Never called."""
        raise AssertionError


class ScoresPairs:
    """As LangChain's ``BaseCrossEncoder``."""

    def score(self, text_pairs):
        """One score per pair."""
        return [len(document) for _, document in text_pairs]


class Ranks:
    """As ``rerankers``."""

    def rank(self, query, docs, doc_ids=None, metadata=None):
        """An object with results, best first."""
        items = best_first(docs, "score")
        found = [
            SimpleNamespace(score=one["score"], rank=n, doc_id=doc_ids[one["index"]])
            for n, one in enumerate(items, 1)
        ]
        return SimpleNamespace(results=found, has_scores=True)


class RanksOnly:
    """As RankGPT in ``rerankers``: an order without scores."""

    def rank(self, query, docs, doc_ids=None):
        """The shortest first."""
        found = [SimpleNamespace(score=None, doc_id=i) for i in (1, 2, 0)]
        return SimpleNamespace(results=found)


class RanksWithLimit:
    """As mxbai-rerank: a limit of its own, which would hide documents."""

    def rank(self, query, documents, *, top_k=1, return_documents=True):
        """Objects with an index."""
        return [SimpleNamespace(**one) for one in best_first(documents, "score")[:top_k]]


class Client:
    """As Cohere's: names only."""

    def rerank(self, *, query, documents, model=None, top_n=2):
        """A response object."""
        found = best_first(documents)[:top_n]
        return SimpleNamespace(results=[SimpleNamespace(**one) for one in found])


class Swapped:
    """As langchain-cohere and Xinference: the documents come first."""

    def rerank(self, documents, query, *, top_n=2):
        """Dicts."""
        assert isinstance(query, str)
        return {"results": best_first(documents)[:top_n]}


class RequestOfPassages:
    """As FlashRank's request."""

    def __init__(self, query=None, passages=None):
        self.query, self.passages = query, passages


class TakesRequest:
    """As FlashRank's: it writes into the dicts that it is given, and sorts them."""

    def rerank(self, request: RequestOfPassages):
        """The same dicts."""
        for passage in request.passages:
            passage["score"] = np.float32(len(passage["text"]))
        request.passages.sort(key=lambda passage: -passage["score"])
        return request.passages


class Called:
    """An object that is called, as a function is."""

    def __call__(self, query, passages):
        """Floats in order."""
        return [float(len(passage)) for passage in passages]


class DocumentsFirst:
    """Only the query has a usual name; a call by position would mistake it for the documents."""

    def rerank(self, candidates, query):
        """A score for each candidate, and none for each letter of the query."""
        assert isinstance(query, str)
        return [len(candidate) for candidate in candidates]


class QueryLast:
    """Only the documents have a usual name."""

    def rerank(self, docs, q):
        """As the class above."""
        assert isinstance(q, str)
        return [len(document) for document in docs]


class Limited:
    """Called in the usual order, but with a limit of results that would hide documents."""

    def rerank(self, query, candidates, top_n=2):
        """The best of them, with their places."""
        return best_first(candidates)[:top_n]


def by_length(query, documents):
    """A function of the user's."""
    return [len(document) for document in documents]


def swapped(documents, query):
    """The same, the other way round."""
    assert isinstance(query, str)
    return [len(document) for document in documents]


def with_option(power, query, documents):
    """One more argument, for ``functools.partial``."""
    return [len(document) ** power for document in documents]


TAKEN = [
    Predicts(),
    ScoresPairs(),
    Ranks(),
    RanksWithLimit(),
    Client(),
    Swapped(),
    TakesRequest(),
    Called(),
    DocumentsFirst(),
    QueryLast(),
    Limited(),
    by_length,
    swapped,
    functools.partial(with_option, 1),
    Client().rerank,
]


@pytest.mark.parametrize("peer", TAKEN, ids=lambda peer: type(peer).__name__)
def test_scores_come_in_the_order_of_the_documents(peer):
    """Whatever the peer's order is; floats, and an empty list for none."""
    reranker = load_reranker(peer)
    scores = reranker.rerank("q", DOCUMENTS)
    assert scores == LENGTHS
    assert {type(score) for score in scores} == {float}
    assert reranker.rerank("q", []) == []
    assert load_reranker(reranker) is reranker


@pytest.mark.parametrize("peer", TAKEN, ids=lambda peer: type(peer).__name__)
def test_a_searcher_and_a_cascade_take_them(peer, client):
    """By the same argument as a name."""
    searcher = HybridSearcher("c", client=client, reranker=peer)
    searcher.add(DOCUMENTS, progress=False)
    assert [hit.rerank_score for hit in searcher.search("iron")] == sorted(LENGTHS, reverse=True)
    assert Cascade([(peer, 2), (peer, None)]).rerank("q", DOCUMENTS)[0] == 15.0


def test_an_order_without_scores_becomes_reciprocal_ranks():
    """Best first, above 0."""
    assert load_reranker(RanksOnly()).rerank("q", DOCUMENTS) == [1 / 3, 1.0, 1 / 2]


class Forgets(Client):
    """A service that loses a document."""

    def rerank(self, *, query, documents):
        """All but one."""
        return {"results": best_first(documents)[1:]}


class Prints:
    """As ``rerankers`` on failure: nothing."""

    def rank(self, query, docs, doc_ids=None):
        """None."""


class Wrong:
    """Says what it likes."""

    def predict(self, pairs):
        """One score too many."""
        return [1.0] * (len(pairs) + 1)


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        (Forgets(), "Forgets.rerank answered 2 scores for 3 documents, and none for document 0"),
        (Prints(), "Prints.rank answered None; expected a list"),
        (Wrong(), r"Wrong.predict returned scores of shape \(4,\) for 3 documents"),
    ],
)
def test_what_a_peer_leaves_out_is_an_error(peer, said):
    """Never another order."""
    with pytest.raises(ModelOutputError, match=said):
        load_reranker(peer).rerank("q", DOCUMENTS)


class Classifies:
    """As scikit-learn's: a name alone is no signature."""

    def predict(self, X):
        """Never called."""

    def score(self, X, y):
        """Never called."""


class ClassifiesTexts:
    """Texts, not pairs: there is no ``rank``."""

    def predict(self, sentences):
        """Never called."""


class RanksPlayers:
    """Another kind of rank."""

    def rank(self, players):
        """Never called."""


class Labelled(Predicts):
    """A classifier of pairs with three labels."""

    num_labels = 3


class Compresses:
    """As LangChain's ``BaseDocumentCompressor``."""

    def compress_documents(self, documents, query, callbacks=None):
        """Never called."""


class WithoutQuery:
    """Reorders documents by themselves: a second argument is not always a query."""

    def rerank(self, documents, top_k=5):
        """Never called."""


class CalledWithAnything:
    """As a module of torch: its arguments tell nothing."""

    def __call__(self, *args, **kwargs):
        """Never called."""


class NeedsModel:
    """As ``cohere.ClientV2`` and ``voyageai.Client``."""

    def rerank(self, query, documents, model, top_k=None):
        """Never called."""


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        (Classifies(), "reranker is a Classifies; expected a model name"),
        (ClassifiesTexts(), "reranker is a ClassifiesTexts; expected a model name"),
        (RanksPlayers(), "reranker is a RanksPlayers; expected a model name"),
        (Labelled(), "reranker is a Labelled with 3 labels"),
        (Compresses(), "reranker is a Compresses; expected a model name"),
        (lambda documents: documents, "cannot be called as "),
        (WithoutQuery(), r"WithoutQuery.rerank\(documents, top_k\) does not say which argument"),
        (CalledWithAnything(), "reranker is a CalledWithAnything; expected a model name"),
    ],
)
def test_what_gives_no_scores_is_refused_with_the_lines_that_adapt_it(peer, said):
    """Two lines, ready to be pasted."""
    with pytest.raises(InvalidInputError, match=said) as caught:
        load_reranker(peer)
    assert "def scores(query, documents):\n        return [...]" in str(caught.value)


def test_a_client_without_a_model_is_refused_with_the_line_that_names_it():
    """And that line works."""
    with pytest.raises(InvalidInputError, match=r"reranker=ClientReranker\(client, model='...'\)"):
        load_reranker(NeedsModel())

    class Fine(NeedsModel):
        def rerank(self, query, documents, model, top_k=None):
            assert (model, top_k) == ("best-1", 3)
            return {"data": best_first(documents)}

    named = ClientReranker(Fine(), "best-1")
    assert named.rerank("q", DOCUMENTS) == LENGTHS
    assert repr(named) == "ClientReranker(Fine, 'best-1')"


def test_further_arguments_of_a_client_are_checked_at_once():
    """A typo is no argument of the client's."""

    class Fine(NeedsModel):
        def rerank(self, query, documents, model, top_k=None, truncation=False):
            assert truncation
            return {"data": best_first(documents)}

    named = ClientReranker(Fine(), "m", parameters={"truncation": True})
    assert named.rerank("q", DOCUMENTS) == LENGTHS
    with pytest.raises(InvalidInputError, match=r"expected an object with rerank\(query"):
        ClientReranker(Fine(), "m", parameters={"truncate": True})
    with pytest.raises(InvalidInputError, match="client is a list"):
        ClientReranker([], "m")
    with pytest.raises(InvalidInputError, match="model is ''"):
        ClientReranker(Fine(), "")


class AsyncClient:
    """As ``cohere.AsyncClientV2``."""

    async def rerank(self, *, query, documents, model):
        """After the loop has done other things."""
        await asyncio.sleep(0)
        return SimpleNamespace(results=[SimpleNamespace(**one) for one in best_first(documents)])


class AsyncOwn:
    """A reranker of the user's own."""

    async def rerank(self, query, documents):
        """Floats in order."""
        return [float(len(document)) for document in documents]


class AsyncCalled:
    """An object that is called."""

    async def __call__(self, query, documents):
        """Floats in order."""
        return [float(len(document)) for document in documents]


async def by_length_async(query, documents):
    """A coroutine function."""
    return [len(document) for document in documents]


ASYNC = {
    "AsyncClient.rerank": ClientReranker(AsyncClient(), "m"),
    "AsyncOwn.rerank": AsyncOwn(),
    r"AsyncCalled\(\)": AsyncCalled(),
    r"by_length_async\(\)": by_length_async,
}


@pytest.mark.parametrize(("name", "peer"), ASYNC.items())
def test_async_ones_are_refused_where_nothing_awaits_them(name, peer, client):
    """With the searcher that does."""
    for use in (
        load_reranker,
        lambda found: HybridSearcher("c", client=client, reranker=found),
        lambda found: load_reranker(Cascade([(found, None)])),
        lambda found: HybridSearcher("c", client=client, reranker=Cascade([(found, None)])),
        lambda found: Cascade([(found, None)]).rerank("q", DOCUMENTS),
    ):
        with pytest.raises(InvalidInputError, match=rf"{name} is async, .*AsyncHybridSearcher"):
            use(peer)
    with pytest.raises(InvalidInputError, match="is async"):
        load_reranker(peer, awaits=True).rerank("q", DOCUMENTS)


@pytest.mark.parametrize("peer", ASYNC.values())
def test_async_ones_are_awaited_by_the_async_searcher(peer, client):
    """In its event loop, and score the same."""
    searcher = AsyncHybridSearcher("c", client=client, reranker=peer)
    assert isinstance(searcher.reranker, PeerReranker)

    async def search():
        async with searcher:
            await searcher.add(DOCUMENTS, progress=False)
            return await searcher.search("iron"), await searcher.reranker.rerank_async("q", [])

    found, none = asyncio.run(search())
    assert [hit.rerank_score for hit in found] == sorted(LENGTHS, reverse=True)
    assert found.trace.status == "reranked"
    assert none == []
