"""DSPy: a retriever over a Qdrant collection, for programs and as a tool of agents."""

from typing import Any

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.integrations.shared import as_text, missing, require_page, text_and_metadata
from qdrant_rerank.qdrant.recall_request import FilterLike
from qdrant_rerank.search.searcher import HybridSearcher
from qdrant_rerank.utils.validation import a_type

try:
    import dspy
except ImportError as error:
    raise missing("dspy", "dspy") from error

__all__ = ["QdrantRerankRetriever"]


class QdrantRerankRetriever(dspy.Retrieve):
    """Retrieves passages from a Qdrant collection, reranked.

    Called with a query, it returns a ``dspy.Prediction`` with ``passages``, which are texts, and
    the ``scores`` and ``ids`` of their hits, best first.

    Args:
        searcher: searches and reranks.
        k: passages to return.
        query_filter: which points to consider, as of ``HybridSearcher.search``.
        score_threshold: lowest rerank score to return; None for all.

    Raises:
        InvalidInputError: an argument is of the wrong kind or out of range.
    """

    def __init__(
        self,
        searcher: HybridSearcher,
        k: int = 3,
        *,
        query_filter: FilterLike | None = None,
        score_threshold: float | None = None,
    ) -> None:
        if not isinstance(searcher, HybridSearcher):
            raise InvalidInputError(f"searcher is {a_type(searcher)}; expected a HybridSearcher.")
        require_page("k", k, score_threshold, query_filter=query_filter)
        super().__init__(k)
        self.searcher = searcher
        self.query_filter = query_filter
        self.score_threshold = score_threshold

    def forward(self, query: str, k: int | None = None) -> dspy.Prediction:
        """Return the best passages; ``k`` holds for this call."""
        hits = self.searcher.search(
            as_text(query),
            self.k if k is None else k,
            query_filter=self.query_filter,
            score_threshold=self.score_threshold,
        )
        texts = [text_and_metadata(hit.payload, self.searcher.text, "", "")[0] for hit in hits]
        return dspy.Prediction(
            passages=texts, scores=[hit.score for hit in hits], ids=[hit.id for hit in hits]
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> "QdrantRerankRetriever":
        """Return a retriever with the same searcher: optimizers copy the programs it is in."""
        return QdrantRerankRetriever(
            self.searcher,
            self.k,
            query_filter=self.query_filter,
            score_threshold=self.score_threshold,
        )
