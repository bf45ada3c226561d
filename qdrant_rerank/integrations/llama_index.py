"""LlamaIndex: a retriever over a Qdrant collection, and a postprocessor that reranks nodes."""

import asyncio
from pathlib import Path
from typing import Any

from qdrant_client import models

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.specs import DEFAULT_RERANKER
from qdrant_rerank.integrations.shared import (
    SCORES,
    as_text,
    missing,
    require_all,
    require_page,
    rerank_payloads,
    scores_of_hit,
    text_and_metadata,
)
from qdrant_rerank.payload import TextSource
from qdrant_rerank.payload.writers import LLAMA_INDEX, NODE_FIELD
from qdrant_rerank.qdrant.recall_request import FilterLike
from qdrant_rerank.reranking.loading import load_reranker
from qdrant_rerank.search.async_searcher import AsyncHybridSearcher
from qdrant_rerank.search.searcher import HybridSearcher
from qdrant_rerank.types import RerankedPoint, RerankerLike, SearchResults
from qdrant_rerank.utils.validation import a_type, shown

try:
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import (
        BaseNode,
        MetadataMode,
        NodeWithScore,
        QueryBundle,
        TextNode,
    )
    from llama_index.core.settings import Settings
    from llama_index.core.vector_stores import MetadataFilters
    from llama_index.core.vector_stores.utils import metadata_dict_to_node
except ImportError as error:
    raise missing("llama-index-core", "llama-index") from error

__all__ = ["CrossEncoderPostprocessor", "QdrantRerankRetriever"]


class QdrantRerankRetriever(BaseRetriever):
    """Retrieves nodes from a Qdrant collection, reranked.

    A node's score is the one that orders the page. Its metadata gets ``rerank_score`` (None if the
    hit was not scored), ``retrieval_score`` and ``retrieval_rank`` (1 for the first), which neither
    a language model nor an embedder is shown. A point that LlamaIndex did not write becomes a
    ``TextNode`` with the point's id.

    The text of a query is searched with. ``QueryBundle.embedding`` is not read: LlamaIndex's own
    retrievers put the vector of their model there, and pass the bundle on.

    Args:
        searcher: searches and reranks. ``retrieve`` needs a ``HybridSearcher``; ``aretrieve`` runs
            it in a thread, or awaits an ``AsyncHybridSearcher``.
        similarity_top_k: nodes to return.
        candidates: hits that the reranker reads; None for the searcher's own number.
        query_filter: which points to consider, as of ``HybridSearcher.search``.
        score_threshold: lowest rerank score to return; None for all.
        callback_manager: see LlamaIndex's ``BaseRetriever``.

    Raises:
        InvalidInputError: an argument is of the wrong kind or out of range.
    """

    def __init__(
        self,
        searcher: HybridSearcher | AsyncHybridSearcher,
        *,
        similarity_top_k: int = 10,
        candidates: int | None = None,
        query_filter: FilterLike | None = None,
        score_threshold: float | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        if not isinstance(searcher, HybridSearcher | AsyncHybridSearcher):
            raise InvalidInputError(
                f"searcher is {a_type(searcher)}; expected a HybridSearcher or an "
                "AsyncHybridSearcher. For a QdrantVectorStore call "
                "QdrantRerankRetriever.from_vector_store(store)."
            )
        require_page(
            "similarity_top_k",
            similarity_top_k,
            score_threshold,
            candidates=candidates,
            query_filter=query_filter,
        )
        super().__init__(callback_manager)
        self.searcher = searcher
        self.similarity_top_k = similarity_top_k
        self.candidates = candidates
        self.query_filter = query_filter
        self.score_threshold = score_threshold

    @classmethod
    def from_vector_store(
        cls,
        store: Any,
        embed_model: Any = None,
        *,
        reranker: RerankerLike | None = DEFAULT_RERANKER,
        similarity_top_k: int = 10,
        candidates: int = 100,
        filters: MetadataFilters | None = None,
        score_threshold: float | None = None,
        text: TextSource = LLAMA_INDEX,
        callback_manager: CallbackManager | None = None,
    ) -> "QdrantRerankRetriever":
        """Make a retriever on the collection of LlamaIndex's ``QdrantVectorStore``.

        It uses the store's client, and its sparse vectors if the store is hybrid.

        Args:
            store: the vector store.
            embed_model: the model that the store was filled with, of LlamaIndex or any other that
                :class:`~qdrant_rerank.HybridSearcher` takes; None for ``Settings.embed_model``.
            reranker: see :class:`~qdrant_rerank.HybridSearcher`.
            similarity_top_k: nodes to return.
            candidates: hits that the reranker reads.
            filters: which nodes to consider, as LlamaIndex has them.
            score_threshold: lowest rerank score to return; None for all.
            text: what the reranker reads.
            callback_manager: see LlamaIndex's ``BaseRetriever``.

        Raises:
            InvalidInputError: not such a store, or an argument is out of range.
        """
        if not hasattr(store, "enable_hybrid") or getattr(store, "client", None) is None:
            raise InvalidInputError(
                f"store is {a_type(store)}; expected a QdrantVectorStore of "
                "llama-index-vector-stores-qdrant with a QdrantClient. For another collection, or "
                "an AsyncQdrantClient, pass QdrantRerankRetriever(HybridSearcher(...)) or "
                "QdrantRerankRetriever(AsyncHybridSearcher(...))."
            )
        if not isinstance(filters, MetadataFilters | None):
            raise InvalidInputError(
                f"filters is {a_type(filters)}; expected LlamaIndex's MetadataFilters. Qdrant's "
                "filters are for QdrantRerankRetriever(HybridSearcher(...), query_filter=...)."
            )
        searcher = HybridSearcher(
            store.collection_name,
            client=store.client,
            reranker=reranker,
            embedder=Settings.embed_model if embed_model is None else embed_model,
            sparse=StoreSparse(store) if store.enable_hybrid else None,
            text=text,
            candidates=candidates,
        )
        return cls(
            searcher,
            similarity_top_k=similarity_top_k,
            query_filter=filters and store._build_subfilter(filters),
            score_threshold=score_threshold,
            callback_manager=callback_manager,
        )

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if not isinstance(self.searcher, HybridSearcher):
            raise InvalidInputError(
                "searcher is an AsyncHybridSearcher, which only aretrieve can await; for retrieve "
                "pass a HybridSearcher."
            )
        return self._nodes(
            self.searcher.search(
                as_text(query_bundle.query_str),
                self.similarity_top_k,
                candidates=self.candidates,
                query_filter=self.query_filter,
                score_threshold=self.score_threshold,
            )
        )

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if isinstance(self.searcher, HybridSearcher):
            return await asyncio.to_thread(self._retrieve, query_bundle)
        return self._nodes(
            await self.searcher.search(
                as_text(query_bundle.query_str),
                self.similarity_top_k,
                candidates=self.candidates,
                query_filter=self.query_filter,
                score_threshold=self.score_threshold,
            )
        )

    def _nodes(self, hits: SearchResults) -> list[NodeWithScore]:
        return [
            NodeWithScore(node=with_scores(self._node(hit), scores_of_hit(hit)), score=hit.score)
            for hit in hits
        ]

    def _node(self, hit: RerankedPoint) -> BaseNode:
        payload = hit.payload or {}
        if isinstance(payload.get(NODE_FIELD), str):
            node = metadata_dict_to_node(payload)
            if not node.get_content(metadata_mode=MetadataMode.NONE):
                node.set_content(self.searcher.text(payload) or "")  # stored beside the node
            return node
        content, metadata = text_and_metadata(payload, self.searcher.text, "text", "metadata")
        return TextNode(id_=str(hit.id), text=content, metadata=metadata)


class CrossEncoderPostprocessor(BaseNodePostprocessor):
    """Puts nodes in the order of a reranker, and keeps the best.

    It returns copies, whose score is the reranker's. Their metadata gets ``rerank_score`` (None if
    the node has no text), ``retrieval_score``, which is the score before, and ``retrieval_rank``;
    neither a language model nor an embedder is shown them.

    Args:
        reranker: see :func:`~qdrant_rerank.rerank_points`.
        top_n: nodes to keep; None for all.
        score_threshold: lowest rerank score to keep; None for all.
        metadata_mode: which metadata the reranker reads before the text.
        callback_manager: is told of each reranking.

    Raises:
        InvalidInputError: an argument is of the wrong kind or out of range.
        ModelError: the model cannot be found or loaded.
    """

    reranker: Any
    top_n: int | None = None
    score_threshold: float | None = None
    metadata_mode: MetadataMode = MetadataMode.NONE
    _loaded: Any = PrivateAttr()

    def __init__(
        self,
        reranker: RerankerLike = DEFAULT_RERANKER,
        *,
        top_n: int | None = None,
        score_threshold: float | None = None,
        metadata_mode: MetadataMode = MetadataMode.NONE,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        require_page("top_n", top_n, score_threshold, optional=True)
        if metadata_mode not in set(MetadataMode):
            raise InvalidInputError(
                f"metadata_mode is {shown(metadata_mode)}; expected a MetadataMode, such as "
                "MetadataMode.EMBED."
            )
        loaded = load_reranker(reranker)
        super().__init__(
            reranker=str(reranker) if isinstance(reranker, Path) else reranker,
            top_n=top_n,
            score_threshold=score_threshold,
            metadata_mode=metadata_mode,
            callback_manager=callback_manager or CallbackManager(),
        )
        self._loaded = loaded

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex serialises."""
        return "CrossEncoderPostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InvalidInputError(
                "query_bundle is None; a reranker compares with the query. Pass query_str=..."
            )
        require_all("nodes", nodes, NodeWithScore)
        told = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: str(getattr(self._loaded, "model_name", self.reranker)),
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=told) as event:
            hits = rerank_payloads(
                query_bundle.query_str,
                [{"text": one.node.get_content(metadata_mode=self.metadata_mode)} for one in nodes],
                [one.score for one in nodes],
                reranker=self._loaded,
                text="text",
                limit=self.top_n,
                score_threshold=self.score_threshold,
            )
            kept = []
            for hit in hits:
                before = nodes[int(hit.id)]
                known = scores_of_hit(hit) | {"retrieval_score": before.score}
                node = with_scores(before.node.model_copy(deep=True), known)
                kept.append(NodeWithScore(node=node, score=hit.score))
            event.on_end(payload={EventPayload.NODES: kept})
        return kept


class StoreSparse:
    """The sparse functions of LlamaIndex's ``QdrantVectorStore`` as a ``SparseEncoder``.

    Args:
        store: the vector store.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self.name = str(store.fastembed_sparse_model or "LlamaIndex's sparse encoder")

    def embed_query(self, text: str) -> models.SparseVector:
        """Return the vector of a query."""
        return sparse_vectors(self._store._sparse_query_fn([text]))[0]

    def embed_documents(self, texts: list[str]) -> list[models.SparseVector]:
        """Return one vector per text."""
        return sparse_vectors(self._store._sparse_doc_fn(texts))


def sparse_vectors(encoded: tuple[list[list[int]], list[list[float]]]) -> list[models.SparseVector]:
    """Return vectors of the indices and the values that LlamaIndex's sparse functions return."""
    return [models.SparseVector(indices=i, values=v) for i, v in zip(*encoded, strict=True)]


def with_scores(node: BaseNode, scores: dict[str, Any]) -> BaseNode:
    """Return the node itself, with scores that only a program reads."""
    node.metadata = node.metadata | scores
    for hidden in (node.excluded_llm_metadata_keys, node.excluded_embed_metadata_keys):
        hidden.extend(score for score in SCORES if score not in hidden)
    return node
