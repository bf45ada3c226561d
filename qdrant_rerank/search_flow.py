"""What a search and an ``add`` do, as flows: the core that both searchers share.

The request is built by :mod:`~qdrant_rerank.recall`, the order by
:mod:`~qdrant_rerank.reranking`; what is here is their sequence and their times. Nothing is asked
or computed here: :mod:`~qdrant_rerank.flow` says who does.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from qdrant_client import models
from tqdm.auto import tqdm

from qdrant_rerank.arguments import require_positive
from qdrant_rerank.collection_settings import CollectionSettings
from qdrant_rerank.deadline import NEVER, Deadline
from qdrant_rerank.diversity import diversified, without_vectors
from qdrant_rerank.embedders import load_embedder, load_sparse
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.first_stage import FirstStage
from qdrant_rerank.flow import Flow, Terms, compute
from qdrant_rerank.grouping import GroupedResults, RerankedGroup, group_points, lookup_ids
from qdrant_rerank.indexing import Document, PointId
from qdrant_rerank.models import DEFAULT_EMBEDDER
from qdrant_rerank.options import require_options
from qdrant_rerank.ordering import keep_order
from qdrant_rerank.payload_sizes import PayloadSizes
from qdrant_rerank.points import Query, completed, names, selector, text_payload
from qdrant_rerank.query_request import Scope
from qdrant_rerank.recall import DenseEncoder, LexicalEncoder
from qdrant_rerank.recall_flow import Recalled, recall_candidates
from qdrant_rerank.reranking import SecondStage, load_reranker
from qdrant_rerank.search_request import SearchRequest
from qdrant_rerank.text import PayloadText, TextSource
from qdrant_rerank.types import (
    RerankedPoint,
    Reranker,
    SearchOptions,
    SearchResults,
    SearchTrace,
    Status,
)
from qdrant_rerank.uploading import Upload, add_in_batches

__all__ = ["SearchCore"]

# Hits of all queries that are in memory at a time: 50 MB where a payload has 2,000 characters.
CANDIDATES_AT_ONCE = 12_800
SHOW_AFTER_S = 1  # seconds after which a batch shows its progress


@dataclass(frozen=True, slots=True)
class _Ranked:
    """The hits of one query, in order.

    Attributes:
        query: as a text.
        order: hits, best first; with the payload that recall fetched.
        trace: what it took so far.
        early: payload and vectors to return, where they had to be fetched at once; else None.
    """

    query: str
    order: list[RerankedPoint]
    trace: SearchTrace
    early: Mapping[PointId, models.Record] | None


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

    def _terms(self, queries: Sequence[Query], request: SearchRequest) -> Terms:
        """Check the arguments of a search, before anything is asked.

        Raises:
            InvalidInputError: one of them is wrong.
        """
        deadline = Deadline.after(request.deadline_s)
        options = request.options or self.options
        request.check(queries, self.candidates)
        require_options(options)
        if options.feedback is not None and (
            self.reranker is None or request.given or request.lookup_from is not None
        ):
            raise InvalidInputError(
                "feedback needs a reranker and recall by the query's own vectors: no recall=, "
                "prefetch= or lookup_from=. Pass options without feedback."
            )
        return Terms(options.timeout_s, options.retries, deadline)

    def _add_terms(self) -> Terms:
        return Terms(self.options.timeout_s, self.options.retries)

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
        require_positive("batch_size", upload.batch_size)
        require_positive("parallel", upload.parallel)
        if settings is not None and not isinstance(settings, CollectionSettings):
            raise InvalidInputError(
                f"settings is a {type(settings).__name__}; expected a CollectionSettings."
            )
        builder = yield from self._first.point_builder(
            self.text, self.options, settings or CollectionSettings()
        )
        return (
            yield from add_in_batches(
                documents,
                ids,
                builder=builder,
                store=self._first.store,
                stored_ids=self._first.stored_ids,
                upload=upload,
            )
        )

    def _search_flow(
        self, queries: Sequence[Query], request: SearchRequest, terms: Terms
    ) -> Flow[list[SearchResults]]:
        """Search for all queries, as many at a time as memory allows."""
        results: list[SearchResults] = []
        size = CANDIDATES_AT_ONCE // request.depth(self.candidates)
        if terms.deadline is not NEVER:
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
                results += yield from self._part_flow(part, request, terms)
                bar.update(len(part))
        return results

    def _part_flow(
        self, queries: Sequence[Query], request: SearchRequest, terms: Terms
    ) -> Flow[list[SearchResults]]:
        """Recall, rerank, complete the hits; one request to Qdrant for all queries each time."""
        fetches = self._fetches(request, terms)
        last = request.offset + request.limit
        ranked = yield from self._ranked_flow(queries, request, terms, fetches, last=last)
        skipped = 0 if self._pages(request) else request.offset
        orders = [found.order[skipped:] for found in ranked]
        early = ranked[0].early if ranked else None
        orders, fetch_s = yield from self._complete(orders, request, fetches, early)
        return [
            SearchResults(order, query=found.query, trace=_ended(found.trace, fetch_s, terms))
            for found, order in zip(ranked, orders, strict=True)
        ]

    def _groups_flow(
        self, query: Query, request: SearchRequest, terms: Terms
    ) -> Flow[GroupedResults]:
        """Recall and rerank chunks, group them, complete the chunks that are shown."""
        if not isinstance(request.group_by, str) or not request.group_by:
            raise InvalidInputError(f"group_by is {request.group_by!r}; expected a payload field.")
        fetches = self._fetches(request, terms)
        [ranked] = yield from self._ranked_flow([query], request, terms, fetches, last=None)
        groups = group_points(
            ranked.order,
            request.group_by,
            group_size=request.group_size,
            limit=request.offset + request.limit,
        )[request.offset :]
        orders = [group.hits for group in groups]
        orders, fetch_s = yield from self._complete(orders, request, fetches, ranked.early)
        groups = [
            group.model_copy(update={"hits": hits})
            for group, hits in zip(groups, orders, strict=True)
        ]
        looked_at = time.perf_counter()
        if request.with_lookup is not None:
            groups = yield from self._look_up(groups, request)
        fetch_s += time.perf_counter() - looked_at
        return GroupedResults(
            groups, query=ranked.query, trace=_ended(ranked.trace, fetch_s, terms)
        )

    def _ranked_flow(
        self,
        queries: Sequence[Query],
        request: SearchRequest,
        terms: Terms,
        fetches: bool,
        *,
        last: int | None,
    ) -> Flow[list[_Ranked]]:
        """The hits of each query in their final order.

        Args:
            queries: texts, or ids of points.
            request: the arguments of the search.
            terms: what to keep to.
            fetches: whether payload and vectors are fetched later, for what is returned.
            last: hits that are needed of each; None for all.
        """
        options = request.options or self.options
        scope = self._scope(request, fetches)
        stage = self._stage(options)
        began = time.perf_counter()
        recalled = yield from recall_candidates(
            self._first, stage, self.text, queries, request, options, scope, terms
        )
        if scope.with_payload is True and not self._sizes.known:
            payloads = [hit.payload for found in recalled.hits for hit in found]
            yield from compute(lambda: self._sizes.learn(payloads))
        early = None
        if fetches and terms.deadline is not NEVER:
            # What is still to be fetched must not wait for a reranker that takes all of the time.
            early = yield from self._fetch(recalled.hits, request)
        trace = SearchTrace(
            embed_s=recalled.embed_s,
            recall_s=time.perf_counter() - began - recalled.embed_s,
            status="recall only",
        )
        every = None if options.diversity else last
        orders, traces = yield from self._second_stage(
            recalled, stage, request, terms, trace, every
        )
        if options.diversity:
            orders = yield from compute(
                partial(
                    diversified,
                    orders,
                    options.diversity,
                    using=recalled.dense,
                    text=self.text,
                    embedder=self.embedder,
                    limit=last,
                )
            )
            if not fetches:
                orders = [without_vectors(order) for order in orders]
        return [
            _Ranked(
                text,
                order,
                replace(trace, candidates=len(hits), status=_status(hits, trace)),
                early,
            )
            for text, hits, order, trace in zip(
                recalled.texts, recalled.hits, orders, traces, strict=True
            )
        ]

    def _scope(self, request: SearchRequest, fetches: bool) -> Scope:
        """How much recall returns, from where, and with what."""
        depth = request.depth(self.candidates)
        pages = self._pages(request)
        return Scope(
            limit=request.limit if pages else depth,
            offset=request.offset if pages else 0,
            candidates=depth,
            query_filter=request.query_filter,
            shard_key_selector=request.shard_key_selector,
            lookup_from=request.lookup_from,
            with_payload=self._needed_payload(request)
            if fetches
            else selector(request.with_payload),
            with_vectors=False if fetches else names(request.with_vectors),
        )

    def _second_stage(
        self,
        recalled: Recalled,
        stage: SecondStage | None,
        request: SearchRequest,
        terms: Terms,
        trace: SearchTrace,
        limit: int | None,
    ) -> Flow[tuple[list[list[RerankedPoint]], list[SearchTrace]]]:
        """The hits of each query in their order by score, and what it took."""
        if stage is None:
            orders = [
                keep_order(
                    found,
                    limit=limit,
                    score_threshold=request.score_threshold,
                    skipped=request.offset if self._pages(request) else 0,
                )
                for found in recalled.hits
            ]
            return orders, [trace] * len(orders)
        orders, scored = yield from compute(
            partial(
                stage.run,
                list(zip(recalled.texts, recalled.hits, strict=True)),
                limit=limit,
                score_threshold=request.score_threshold,
                blend=(request.options or self.options).blend,
                deadline=terms.deadline,
            )
        )
        return orders, [replace(trace, **scored.trace(row)) for row in range(len(orders))]

    def _stage(self, options: SearchOptions) -> SecondStage | None:
        if self.reranker is None:
            return None
        return SecondStage(
            self.reranker, self.text, options.on_missing_text, options.on_rerank_error
        )

    def _look_up(
        self, groups: Sequence[RerankedGroup], request: SearchRequest
    ) -> Flow[list[RerankedGroup]]:
        """The groups with the points of ``with_lookup``."""
        options = request.options or self.options
        ids = lookup_ids(groups)
        records = yield from self._first.points.look_up(
            list(dict.fromkeys(ids.values())), request.lookup(), options
        )
        return [
            group.model_copy(
                update={"lookup": records.get(ids[group.id]) if group.id in ids else None}
            )
            for group in groups
        ]

    def _complete(
        self,
        orders: list[list[RerankedPoint]],
        request: SearchRequest,
        fetches: bool,
        early: Mapping[PointId, models.Record] | None,
    ) -> Flow[tuple[list[list[RerankedPoint]], float]]:
        """The hits with what the caller wants to see of them, and seconds that it took."""
        if not fetches:
            return orders, 0.0
        began = time.perf_counter()
        records = early
        if records is None:
            records = yield from self._fetch(orders, request)
        return [completed(order, records) for order in orders], time.perf_counter() - began

    def _fetch(
        self, found: Iterable[Iterable[models.ScoredPoint]], request: SearchRequest
    ) -> Flow[Mapping[PointId, models.Record]]:
        """What the caller wants to see of these points."""
        return (
            yield from self._first.points.fetch(
                (hit.id for hits in found for hit in hits),
                request.options or self.options,
                with_payload=request.with_payload,
                with_vectors=request.with_vectors,
                shard_key=request.shard_key_selector,
            )
        )

    def _fetches(self, request: SearchRequest, terms: Terms) -> bool:
        """Whether recall asks only for the texts, and a second request for the rest."""
        options = request.options or self.options
        if self.reranker is None and not options.diversity and request.group_by is None:
            return False
        if request.with_payload is not True or request.with_vectors:
            return True
        if options.two_phase is not None:
            return options.two_phase and self.text.fields is not None
        shown = request.limit * max(request.group_size, 1)
        return terms.deadline is NEVER and self._sizes.pays(request.depth(self.candidates), shown)

    def _pages(self, request: SearchRequest) -> bool:
        """Whether Qdrant's order is the final one, so that it can skip the offset itself."""
        options = request.options or self.options
        return self.reranker is None and not options.diversity and request.group_by is None

    def _needed_payload(self, request: SearchRequest) -> bool | list[str]:
        """The payload that recall needs: texts, and what groups are made by."""
        fields = text_payload(self.text)
        if isinstance(fields, bool) or not request.group_by:
            return fields
        return list(dict.fromkeys([*fields, request.group_by]))


def _ended(trace: SearchTrace, fetch_s: float, terms: Terms) -> SearchTrace:
    return replace(
        trace,
        recall_s=trace.recall_s + fetch_s,
        total_s=time.perf_counter() - terms.began,
        retries=terms.retried,
    )


def _status(found: Sequence[models.ScoredPoint], trace: SearchTrace) -> Status:
    return trace.status if found else "no candidates"
