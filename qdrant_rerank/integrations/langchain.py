"""LangChain: a retriever over a Qdrant collection, and a compressor that reranks documents."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from qdrant_rerank.embedders import ForeignEmbedder
from qdrant_rerank.embedders.adapters import LangChainSparse
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.specs import DEFAULT_RERANKER
from qdrant_rerank.integrations.shared import (
    as_text,
    missing,
    require_all,
    require_page,
    rerank_payloads,
    scores_of_hit,
    text_and_metadata,
)
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.payload import TextSource
from qdrant_rerank.qdrant.recall_request import FilterLike
from qdrant_rerank.reranking.loading import load_reranker
from qdrant_rerank.search.async_searcher import AsyncHybridSearcher
from qdrant_rerank.search.searcher import HybridSearcher
from qdrant_rerank.types import RerankerLike, SearchResults
from qdrant_rerank.utils.validation import a_type

try:
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
        Callbacks,
    )
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.runnables import run_in_executor
except ImportError as error:
    raise missing("langchain-core", "langchain") from error

__all__ = ["CrossEncoderCompressor", "QdrantRerankRetriever"]


class QdrantRerankRetriever(BaseRetriever):
    """Retrieves documents from a Qdrant collection, reranked.

    A document's metadata is what the writer stored, with ``_id`` and ``_collection_name`` as
    langchain-qdrant adds them, and ``rerank_score`` (None if the hit was not scored),
    ``retrieval_score`` and ``retrieval_rank`` (1 for the first).

    Args:
        searcher: searches and reranks. ``invoke`` needs a ``HybridSearcher``; ``ainvoke`` runs it
            in a thread, or awaits an ``AsyncHybridSearcher``.
        k: documents to return.
        candidates: hits that the reranker reads; None for the searcher's own number.
        query_filter: which points to consider, as of ``HybridSearcher.search``. LangChain's
            metadata is below "metadata": ``{"must": [{"key": "metadata.year", ...}]}``.
        score_threshold: lowest rerank score to return; None for all.
        content_payload_key: payload field of a document's text. Where a payload lacks it, the
            searcher's ``text`` reads the text.
        metadata_payload_key: payload field of a document's metadata. Where a payload lacks it, the
            other fields are the metadata.
        name: see LangChain's ``BaseRetriever``.
        tags: see LangChain's ``BaseRetriever``.
        metadata: see LangChain's ``BaseRetriever``.

    Raises:
        InvalidInputError: an argument is of the wrong kind or out of range.
    """

    searcher: Any
    k: int = 4
    candidates: int | None = None
    query_filter: Any = None
    score_threshold: float | None = None
    content_payload_key: str = "page_content"
    metadata_payload_key: str = "metadata"

    def __init__(
        self,
        searcher: HybridSearcher | AsyncHybridSearcher,
        *,
        k: int = 4,
        candidates: int | None = None,
        query_filter: FilterLike | None = None,
        score_threshold: float | None = None,
        content_payload_key: str = "page_content",
        metadata_payload_key: str = "metadata",
        name: str | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(searcher, HybridSearcher | AsyncHybridSearcher):
            raise InvalidInputError(
                f"searcher is {a_type(searcher)}; expected a HybridSearcher or an "
                "AsyncHybridSearcher. For a QdrantVectorStore call "
                "QdrantRerankRetriever.from_vector_store(store)."
            )
        require_page("k", k, score_threshold, candidates=candidates, query_filter=query_filter)
        super().__init__(
            searcher=searcher,
            k=k,
            candidates=candidates,
            query_filter=query_filter,
            score_threshold=score_threshold,
            content_payload_key=content_payload_key,
            metadata_payload_key=metadata_payload_key,
            name=name,
            tags=tags,
            metadata=metadata,
        )

    @classmethod
    def from_vector_store(
        cls,
        store: Any,
        *,
        reranker: RerankerLike | None = DEFAULT_RERANKER,
        k: int = 4,
        candidates: int = 100,
        query_filter: FilterLike | None = None,
        score_threshold: float | None = None,
        text: TextSource | None = None,
    ) -> "QdrantRerankRetriever":
        """Make a retriever on the collection of a langchain-qdrant ``QdrantVectorStore``.

        It uses the store's client, its encoders, its vectors and its retrieval mode.

        Args:
            store: the vector store.
            reranker: see :class:`~qdrant_rerank.HybridSearcher`.
            k: documents to return.
            candidates: hits that the reranker reads.
            query_filter: which points to consider.
            score_threshold: lowest rerank score to return; None for all.
            text: what the reranker reads, such as ``"{metadata.title} {page_content}"``; None for
                the store's text.

        Raises:
            InvalidInputError: not such a store, or an argument is out of range.
        """
        mode = str(getattr(getattr(store, "retrieval_mode", None), "value", ""))
        if mode not in {"dense", "sparse", "hybrid"}:
            raise InvalidInputError(
                f"store is {a_type(store)}; expected a QdrantVectorStore of langchain-qdrant. For "
                "another collection, pass QdrantRerankRetriever(HybridSearcher(...))."
            )
        dense: ForeignEmbedder | str | None = None if mode == "sparse" else store.embeddings
        sparse = None if mode == "dense" else LangChainSparse(store.sparse_embeddings)
        options = SearchOptions(
            dense_vector=None if dense is None else store.vector_name,
            sparse_vector=None if sparse is None else store.sparse_vector_name,
        )
        searcher = HybridSearcher(
            store.collection_name,
            client=store.client,
            reranker=reranker,
            embedder=dense,
            sparse=sparse,
            text=store.content_payload_key if text is None else text,
            candidates=candidates,
            options=options,
        )
        return cls(
            searcher,
            k=k,
            query_filter=query_filter,
            score_threshold=score_threshold,
            content_payload_key=store.content_payload_key,
            metadata_payload_key=store.metadata_payload_key,
        )

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        query_filter: FilterLike | None = None,
    ) -> list[Document]:
        """Return the documents of a query; ``invoke`` takes ``k`` and ``query_filter``, too."""
        if not isinstance(self.searcher, HybridSearcher):
            raise InvalidInputError(
                "searcher is an AsyncHybridSearcher, which only ainvoke can await; for invoke pass "
                "a HybridSearcher."
            )
        return self._documents(
            self.searcher.search(
                as_text(query),
                self.k if k is None else k,
                candidates=self.candidates,
                query_filter=self.query_filter if query_filter is None else query_filter,
                score_threshold=self.score_threshold,
            )
        )

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        query_filter: FilterLike | None = None,
    ) -> list[Document]:
        """Return the documents of a query, awaited."""
        if isinstance(self.searcher, HybridSearcher):
            call = partial(
                self._get_relevant_documents,
                run_manager=run_manager.get_sync(),
                k=k,
                query_filter=query_filter,
            )
            found: list[Document] = await run_in_executor(None, call, query)
            return found
        return self._documents(
            await self.searcher.search(
                as_text(query),
                self.k if k is None else k,
                candidates=self.candidates,
                query_filter=self.query_filter if query_filter is None else query_filter,
                score_threshold=self.score_threshold,
            )
        )

    def _documents(self, hits: SearchResults) -> list[Document]:
        documents = []
        for hit in hits:
            content, metadata = text_and_metadata(
                hit.payload,
                self.searcher.text,
                self.content_payload_key,
                self.metadata_payload_key,
            )
            metadata |= {"_id": hit.id, "_collection_name": self.searcher.collection}
            metadata |= scores_of_hit(hit)
            documents.append(Document(id=str(hit.id), page_content=content, metadata=metadata))
        return documents


class CrossEncoderCompressor(BaseDocumentCompressor):
    """Puts retrieved documents in the order of a reranker, and keeps the best.

    It returns copies. Their metadata is kept, and gets ``rerank_score`` (None if the document has
    no text) and ``retrieval_rank``, the place among the documents that came in.

    Args:
        reranker: see :func:`~qdrant_rerank.rerank_points`.
        top_n: documents to keep; None for all.
        score_threshold: lowest rerank score to keep; None for all.
        text: what the reranker reads; ``"{metadata.title} {page_content}"`` reads metadata, too.

    Raises:
        InvalidInputError: an argument is of the wrong kind or out of range.
        ModelError: the model cannot be found or loaded.
    """

    reranker: Any
    top_n: int | None = 3
    score_threshold: float | None = None
    text: Any = "page_content"

    def __init__(
        self,
        reranker: RerankerLike = DEFAULT_RERANKER,
        *,
        top_n: int | None = 3,
        score_threshold: float | None = None,
        text: TextSource = "page_content",
    ) -> None:
        require_page("top_n", top_n, score_threshold, optional=True, text=text)
        super().__init__(
            reranker=load_reranker(reranker),
            top_n=top_n,
            score_threshold=score_threshold,
            text=text,
        )

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Return the best documents, best first.

        Args:
            documents: in retrieval order.
            query: the question that they should answer.
            callbacks: not used.

        Raises:
            InvalidInputError: the query is blank, or not all are documents.
            QdrantRerankError: as ``rerank_points``.
        """
        require_all("documents", documents, Document)
        hits = rerank_payloads(
            query,
            [{"page_content": d.page_content, "metadata": d.metadata} for d in documents],
            [None] * len(documents),
            reranker=self.reranker,
            text=self.text,
            limit=self.top_n,
            score_threshold=self.score_threshold,
        )
        kept = []
        for hit in hits:
            document = documents[int(hit.id)]
            known = {"rerank_score": hit.rerank_score, "retrieval_rank": hit.retrieval_rank}
            kept.append(document.model_copy(update={"metadata": document.metadata | known}))
        return kept
