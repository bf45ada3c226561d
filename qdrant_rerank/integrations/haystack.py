"""Haystack: a retriever over a ``QdrantDocumentStore``, and a ranker; both live in pipelines."""

import asyncio
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from qdrant_client import models

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER, DEFAULT_RERANKER
from qdrant_rerank.integrations.shared import (
    as_text,
    missing,
    require_all,
    require_page,
    rerank_payloads,
    scores_of_hit,
)
from qdrant_rerank.payload import TextSource
from qdrant_rerank.qdrant.recall_request import read_filter
from qdrant_rerank.reranking.loading import load_reranker
from qdrant_rerank.search.searcher import HybridSearcher
from qdrant_rerank.types import RerankedPoint, RerankerLike
from qdrant_rerank.utils.fork import ForkLock
from qdrant_rerank.utils.validation import a_type, shown

try:
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.errors import FilterError
    from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
    from haystack_integrations.document_stores.qdrant.filters import convert_filters_to_qdrant
except ImportError as error:
    raise missing("haystack-ai and qdrant-haystack", "haystack") from error

__all__ = ["CrossEncoderRanker", "QdrantRerankRetriever"]

#: What the payload of a document has at its top; the rest is another writer's.
FIELDS = {field.name for field in fields(Document)}


@component
class CrossEncoderRanker:
    """Puts documents in the order of a reranker, and keeps the best.

    It returns copies, whose score is the reranker's (None for a document without text). Their meta
    gets ``rerank_score``, ``retrieval_score``, which is the score before, and ``retrieval_rank``.
    Of documents with the same id, the first one is ranked.

    Args:
        reranker: see :func:`~qdrant_rerank.rerank_points`. A pipeline can be written as YAML if it
            is a name or a path.
        top_k: documents to keep.
        score_threshold: lowest rerank score to keep; None for all.
        text: what the reranker reads; ``"{meta.title} {content}"`` reads meta, too.

    Raises:
        InvalidInputError: an argument is of the wrong kind or out of range.
    """

    def __init__(
        self,
        reranker: RerankerLike = DEFAULT_RERANKER,
        top_k: int = 10,
        score_threshold: float | None = None,
        text: str = "content",
    ) -> None:
        require_page("top_k", top_k, score_threshold, text=text)
        self.reranker = reranker
        self.top_k = top_k
        self.score_threshold = score_threshold
        self.text = text
        # A name may stand for a model to download, which is for warm_up.
        self._loaded = None if isinstance(reranker, str | Path) else load_reranker(reranker)

    def warm_up(self) -> None:
        """Load the model.

        Raises:
            ModelError: it cannot be found or loaded.
        """
        if self._loaded is None:
            self._loaded = load_reranker(self.reranker)

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a dict.

        Raises:
            InvalidInputError: the reranker is an object, which no dict can hold.
        """
        data: dict[str, Any] = default_to_dict(
            self,
            reranker=written("reranker", self.reranker),
            top_k=self.top_k,
            score_threshold=self.score_threshold,
            text=self.text,
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "CrossEncoderRanker":
        """Make the component of a dict."""
        made: CrossEncoderRanker = default_from_dict(cls, data)
        return made

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """Return the best documents, best first.

        Args:
            query: the question that they should answer.
            documents: in retrieval order.
            top_k: documents to keep; None for the component's.
            score_threshold: lowest rerank score to keep; None for the component's.

        Raises:
            QdrantRerankError: as ``rerank_points``.
        """
        require_all("documents", documents, Document)
        self.warm_up()
        unique = list({document.id: document for document in reversed(documents)}.values())[::-1]
        hits = rerank_payloads(
            query,
            [document.to_dict(flatten=False) for document in unique],
            [document.score for document in unique],
            reranker=self._loaded,
            text=self.text,
            limit=self.top_k if top_k is None else top_k,
            score_threshold=self.score_threshold if score_threshold is None else score_threshold,
        )
        kept = []
        for hit in hits:
            document = unique[int(hit.id)]
            known = scores_of_hit(hit) | {"retrieval_score": document.score}
            kept.append(replace(document, score=hit.rerank_score, meta=document.meta | known))
        return {"documents": kept}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """Do what :meth:`run` does, in a thread."""
        return await asyncio.to_thread(self.run, query, documents, top_k, score_threshold)


@component
class QdrantRerankRetriever:
    """Retrieves documents from a ``QdrantDocumentStore``, reranked.

    A document's score is the one that orders the page. Its meta gets ``rerank_score`` (None if the
    hit was not scored), ``retrieval_score`` and ``retrieval_rank`` (1 for the first).

    Args:
        document_store: the store.
        reranker: see :class:`~qdrant_rerank.HybridSearcher`. A pipeline can be written as YAML if
            it, the embedder and the sparse encoder are names or paths.
        embedder: the model that the store was filled with; None where ``run`` gets
            ``query_embedding`` of another component.
        sparse: the sparse encoder; None for dense retrieval alone.
        top_k: documents to return.
        candidates: hits that the reranker reads.
        filters: which documents to consider, as Haystack or Qdrant have them.
        score_threshold: lowest rerank score to return; None for all.
        text: what the reranker reads.

    Raises:
        InvalidInputError: an argument is of the wrong kind or out of range.
    """

    def __init__(
        self,
        document_store: QdrantDocumentStore,
        reranker: RerankerLike | None = DEFAULT_RERANKER,
        embedder: Any = DEFAULT_EMBEDDER,
        sparse: Any = None,
        top_k: int = 10,
        candidates: int = 100,
        filters: dict[str, Any] | models.Filter | None = None,
        score_threshold: float | None = None,
        text: TextSource = "content",
    ) -> None:
        if not isinstance(document_store, QdrantDocumentStore):
            raise InvalidInputError(
                f"document_store is {a_type(document_store)}; expected a QdrantDocumentStore of "
                "qdrant-haystack."
            )
        require_page("top_k", top_k, score_threshold, candidates=candidates, text=text)
        qdrant_filter(filters)
        self.document_store = document_store
        self.reranker = reranker
        self.embedder = embedder
        self.sparse = sparse
        self.top_k = top_k
        self.candidates = candidates
        self.filters = filters
        self.score_threshold = score_threshold
        self.text = text
        self._searcher: HybridSearcher | None = None
        self._lock = ForkLock()

    def warm_up(self) -> None:
        """Open the store, and load the models.

        Raises:
            QdrantRerankError: as ``HybridSearcher``.
        """
        with self._lock:
            self.document_store._initialize_client()  # as the store's own retrievers do
            client = self.document_store._client
            if self._searcher is None or self._searcher.client is not client:  # closed, reopened
                self._searcher = HybridSearcher(
                    self.document_store.index,
                    client=client,
                    reranker=self.reranker,
                    embedder=self.embedder,
                    # A searcher has an encoder; one that the collection lacks is not used.
                    sparse="auto" if self.embedder is None and not self.sparse else self.sparse,
                    text=self.text,
                    candidates=self.candidates,
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the component as a dict.

        Raises:
            InvalidInputError: a model or ``text`` is an object, which no dict can hold.
        """
        filters = self.filters
        if isinstance(filters, models.Filter):
            filters = filters.model_dump(mode="json", exclude_none=True)
        data: dict[str, Any] = default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            reranker=written("reranker", self.reranker),
            embedder=written("embedder", self.embedder),
            sparse=written("sparse", self.sparse),
            top_k=self.top_k,
            candidates=self.candidates,
            filters=filters,
            score_threshold=self.score_threshold,
            text=written("text", self.text),
        )
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "QdrantRerankRetriever":
        """Make the component of a dict."""
        given = dict(data["init_parameters"])
        if isinstance(given["document_store"], dict):
            given["document_store"] = QdrantDocumentStore.from_dict(given["document_store"])
        made: QdrantRerankRetriever = default_from_dict(cls, data | {"init_parameters": given})
        return made

    def close(self) -> None:
        """Close the store, as Haystack's own retrievers do; the next call opens it again."""
        self.document_store.close()

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        query_embedding: list[float] | None = None,
        filters: dict[str, Any] | models.Filter | None = None,
        top_k: int | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """Return the best documents, best first.

        Args:
            query: the question.
            query_embedding: vector of the question, searched with instead of the embedder's and
                the sparse encoder's.
            filters: which documents to consider; None for the component's.
            top_k: documents to return; None for the component's.
            score_threshold: lowest rerank score to return; None for the component's.

        Raises:
            InvalidInputError: nothing to search with, or an argument is wrong.
            QdrantRerankError: as ``HybridSearcher.search``.
        """
        text = as_text(query)
        query_filter = qdrant_filter(self.filters if filters is None else filters)
        if query_embedding is None and self.embedder is None and self.sparse is None:
            raise InvalidInputError(
                "query_embedding is None, and so are embedder and sparse; expected one of them. "
                "Connect a text embedder's 'embedding' to this component's 'query_embedding'."
            )
        self.warm_up()
        assert self._searcher is not None
        hits = self._searcher.search(
            text,
            self.top_k if top_k is None else top_k,
            recall=query_embedding,
            query_filter=query_filter,
            score_threshold=self.score_threshold if score_threshold is None else score_threshold,
        )
        return {"documents": list(map(document_of, hits))}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str,
        query_embedding: list[float] | None = None,
        filters: dict[str, Any] | models.Filter | None = None,
        top_k: int | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """Do what :meth:`run` does, in a thread."""
        return await asyncio.to_thread(
            self.run, query, query_embedding, filters, top_k, score_threshold
        )


def qdrant_filter(filters: Any) -> models.Filter | None:
    """Return a filter of Haystack's, or of Qdrant's, as Qdrant's.

    Raises:
        InvalidInputError: it is neither.
    """
    if not isinstance(filters, Mapping) or models.Filter.model_fields.keys() & filters:
        return read_filter(filters)
    try:
        made: models.Filter | None = convert_filters_to_qdrant(dict(filters))
    except (FilterError, ValueError) as error:
        raise InvalidInputError(
            f"filters is {shown(filters)}, which Haystack refuses: {error}; expected such as "
            "{'field': 'meta.year', 'operator': '>=', 'value': 2010}, or Qdrant's."
        ) from error
    return made


def document_of(hit: RerankedPoint) -> Document:
    """Return a hit as the document that the store wrote."""
    payload = dict(hit.payload or {})
    stored = payload.get("meta")
    others = {name: value for name, value in payload.items() if name not in FIELDS}
    if isinstance(stored, Mapping):
        others |= stored
    elif stored is not None:  # another writer's
        others["meta"] = stored
    own = {name: payload[name] for name in FIELDS & payload.keys() - {"meta"}}
    return Document.from_dict(own | {"meta": others | scores_of_hit(hit), "score": hit.score})


def written(name: str, model: Any) -> str | list[str] | None:
    """Return a model, or a text source, as a pipeline's YAML holds it.

    Raises:
        InvalidInputError: it is an object.
    """
    if model is None or isinstance(model, str | list):
        return model
    if isinstance(model, Path):
        return str(model)
    raise InvalidInputError(
        f"{name} is {a_type(model)}, which a dict cannot hold; expected a name. Pass one to "
        "write the pipeline, or build the pipeline in Python."
    )
