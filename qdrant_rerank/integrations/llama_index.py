"""LlamaIndex: a retriever over a Qdrant collection, and a postprocessor that reranks nodes."""

import asyncio
from typing import Any

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.specs import DEFAULT_RERANKER
from qdrant_rerank.integrations.shared import (
    SCORES,
    as_text,
    missing,
    rerank_payloads,
    scores_of_hit,
    text_and_metadata,
)
from qdrant_rerank.payload.writers import NODE_FIELD
from qdrant_rerank.qdrant.recall_request import FilterLike
from qdrant_rerank.reranking.scoring import load_reranker
from qdrant_rerank.search.async_searcher import AsyncHybridSearcher
from qdrant_rerank.search.searcher import HybridSearcher
from qdrant_rerank.types import RerankedPoint, RerankerLike, SearchResults
from qdrant_rerank.utils.validation import a_type, require_number, require_positive

try:
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import (
        BaseNode,
        MetadataMode,
        NodeWithScore,
        QueryBundle,
        TextNode,
    )
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

    Args:
        searcher: searches and reranks. ``retrieve`` needs a ``HybridSearcher``; ``aretrieve`` runs
            it in a thread, or awaits an ``AsyncHybridSearcher``.
        similarity_top_k: nodes to return.
        candidates: hits that the reranker reads; None for the searcher's own number.
        query_filter: which points to consider, as of ``HybridSearcher.search``.
        score_threshold: lowest rerank score to return; None for all.

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
    ) -> None:
        if not isinstance(searcher, HybridSearcher | AsyncHybridSearcher):
            raise InvalidInputError(
                f"searcher is {a_type(searcher)}; expected a HybridSearcher or an "
                "AsyncHybridSearcher, such as HybridSearcher(store.collection_name, "
                "client=store.client, embedder=Settings.embed_model)."
            )
        require_positive("similarity_top_k", similarity_top_k, optional=False)
        super().__init__()
        self.searcher = searcher
        self.similarity_top_k = similarity_top_k
        self.candidates = candidates
        self.query_filter = query_filter
        self.score_threshold = score_threshold

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

    Raises:
        InvalidInputError: an argument is of the wrong kind or out of range.
        ModelError: the model cannot be found or loaded.
    """

    reranker: Any
    top_n: int | None = None
    score_threshold: float | None = None
    metadata_mode: MetadataMode = MetadataMode.NONE

    def __init__(
        self,
        reranker: RerankerLike = DEFAULT_RERANKER,
        *,
        top_n: int | None = None,
        score_threshold: float | None = None,
        metadata_mode: MetadataMode = MetadataMode.NONE,
    ) -> None:
        require_positive("top_n", top_n)
        if score_threshold is not None:
            require_number("score_threshold", score_threshold, "a score, or None for all")
        super().__init__(
            reranker=load_reranker(reranker),
            top_n=top_n,
            score_threshold=score_threshold,
            metadata_mode=metadata_mode,
        )

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
        hits = rerank_payloads(
            query_bundle.query_str,
            [{"text": one.node.get_content(metadata_mode=self.metadata_mode)} for one in nodes],
            [one.score for one in nodes],
            reranker=self.reranker,
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
        return kept


def with_scores(node: BaseNode, scores: dict[str, Any]) -> BaseNode:
    """Return the node itself, with scores that only a program reads."""
    node.metadata = node.metadata | scores
    for hidden in (node.excluded_llm_metadata_keys, node.excluded_embed_metadata_keys):
        hidden.extend(score for score in SCORES if score not in hidden)
    return node
