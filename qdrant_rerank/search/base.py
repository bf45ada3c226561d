"""The parts of a searcher, checked, and its calls as flows: what both searchers share."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn, Self

from qdrant_rerank.embedders import load_embedder, load_sparse
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER
from qdrant_rerank.options import SearchOptions, require_options
from qdrant_rerank.payload import PayloadText, TextSource
from qdrant_rerank.qdrant.documents import Document, PointId
from qdrant_rerank.qdrant.lookups import Query
from qdrant_rerank.qdrant.recall import FirstStage
from qdrant_rerank.qdrant.recall_plan import DenseEncoder, LexicalEncoder
from qdrant_rerank.qdrant.settings import CollectionSettings
from qdrant_rerank.qdrant.transport.steps import CallLimits, Flow
from qdrant_rerank.qdrant.upload import Storage, Upload, add_in_batches
from qdrant_rerank.reranking.grouping import GroupedResults
from qdrant_rerank.reranking.scoring import load_reranker
from qdrant_rerank.search.payload_sizes import PayloadSizes
from qdrant_rerank.search.pipeline import SearchFlow
from qdrant_rerank.search.request import SearchRequest
from qdrant_rerank.types import Reranker, SearchResults
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline
from qdrant_rerank.utils.progress import tqdm
from qdrant_rerank.utils.validation import require_positive

__all__ = ["SearchCore"]

# Hits of all queries that are in memory at a time: 50 MB where a payload has 2,000 characters.
CANDIDATES_AT_ONCE = 12_800
SHOW_AFTER_S = 1  # seconds after which a batch shows its progress


class SearchCore:
    """The parts of a searcher, checked, and the flows of its calls. A base of both searchers.

    Args:
        collection: name of the collection.
        reranker: second stage, or None.
        embedder: dense encoder, or None.
        sparse: sparse encoder, or None.
        text: where a payload's text is.
        candidates: hits that recall hands to the reranker.
        options: see :class:`SearchOptions`.

    Raises:
        InvalidInputError: an argument is of the wrong kind or out of range.
        ModelError: a model cannot be found or loaded.
    """

    def __init__(
        self,
        collection: str,
        *,
        reranker: Reranker | str | Path | None,
        embedder: DenseEncoder | str | Path | None,
        sparse: LexicalEncoder | str | None,
        text: TextSource,
        candidates: int,
        options: SearchOptions | None,
    ) -> None:
        if not isinstance(collection, str) or not collection:
            raise InvalidInputError(
                f"collection is {collection!r}; expected the name of a collection."
            )
        require_positive("candidates", candidates)
        self.options = options or SearchOptions()
        require_options(self.options)
        self.text = PayloadText(text)
        self.candidates = candidates
        if embedder is None and sparse is None:
            raise InvalidInputError("embedder and sparse are both None; recall needs one of them.")
        self.reranker = None if reranker is None else load_reranker(reranker)
        self._first = FirstStage(
            collection,
            None if embedder is None else load_embedder(embedder),
            None if sparse is None else load_sparse(sparse),
            dense_optional=embedder == DEFAULT_EMBEDDER,
            sparse_optional=sparse == "auto",
        )
        self._sizes = PayloadSizes(self.text)

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self._first.collection

    @property
    def embedder(self) -> DenseEncoder | None:
        """The dense encoder, or None."""
        return self._first.embedder

    @property
    def sparse(self) -> LexicalEncoder | None:
        """The sparse encoder, or None."""
        return self._first.sparse

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.collection!r}, reranker={self.reranker!r}, "
            f"embedder={self.embedder!r}, sparse={self.sparse!r})"
        )

    def __reduce__(self) -> NoReturn:
        # TypeError, as Python's own for what cannot be pickled: callers of pickle look for it.
        raise TypeError(
            f"{type(self).__name__} holds a client, which cannot be pickled. Make a searcher in "
            "each process."
        )

    def __copy__(self) -> Self:
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def _terms(self, queries: Sequence[Query], request: SearchRequest) -> CallLimits:
        """Check the arguments of a search, before anything is asked.

        Raises:
            InvalidInputError: one of them is wrong.
        """
        deadline = Deadline.after(request.deadline_s)
        options = request.options or self.options
        request.check(queries, self.candidates)
        require_options(options)
        return CallLimits(options.timeout_s, options.retries, deadline)

    def _add_terms(self) -> CallLimits:
        return CallLimits(self.options.timeout_s, self.options.retries)

    def _fuses_flow(self) -> Flow[bool]:
        plan = yield from self._first.plan(self.options)
        return len(plan.branches) > 1

    def _add_flow(
        self,
        documents: Iterable[Document],
        ids: Iterable[PointId] | None,
        upload: Upload,
        settings: CollectionSettings | None,
    ) -> Flow[int]:
        require_positive("batch_size", upload.batch_size, optional=False)
        require_positive("parallel", upload.parallel, optional=False)
        if settings is not None and not isinstance(settings, CollectionSettings):
            raise InvalidInputError(
                f"settings is a {type(settings).__name__}; expected a CollectionSettings."
            )
        storage = Storage(self._first)
        builder = yield from storage.point_builder(
            self.text, self.options, settings or CollectionSettings()
        )
        return (
            yield from add_in_batches(
                documents,
                ids,
                builder=builder,
                store=storage.store,
                stored_ids=storage.stored_ids,
                upload=upload,
            )
        )

    def _search_flow(
        self, queries: Sequence[Query], request: SearchRequest, terms: CallLimits
    ) -> Flow[list[SearchResults]]:
        """Search for all queries, as many at a time as memory allows."""
        results: list[SearchResults] = []
        size = CANDIDATES_AT_ONCE // request.depth(self.candidates)
        if terms.deadline is not NO_DEADLINE:
            size = len(queries)  # together, so that the first candidates of each are scored
        size = max(size, 1)
        with tqdm(
            total=len(queries),
            unit="query",
            delay=SHOW_AFTER_S,
            disable=None if request.progress is None else not request.progress,
        ) as bar:
            for start in range(0, len(queries), size):
                part = queries[start : start + size]
                results += yield from self._flow(request, terms).search(part)
                bar.update(len(part))
        return results

    def _groups_flow(
        self, query: Query, request: SearchRequest, terms: CallLimits
    ) -> Flow[GroupedResults]:
        """Search for one query, and group its hits."""
        if not isinstance(request.group_by, str) or not request.group_by:
            raise InvalidInputError(f"group_by is {request.group_by!r}; expected a payload field.")
        return (yield from self._flow(request, terms).search_groups(query, request.group_by))

    def _flow(self, request: SearchRequest, terms: CallLimits) -> SearchFlow:
        return SearchFlow(
            self._first,
            self.reranker,
            self.text,
            self._sizes,
            request=request,
            options=request.options or self.options,
            candidates=request.depth(self.candidates),
            terms=terms,
        )
