"""Code that users write; checked by ``mypy --strict`` as part of ``make check``, never run."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from qdrant_rerank import (
    AsyncHybridSearcher,
    Calibrator,
    Evaluation,
    GroupedResults,
    HybridSearcher,
    OpenAIEmbedder,
    PairScores,
    QdrantInference,
    RerankedPoint,
    Reranker,
    SearchOptions,
    SearchResults,
    Snippet,
    SpladeEncoder,
    TextCrossEncoder,
    TextIndex,
    Windows,
    errors,
    evaluate,
    rerank_points,
)
from qdrant_rerank.evaluation import tune


class Shortest:
    """A reranker of the user's own."""

    def rerank(self, query: str, documents: Iterable[str]) -> Iterable[float]:
        """Shorter is better."""
        return [-float(len(document)) for document in documents]


class OfLists:
    """A reranker that takes a list, under names of its own, and returns an array."""

    def rerank(self, question: str, texts: list[str]) -> NDArray[np.float64]:
        """Longer is better."""
        return np.array([len(text) for text in texts], dtype=np.float64)


class OfSequences:
    """A reranker that takes a sequence, with an option of its own."""

    def rerank(self, query: str, documents: Sequence[str], top: int | None = None) -> list[float]:
        """All are alike."""
        return [0.0] * len(documents)


class EmbedderOfLists:
    """An embedder that takes lists."""

    name = "lists"
    dimension = 4

    def embed_query(self, query: str) -> NDArray[np.float32]:
        """The same for all."""
        return np.ones(4, dtype=np.float32)

    def embed_documents(self, documents: list[str]) -> NDArray[np.float32]:
        """The same for all."""
        return np.ones((len(documents), 4), dtype=np.float32)


class Encoding:
    """Has the calls of a SentenceTransformer, as far as they count here."""

    def encode(self, inputs: list[str], convert_to_numpy: bool = True) -> list[list[float]]:
        """The same for all."""
        return [[1.0]] * len(inputs)


def vectors(texts: list[str]) -> list[list[float]]:
    """A function of texts."""
    return [[1.0]] * len(texts)


async def awaited_vectors(texts: list[str]) -> NDArray[np.float32]:
    """A coroutine function of texts."""
    return np.ones((len(texts), 4), dtype=np.float32)


class Ones:
    """An embedder of the user's own."""

    name = "ones"
    dimension = 4

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """The same for all."""
        return np.ones(4, dtype=np.float32)

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same for all."""
        return np.ones((len(texts), 4), dtype=np.float32)


def measure(searcher: HybridSearcher) -> tuple[float, str]:
    """So does everything that an evaluation and a sweep find."""
    queries, qrels = {"q": "a question"}, {"q": {"d": 1}}
    found: Evaluation = evaluate({"one": searcher}, queries, qrels, measures=["RR"])
    gain: float = found["one"].gains["RR"].mean
    return gain, tune(searcher, queries, qrels, blends=[0.5, "rrf"], fusions=["dbsf"]).call


def search(client: QdrantClient) -> tuple[str | int, float | None, list[models.ScoredPoint]]:
    """Everything that a search returns has a type."""
    reranker: Reranker = Shortest()
    searcher = HybridSearcher("docs", client=client, reranker=reranker, embedder=Ones())
    count: int = searcher.add(["a", {"text": "b"}], progress=False)
    results: SearchResults = searcher.search("q", limit=count, options=SearchOptions())
    best: RerankedPoint = results[0]
    seconds: float = results.trace.total_s + results.trace.infer_s
    plain: list[models.ScoredPoint] = [*rerank_points("q", results, reranker="x", text=["a", "b"])]
    assert seconds
    return str(best.id), best.rerank_score, plain


def recall(searcher: HybridSearcher, vector: NDArray[np.float32]) -> tuple[list[str | int], str]:
    """Whatever recall searches with, and groups."""
    options = SearchOptions(
        dense_vector=["title", "body"],
        fusion=models.Rrf(k=60, weights=[2.0, 1.0]),
        diversity=0.3,
        consistency=models.ReadConsistencyType.MAJORITY,
    )
    hits: SearchResults = searcher.search(7, offset=10, shard_key_selector="s", options=options)
    hits = searcher.search("q", recall=vector)
    hits = searcher.search("q", recall=[0.1, 0.2], prefetch=models.Prefetch(query=[0.1]))
    hits = searcher.search("q", recall=models.QueryRequest(query=7, using="body"))
    groups: GroupedResults = searcher.search_groups("q", group_by="book", with_lookup="books")
    best: RerankedPoint = groups[0].hits[0]
    others = HybridSearcher("docs", embedder=QdrantInference("a/model"), sparse=TextIndex("body"))
    assert others.is_hybrid()
    return [str(best.id), groups[0].id, str(hits[0].id)], groups.query


def in_time(searcher: HybridSearcher, encoder: TextCrossEncoder) -> tuple[list[float], str]:
    """Deadlines, and what is there when one has passed."""
    options = SearchOptions(on_rerank_error="recall", retries=2)
    results: SearchResults = searcher.search("q", deadline_s=0.2, options=options)
    cause: str | None = results.trace.cause
    assert cause is None or results.trace.retries
    assert searcher.search_batch(["q"], deadline_s=1)
    assert rerank_points("q", results, deadline_s=0.2).trace.status == "partial"
    found: PairScores = encoder.score_pairs([("q", "a")], deadline_s=0.1)
    first: list[float] = found.scores[found.scored].tolist()
    try:
        return encoder.rerank("q", ["a"], deadline_s=0.1), results.trace.status
    except errors.DeadlineError as error:
        return first + error.scores, str(error)


async def in_an_event_loop(client: AsyncQdrantClient) -> list[SearchResults]:
    """The same calls, awaited."""
    async with AsyncHybridSearcher("docs", client=client, embedder=Ones(), concurrency=4) as other:
        count: int = await other.add(["a", {"text": "b"}], progress=False)
        one: SearchResults = await other.search("q", limit=count, deadline_s=0.2)
        return [one, *await other.search_batch(["q"], options=SearchOptions(retries=2))]


def score() -> tuple[list[float], Iterator[float]]:
    """fastembed's calls."""
    encoder = TextCrossEncoder("Xenova/ms-marco-MiniLM-L-6-v2", threads=2, lazy_load=True)
    searcher = HybridSearcher("docs", reranker=encoder, text=lambda payload: str(payload["a"]))
    assert searcher.reranker is encoder
    return encoder.rerank("q", ["a"]), encoder.rerank_pairs([("q", "a")], parallel=0)


def long_and_calibrated(hits: SearchResults) -> tuple[str, int | None]:
    """Windows, snippets, activations, heads and calibration."""
    calibrate: Calibrator = Calibrator.fit([0.1, 2.0], [0, 1], method="isotonic")
    calibrate.save("calibration.json")
    encoder = TextCrossEncoder(
        "bge-reranker-base",
        activation=Calibrator.load("calibration.json"),
        long_documents=Windows(overlap=64, aggregate="mean"),
        label="relevant",
    )
    doubled = TextCrossEncoder("x", activation=lambda logits: 2 * logits, long_documents="windows")
    asked = TextCrossEncoder("Qwen3-Reranker-0.6B", instruction="find code", activation="auto")
    names: list[str] = [encoder.activation, doubled.activation, asked.activation]
    assert names
    snippet: Snippet | None = hits[0].snippet
    return snippet.text if snippet else "", hits.trace.truncated


def title(payload: dict[str, str]) -> str | None:
    """A text function of the user's own."""
    return payload.get("title")


def rerankers_of_users(points: list[models.ScoredPoint]) -> list[SearchResults]:
    """Any type of documents that a list is, whatever the arguments are called."""
    rerankers: list[Reranker] = [Shortest(), OfLists(), OfSequences()]
    HybridSearcher("documents", reranker=OfLists(), embedder=EmbedderOfLists(), text=title)
    HybridSearcher("documents", embedder=vectors, sparse=SpladeEncoder("models/splade"))
    HybridSearcher("documents", embedder=Encoding(), sparse=Path("models/splade"))
    AsyncHybridSearcher("documents", embedder=awaited_vectors, sparse=Encoding())
    HybridSearcher("documents", embedder=OpenAIEmbedder(None, "text-embedding-3-small"))
    AsyncHybridSearcher("documents", reranker=OfSequences(), embedder=EmbedderOfLists())
    return [rerank_points("q", points, reranker=reranker) for reranker in rerankers]


def parts(results: SearchResults, groups: GroupedResults) -> tuple[list[float], list[int]]:
    """A part of the results is results; an item is a hit or a group."""
    first: SearchResults = results[:3]
    best: RerankedPoint = first[0]
    few: GroupedResults = groups[:2]
    return [best.score], [len(few.to_pandas()), len(few.to_dicts()), len(few[0].hits)]
