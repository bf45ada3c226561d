"""Code that users write; checked by ``mypy --strict`` as part of ``make check``, never run."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from qdrant_rerank import (
    AsyncHybridSearcher,
    Calibrator,
    Cascade,
    ClientReranker,
    Evaluation,
    GroupedResults,
    HybridSearcher,
    LateInteraction,
    OpenAIEmbedder,
    PairScores,
    QdrantInference,
    RemoteReranker,
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
from qdrant_rerank.types import RerankerLike


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
    count: int = searcher.add(["a", {"text": "b"}], progress=False, language="german", avg_len=40)
    results: SearchResults = searcher.search("q", limit=count, options=SearchOptions())
    searched: tuple[str, ...] = results.trace.vectors
    best: RerankedPoint = results[0]
    seconds: float = results.trace.total_s + results.trace.infer_s
    plain: list[models.ScoredPoint] = [*rerank_points("q", results, reranker="x", text=["a", "b"])]
    assert seconds
    assert searched
    return str(best.id), best.rerank_score, plain


class LangChainDocument:
    """A document as LangChain types it."""

    def __init__(self, page_content: str) -> None:
        self.page_content = page_content
        self.metadata: dict[Any, Any] = {}


class LlamaIndexNode:
    """A node as LlamaIndex types it."""

    node_id = "node"
    metadata: ClassVar[dict[str, Any]] = {}

    def get_content(self, metadata_mode: str = "none") -> str:
        """The text."""
        return "text"


class LlamaIndexHit:
    """A node with its score as LlamaIndex types it."""

    def __init__(self, node: LlamaIndexNode, score: float | None) -> None:
        self.node = node
        self.score = score


def hits(client: QdrantClient, node: LlamaIndexNode) -> tuple[str | None, int]:
    """Hits of every shape, filters as dicts, and the ids of hits."""
    searcher = HybridSearcher("docs", client=client, text="langchain")
    found = searcher.search("q", query_filter={"must": []})
    records, _ = client.scroll("docs")
    pages: list[SearchResults] = [
        searcher.search(found[0].id, query_filter=models.Filter()),
        rerank_points("q", client.query_points("docs")),
        rerank_points("q", records),
        rerank_points("q", [{"text": "a"}, {"id": 1, "payload": {"text": "b"}}]),
        rerank_points("q", [("a", "text"), ("b", "text")]),
        rerank_points("q", ((n, "text") for n in range(3))),
        rerank_points("q", [LangChainDocument("text")]),
        rerank_points("q", [node]),
        rerank_points("q", [LlamaIndexHit(node, 0.5)]),
    ]
    return pages[0].trace.text or searcher.text.name, found.trace.missing_text


def rerankers_of_others(client: QdrantClient, cohere: object) -> list[HybridSearcher]:
    """Objects of other packages, servers, functions and vectors."""
    remote = RemoteReranker("http://localhost:8080", "m", api="tei", parameters={"truncate": True})
    scores: list[float] = remote.rerank("q", ["a"], deadline_s=1.0)
    late = LateInteraction("colbert", lambda text: np.ones((len(text), 8)))
    best: list[dict[str, Any]] = TextCrossEncoder("x").rank("q", ["a"], 3, return_documents=True)
    rerankers: list[RerankerLike] = [
        remote,
        ClientReranker(cohere, "rerank-v3.5"),
        lambda query, documents: [0.0 for _ in documents],
        late,
        Cascade([(late, 10), (remote, 5), ("x", None)]),
    ]
    assert scores
    assert best
    return [HybridSearcher("docs", client=client, reranker=one) for one in rerankers]


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
    assert HybridSearcher("docs", language="german").is_hybrid()
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
