"""What both searchers have in common: their parts, checked, and how a search starts."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal, NoReturn, Self

from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
from qdrant_rerank.embedders import (
    Bm25Encoder,
    ForeignEmbedder,
    ForeignSparse,
    load_embedder,
    load_sparse,
)
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER
from qdrant_rerank.options import SearchOptions, require_options
from qdrant_rerank.payload import PayloadText, TextChoice, TextSource
from qdrant_rerank.qdrant.lookups import Query
from qdrant_rerank.qdrant.recall import FirstStage
from qdrant_rerank.qdrant.recall_plan import DenseEncoder, LexicalEncoder
from qdrant_rerank.qdrant.transport.driver import CallLimits, Driver
from qdrant_rerank.reranking.cascade import states_encoders
from qdrant_rerank.reranking.loading import load_reranker
from qdrant_rerank.search.languages import language_advice, main_script
from qdrant_rerank.search.payload_sizes import PayloadSizes
from qdrant_rerank.search.pipeline import Search
from qdrant_rerank.search.request import SearchRequest
from qdrant_rerank.types import RerankerLike, SearchResults
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline
from qdrant_rerank.utils.progress import tqdm
from qdrant_rerank.utils.validation import require_positive, shown
from qdrant_rerank.utils.warn import warn_caller

__all__ = ["SearchCore"]

# Hits of all queries that are in memory at a time: 50 MB where a payload has 2,000 characters.
CANDIDATES_AT_ONCE = 12_800
SHOW_AFTER_S = 1  # seconds after which a batch shows its progress


class SearchCore(ABC):
    """The parts of a searcher, checked. A base of both searchers.

    Args:
        collection: name of the collection.
        reranker: the second stage, or None.
        embedder: the dense encoder, or None.
        sparse: the sparse encoder, or None.
        text: where a payload's text is.
        candidates: hits that the reranker reads.
        options: see :class:`SearchOptions`.
        language: language of a BM25 that is given by name; None for the collection's.

    Raises:
        InvalidInputError: an argument is of the wrong kind or out of range.
        ModelError: a model cannot be found or loaded.
    """

    #: Whether a call runs in an event loop, so that an embedder or a reranker can be awaited.
    _in_event_loop = False

    def __init__(
        self,
        collection: str,
        reranker: RerankerLike | None,
        embedder: DenseEncoder | ForeignEmbedder | str | Path | None,
        sparse: LexicalEncoder | ForeignSparse | str | Path | None,
        text: TextSource,
        candidates: int,
        options: SearchOptions | None,
        language: str | None,
    ) -> None:
        if not isinstance(collection, str) or not collection:
            raise InvalidInputError(
                f"collection is {shown(collection)}; expected the name of a collection."
            )
        require_positive("candidates", candidates, optional=False)
        self.options = SearchOptions() if options is None else options
        require_options(self.options)
        self._choice = TextChoice(text)
        self.candidates = candidates
        if embedder is None and sparse is None:
            raise InvalidInputError(
                "embedder and sparse are both None; retrieval needs one of them."
            )
        encoder = None
        if sparse is not None or language is not None:
            encoder = load_sparse(sparse, language)
        self.reranker = (
            None
            if reranker is None
            else load_reranker(reranker, awaits=self._in_event_loop, searches=True)
        )
        self._first = FirstStage(
            collection,
            None
            if embedder is None
            else load_embedder(embedder, in_event_loop=self._in_event_loop),
            encoder,
            dense_optional=embedder == DEFAULT_EMBEDDER,
            sparse_optional=sparse == "auto",
            sparse_by_name=isinstance(sparse, str) and isinstance(encoder, Bm25Encoder),
            language=language,
        )
        self._sizes = PayloadSizes(self._choice)
        self._told_script = False

    @property
    def text(self) -> PayloadText:
        """Reads the text of a payload; its ``source`` says where.

        With ``text="auto"``, the source is "auto" until the first search or ``add`` chose one.
        """
        return self._choice.text

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

    @abstractmethod
    def _driver(self, limits: CallLimits) -> AbstractAsyncContextManager[Driver]:
        """Return a context, entered once the call may begin, of what does its steps."""

    def _limits(self, queries: Sequence[Query], request: SearchRequest) -> CallLimits:
        """Check the arguments of a search before anything is asked, and return its limits.

        Raises:
            InvalidInputError: one of them is wrong.
        """
        deadline = Deadline.after(request.deadline_s)
        options = self.options if request.options is None else request.options
        require_options(options)
        request.check(queries, self.candidates)
        return CallLimits(options.timeout_s, options.retries, deadline, options.consistency)

    def _look_at(self, texts: Sequence[str], kind: Literal["queries", "documents"]) -> None:
        """Warn, once, of texts in a script that the models do not know.

        Args:
            texts: queries of a search, or a batch of documents.
            kind: one such query is enough, but most of the documents have to be so.
        """
        if self._told_script:
            return
        groups = [[text] for text in texts] if kind == "queries" else [texts]
        script = next(filter(None, map(main_script, groups)), None)
        if script is None:
            return
        self._told_script = True
        advice = language_advice(script, self.reranker, self.embedder, self.sparse)
        if advice:
            warn_caller(f"{kind.capitalize()} of {self.collection!r} are in {script}. {advice}")

    def _states_encoder(self) -> TextCrossEncoder | None:
        """Return the cross-encoder whose states documents are stored with: a cascade's last."""
        return next(iter(states_encoders(self.reranker)), None)

    def _own_limits(self) -> CallLimits:
        return CallLimits(self.options.timeout_s, self.options.retries)

    def _pipeline(self, driver: Driver, request: SearchRequest) -> Search:
        return Search(
            driver,
            self._first,
            self.reranker,
            self._choice,
            self._sizes,
            self._look_at,
            request=request,
            options=request.options or self.options,
            candidates=request.depth(self.candidates),
        )

    async def _search_parts(
        self, driver: Driver, queries: Sequence[Query], request: SearchRequest
    ) -> list[SearchResults]:
        """Search for all queries, as many at a time as memory allows."""
        results: list[SearchResults] = []
        size = CANDIDATES_AT_ONCE // request.depth(self.candidates)
        if driver.limits.deadline is not NO_DEADLINE:
            size = len(queries)  # together, so that the first candidates of each are scored
        size = max(size, 1)
        hidden = None if request.progress is None else not request.progress
        with tqdm(total=len(queries), unit="query", delay=SHOW_AFTER_S, disable=hidden) as bar:
            for start in range(0, len(queries), size):
                part = queries[start : start + size]
                results += await self._pipeline(driver, request).search(part)
                bar.update(len(part))
        return results
