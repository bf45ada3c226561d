"""Whatever is passed for an argument: an answer or an error of ours, and never another one."""

import inspect
import uuid

import numpy as np
import pytest
from qdrant_client import models

from qdrant_rerank import (
    Bm25Encoder,
    Calibrator,
    Cascade,
    ClientReranker,
    CollectionSettings,
    HybridSearcher,
    LateInteraction,
    OpenAIEmbedder,
    PromptTemplate,
    QdrantInference,
    RemoteReranker,
    ScoreCache,
    SearchOptions,
    TextCrossEncoder,
    Windows,
    rerank_points,
)
from qdrant_rerank.embedders.qdrant import TextIndex
from qdrant_rerank.errors import QdrantRerankError
from qdrant_rerank.qdrant.embedded.client import EmbeddedClient

ODD = [
    *(10**400, -(10**400), 10**5000, float("nan"), float("inf"), -float("inf"), 1e308, -1, 0, 1.5),
    *(True, "3", "", "\x1b[31mred", "a\ud800", b"x", 1 + 2j, [], [None], {}, {1: 2}, object()),
    *(np.array([1, 2]), np.array([]), np.float32("nan"), np.datetime64("NaT", "s"), models.Filter),
]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def engine():
    """The embedded engine, in memory, with two documents."""
    client = EmbeddedClient()
    HybridSearcher("docs", client=client, reranker=None).add(["iron", "bread"], progress=False)
    yield client
    client.close()


#: Arguments whose texts may be looked for on a hub.
MODELS = {"model_name", "reranker", "embedder", "sparse"}


def names(function, *left_out):
    """Its arguments, but for some."""
    return [name for name in inspect.signature(function).parameters if name not in left_out]


def require_ours(call, arguments, given):
    """Pass every odd value for every argument."""
    for name in arguments:
        for value in ODD:
            if name in MODELS and isinstance(value, str):
                continue
            try:
                made = call(**{**given, name: value})
                if inspect.isgenerator(made):
                    list(made)
            except QdrantRerankError:
                pass
            except Exception as error:
                error.add_note(f"{name}={value!r:.60}" if value is not ODD[2] else f"{name}=huge")
                raise


@pytest.mark.parametrize(
    ("call", "given"),
    [
        ("search", {"query": "iron"}),
        ("search", {"query": 1}),
        ("search_batch", {"queries": ["iron", "bread"]}),
        ("search_groups", {"query": "iron", "group_by": "text"}),
    ],
    ids=str,
)
def test_arguments_of_a_search(engine, call, given):
    """Those that only reach Qdrant are checked, too."""
    searcher = HybridSearcher("docs", client=engine, reranker=None)
    method = getattr(searcher, call)
    require_ours(method, names(method), given)


def test_arguments_of_add(engine):
    """The collection stays as it is, or gets a document more."""
    searcher = HybridSearcher("docs", client=engine, reranker=None)
    require_ours(searcher.add, names(searcher.add), {"documents": ["tin"], "progress": False})


@pytest.mark.parametrize(
    ("made", "given"),
    [(Bm25Encoder, {}), (TextIndex, {"field": "text"}), (SearchOptions, {})],
)
def test_arguments_of_options(engine, made, given):
    """What is made is searched with."""

    def used(**arguments):
        one = made(**arguments)
        if isinstance(one, SearchOptions):
            searcher = HybridSearcher("docs", client=engine, reranker=None)
            searcher.search("iron", options=one)
        elif isinstance(one, Bm25Encoder):
            [vector] = one.embed_documents(["iron iron bread"])
            assert np.isfinite(vector.values).all()
            one.embed_query("iron")
        else:
            one.query("iron")

    require_ours(used, names(made), given)


def test_arguments_of_settings(engine):
    """Of a collection that is made with them."""

    def created(**arguments):
        name = f"made-{uuid.uuid4()}"
        settings = CollectionSettings(**arguments)
        searcher = HybridSearcher(name, client=engine, reranker=None)
        try:
            searcher.add(["iron"], settings=settings, progress=False)
        finally:
            if engine.collection_exists(name):
                engine.delete_collection(name)

    require_ours(created, names(CollectionSettings), {})


def test_arguments_of_a_searcher(engine):
    """Strange names of collections, too."""
    given = {"collection": "docs", "client": engine, "reranker": None}
    require_ours(HybridSearcher, names(HybridSearcher, "client"), given)


def test_arguments_of_a_cross_encoder(tiny_bert):
    """The model is loaded."""
    given = {"model_name": tiny_bert, "local_files_only": True}
    arguments = names(TextCrossEncoder, "cache_dir", "local_files_only")
    require_ours(TextCrossEncoder, arguments, given)


@pytest.mark.parametrize("call", ["rerank", "rank", "score_pairs", "rerank_pairs", "token_count"])
def test_arguments_of_scoring(tiny_bert, call):
    """Queries, documents and pairs, too."""
    method = getattr(TextCrossEncoder(tiny_bert), call)
    given = {"query": "iron", "documents": ["a", "b"], "pairs": [("a", "b")]}
    arguments = names(method)
    require_ours(method, arguments, {name: given[name] for name in arguments if name in given})


class Even:
    """Scores every document alike."""

    def rerank(self, query, documents):
        """One score per document."""
        return [1.0 for _ in documents]


HITS = [models.ScoredPoint(id=n, version=0, score=n, payload={"text": "iron"}) for n in range(3)]


@pytest.mark.parametrize(
    ("made", "given"),
    [
        (Calibrator, {"method": "platt"}),
        (Calibrator, {"method": "isotonic", "scores": (0.0, 1.0), "probabilities": (0.1, 0.9)}),
        (Cascade, {"stages": [(Even(), 5), (Even(), None)]}),
        (ClientReranker, {"client": Even(), "model": "a"}),
        (LateInteraction, {"vector": "many", "embedder": lambda text: [[1.0]]}),
        (OpenAIEmbedder, {"base_url": "http://127.0.0.1:1/v1", "model": "a"}),
        (PromptTemplate, {"prefix": "", "body": "{query}{document}", "suffix": ""}),
        (QdrantInference, {"name": "Qdrant/bm25"}),
        (RemoteReranker, {"url": "http://127.0.0.1:1/rerank", "model": "a"}),
        (ScoreCache, {"max_bytes": 1000}),
        (Windows, {}),
        (rerank_points, {"query": "iron", "points": HITS, "reranker": Even()}),
    ],
)
def test_arguments_of_rerankers_and_encoders(made, given):
    """Nothing is asked of a server when one is made."""
    require_ours(made, names(made), given)
