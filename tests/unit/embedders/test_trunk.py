"""e5-small-v2 inside the bundled reranker, as an embedder by name."""

import asyncio
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import AsyncQdrantClient, QdrantClient

from qdrant_rerank import AsyncHybridSearcher, HybridSearcher, TextCrossEncoder
from qdrant_rerank.embedders import load_embedder
from qdrant_rerank.embedders.trunk import TrunkEmbedder
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.specs import DEFAULT_RERANKER, TRUNK_EMBEDDER
from qdrant_rerank.inference.runtime import Runtime

EMBEDDER = load_embedder(TRUNK_EMBEDDER)
# Vectors of e5-small-v2 as it was published, in float64: "query: " or "passage: " before a text of
# at most 512 tokens, the mean of the last states, scaled to unit length.
PUBLISHED = Path(__file__).parents[2] / "models" / "e5_small_v2.npz"
QUERIES = [
    "who wrote it?",
    "how do I shuffle a list in place",
    "effect of vitamin D on bone density",
    "",
]
PASSAGES = [
    "random.shuffle(x)\nShuffle list x in place, and return None.",
    "She wrote it.",
    "Iron melts at 1538 degrees Celsius and boils at 2862.",
    "The [SEP] token separates two texts, [CLS] begins them.",
    "Größe und Gewicht, 東京, naïve café",
    "word " * 900,
    "Vitamin D supplementation did not change bone mineral density at the hip in "
    "community-dwelling adults; at the femoral neck there was a small benefit.",
]


def test_the_vectors_are_those_of_the_published_model():
    """Up to int8: a cosine of 0.99 and more; and each text's own is the nearest."""
    with np.load(PUBLISHED) as published:
        expected = np.concatenate([published["queries"], published["passages"]], dtype=np.float32)
    queries = [EMBEDDER.embed_query(text) for text in QUERIES]
    found = np.concatenate([np.stack(queries), EMBEDDER.embed_documents(PASSAGES)])
    assert found.shape == (len(QUERIES) + len(PASSAGES), EMBEDDER.dimension) == (11, 384)
    cosines = found @ expected.T
    assert np.diag(cosines).min() >= 0.99
    assert (cosines.argmax(1) == np.arange(len(found))).all()


@settings(deadline=None, max_examples=15)
@given(texts=st.lists(st.text(max_size=60), max_size=5), data=st.data())
def test_batch_and_order_never_change_a_vector(texts, data):
    """To the bit, of unit length."""
    alone = [EMBEDDER.embed_documents([text])[0] for text in texts]
    order = data.draw(st.permutations(range(len(texts))))
    together = EMBEDDER.embed_documents([texts[i] for i in order])
    assert together.shape == (len(texts), 384)
    assert together.dtype == np.float32
    for row, i in enumerate(order):
        assert np.array_equal(together[row], alone[i])
        assert np.linalg.norm(alone[i]) == pytest.approx(1, abs=1e-5)


def test_a_query_and_a_document_are_read_otherwise():
    """With the words that e5 was trained to read before them."""
    text = "the melting point of iron"
    assert EMBEDDER.embed_query(text) @ EMBEDDER.embed_documents([text])[0] < 0.999


def test_it_runs_the_session_of_the_reranker():
    """One copy of the weights, whichever is loaded first; another file is another session."""
    reranker = TextCrossEncoder(DEFAULT_RERANKER)
    reranker.rerank("a", ["b"])
    sessions = {
        id(runtime._session)
        for runtime in (
            reranker._model.scorer().runtime,
            EMBEDDER._runtime,
            TrunkEmbedder(max_length=64)._runtime,
        )
    }
    assert len(sessions) == 1
    other = TextCrossEncoder("grown-e5-small-l6-v1")
    assert id(other._model.scorer().runtime._session) not in sessions


def test_both_may_run_at_once():
    """Scores and vectors are those of one at a time."""
    reranker = TextCrossEncoder(DEFAULT_RERANKER)
    scores = reranker.rerank("who wrote it?", PASSAGES[:4])
    vectors = EMBEDDER.embed_documents(PASSAGES[:4])
    with ThreadPoolExecutor(4) as pool:
        ranked = [pool.submit(reranker.rerank, "who wrote it?", PASSAGES[:4]) for _ in range(4)]
        embedded = [pool.submit(EMBEDDER.embed_documents, PASSAGES[:4]) for _ in range(4)]
        assert all(each.result() == scores for each in ranked)
        assert all(np.array_equal(each.result(), vectors) for each in embedded)


def test_a_document_cache_has_it_too(tmp_path, monkeypatch):
    """The reranker split in two gives the same scores, though its file has two outputs."""
    monkeypatch.setenv("QDRANT_RERANK_CACHE", str(tmp_path))
    split = TextCrossEncoder(DEFAULT_RERANKER, document_cache=1_000_000)
    assert split.rerank("who wrote it?", PASSAGES[:3]) == pytest.approx(
        TextCrossEncoder(DEFAULT_RERANKER).rerank("who wrote it?", PASSAGES[:3]), abs=0.3
    )


def test_max_length_is_checked():
    """Before anything is loaded."""
    with pytest.raises(InvalidInputError, match="512"):
        TrunkEmbedder(max_length=513)
    for wrong in (0, "a"):
        with pytest.raises(InvalidInputError, match="max_length is .*; expected "):
            TrunkEmbedder(max_length=wrong)
    short = TrunkEmbedder(max_length=16)
    assert np.array_equal(*short.embed_documents(["word " * 20, "word " * 30]))


def test_it_goes_to_another_process():
    """With its arguments; the model is loaded there."""
    copy = pickle.loads(pickle.dumps(TrunkEmbedder(max_length=16)))
    assert np.array_equal(*copy.embed_documents(["word " * 20, "word " * 30]))


def test_one_text_is_not_several():
    """Its letters would be embedded."""
    with pytest.raises(InvalidInputError, match="texts"):
        EMBEDDER.embed_documents("abc")


def test_a_searcher_records_its_name():
    """In a collection that it creates, and it finds by the words' meaning alone."""
    client = QdrantClient(":memory:")
    with HybridSearcher(
        "notes", client=client, embedder=TRUNK_EMBEDDER, sparse=None, reranker=None
    ) as searcher:
        searcher.add(["Remove a directory and all that is in it.", "The price of copper fell."])
        assert searcher.embedder is EMBEDDER
        [hit, *_] = searcher.search("How do I delete a folder?")
        assert "directory" in hit.payload["text"]
        info = client.get_collection("notes").config
        assert info.params.vectors["dense"].size == 384
        assert TRUNK_EMBEDDER in str(info.metadata)


def test_an_async_searcher_takes_it_by_name():
    """The same embedder."""

    async def search():
        client = AsyncQdrantClient(":memory:")
        async with AsyncHybridSearcher(
            "notes", client=client, embedder=TRUNK_EMBEDDER, sparse=None, reranker=None
        ) as searcher:
            await searcher.add(["Remove a directory and all that is in it.", "Copper fell."])
            return searcher.embedder, await searcher.search("How do I delete a folder?")

    embedder, [hit, *_] = asyncio.run(search())
    assert embedder is EMBEDDER
    assert "directory" in hit.payload["text"]


def test_a_runtime_without_that_output_says_so():
    """Another model's file is no embedder."""
    other = TextCrossEncoder("grown-e5-small-l6-v1")._model
    with pytest.raises(InvalidInputError, match="vector"):
        Runtime(other.files.model, other.plan, output="vector")
