"""What one search does, as a flow: recall, rerank, diversify, complete the hits.

The request is built by :mod:`~qdrant_rerank.qdrant.recall_plan`, the order by
:mod:`~qdrant_rerank.reranking.rerank`; what is here is their sequence and their times. Nothing is
asked or computed here: :mod:`~qdrant_rerank.qdrant.transport.steps` says who does.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from qdrant_client import models

from qdrant_rerank.options import SearchOptions
from qdrant_rerank.payload import PayloadText, lookup_ids, whole_field
from qdrant_rerank.qdrant.documents import PointId
from qdrant_rerank.qdrant.lookups import Query, completed, names, selector, text_payload
from qdrant_rerank.qdrant.recall import FirstStage
from qdrant_rerank.qdrant.recall_request import Scope
from qdrant_rerank.qdrant.transport.steps import CallLimits, Flow, compute
from qdrant_rerank.reranking.diversity import diversified, without_vectors
from qdrant_rerank.reranking.grouping import GroupedResults, RerankedGroup, group_points
from qdrant_rerank.reranking.ordering import keep_order
from qdrant_rerank.reranking.rerank import SecondStage
from qdrant_rerank.search.candidates import Recalled, recall_candidates
from qdrant_rerank.search.payload_sizes import PayloadSizes
from qdrant_rerank.search.request import SearchRequest
from qdrant_rerank.types import RerankedPoint, Reranker, SearchResults, SearchTrace
from qdrant_rerank.utils.deadline import NO_DEADLINE

__all__ = ["SearchFlow"]

Records = Mapping[PointId, models.Record]


@dataclass(frozen=True, slots=True)
class _Ranked:
    """The hits of several queries, in order.

    Attributes:
        texts: the queries as texts.
        orders: of each query its hits, best first; with the payload that recall fetched.
        traces: of each query what it took so far.
        early: payload and vectors to return, where they had to be fetched at once; else None.
    """

    texts: list[str]
    orders: list[list[RerankedPoint]]
    traces: list[SearchTrace]
    early: Records | None


class SearchFlow:
    """One search, of queries that go to Qdrant together.

    Args:
        first: first stage.
        reranker: second stage, or None.
        text: reads the texts of payloads.
        sizes: what payloads weigh; learns from this search.
        request: the arguments of the search.
        options: the request's own, or the searcher's.
        candidates: hits that recall returns a query.
        terms: what to keep to.
    """

    def __init__(
        self,
        first: FirstStage,
        reranker: Reranker | None,
        text: PayloadText,
        sizes: PayloadSizes,
        *,
        request: SearchRequest,
        options: SearchOptions,
        candidates: int,
        terms: CallLimits,
    ) -> None:
        self._first = first
        self._text = text
        self._sizes = sizes
        self._request = request
        self._options = options
        self._candidates = candidates
        self._terms = terms
        self._stage = (
            None
            if reranker is None
            else SecondStage(reranker, text, options.on_missing_text, options.on_rerank_error)
        )
        # Whether Qdrant's order is the final one, so that it can skip the offset itself.
        self._pages = reranker is None and not options.diversity and request.group_by is None
        self._fetches = not self._pages and self._fetches_later()

    def search(self, queries: Sequence[Query]) -> Flow[list[SearchResults]]:
        """Recall, rerank, complete the hits; one request to Qdrant for all queries each time."""
        offset, last = self._request.offset, self._request.offset + self._request.limit
        ranked = yield from self._ranked(queries, last)
        orders = [order[0 if self._pages else offset :] for order in ranked.orders]
        orders, fetch_s = yield from self._complete(orders, ranked.early)
        return [
            SearchResults(order, query=text, trace=self._ended(trace, fetch_s))
            for order, text, trace in zip(orders, ranked.texts, ranked.traces, strict=True)
        ]

    def search_groups(self, query: Query, group_by: str) -> Flow[GroupedResults]:
        """Recall and rerank chunks, group them, complete the chunks that are shown."""
        request = self._request
        ranked = yield from self._ranked([query], last=None)
        groups = group_points(
            ranked.orders[0],
            group_by,
            group_size=request.group_size,
            limit=request.offset + request.limit,
        )[request.offset :]
        orders, fetch_s = yield from self._complete([group.hits for group in groups], ranked.early)
        groups = [
            group.model_copy(update={"hits": hits})
            for group, hits in zip(groups, orders, strict=True)
        ]
        looked_at = time.perf_counter()
        if request.with_lookup is not None:
            groups = yield from self._look_up(groups)
        fetch_s += time.perf_counter() - looked_at
        return GroupedResults(
            groups, query=ranked.texts[0], trace=self._ended(ranked.traces[0], fetch_s)
        )

    def _ranked(self, queries: Sequence[Query], last: int | None) -> Flow[_Ranked]:
        """The hits of each query in their final order.

        Args:
            queries: texts, or ids of points.
            last: hits that are needed of each; None for all.
        """
        options = self._options
        scope = self._scope()
        began = time.perf_counter()
        recalled = yield from recall_candidates(
            self._first,
            self._text,
            queries,
            self._request,
            options,
            scope,
            reranked=self._stage is not None,
        )
        if scope.with_payload is True and not self._sizes.known:
            payloads = [hit.payload for found in recalled.hits for hit in found]
            yield from compute(lambda: self._sizes.learn(payloads))
        early = None
        if self._fetches and self._terms.deadline is not NO_DEADLINE:
            # What is still to be fetched must not wait for a reranker that takes all of the time.
            early = yield from self._fetch(recalled.hits)
        trace = SearchTrace(
            embed_s=recalled.embed_s,
            recall_s=time.perf_counter() - began - recalled.embed_s,
            status="recall only",
        )
        orders, traces = yield from self._scored(
            recalled, trace, None if options.diversity else last
        )
        if options.diversity:
            orders = yield from compute(
                partial(
                    diversified,
                    orders,
                    options.diversity,
                    using=recalled.dense,
                    text=self._text,
                    embedder=self._first.embedder,
                    limit=last,
                )
            )
            if not self._fetches:
                orders = [without_vectors(order) for order in orders]
        traces = [
            replace(trace, candidates=len(hits), status=trace.status if hits else "no candidates")
            for trace, hits in zip(traces, recalled.hits, strict=True)
        ]
        return _Ranked(recalled.texts, orders, traces, early)

    def _scope(self) -> Scope:
        """How much recall returns, from where, and with what."""
        request = self._request
        return Scope(
            limit=request.limit if self._pages else self._candidates,
            offset=request.offset if self._pages else 0,
            candidates=self._candidates,
            query_filter=request.query_filter,
            shard_key_selector=request.shard_key_selector,
            lookup_from=request.lookup_from,
            with_payload=self._needed_payload()
            if self._fetches
            else selector(request.with_payload),
            with_vectors=False if self._fetches else names(request.with_vectors),
        )

    def _scored(
        self, recalled: Recalled, trace: SearchTrace, limit: int | None
    ) -> Flow[tuple[list[list[RerankedPoint]], list[SearchTrace]]]:
        """The hits of each query in their order by score, and what it took."""
        threshold = self._request.score_threshold
        if self._stage is None:
            skipped = self._request.offset if self._pages else 0
            orders = [
                keep_order(found, limit=limit, score_threshold=threshold, skipped=skipped)
                for found in recalled.hits
            ]
            return orders, [trace] * len(orders)
        orders, scored = yield from compute(
            partial(
                self._stage.run,
                list(zip(recalled.texts, recalled.hits, strict=True)),
                limit=limit,
                score_threshold=threshold,
                blend=self._options.blend,
                deadline=self._terms.deadline,
            )
        )
        return orders, [replace(trace, **scored.trace(row)) for row in range(len(orders))]

    def _look_up(self, groups: Sequence[RerankedGroup]) -> Flow[list[RerankedGroup]]:
        """The groups with the points of ``with_lookup``."""
        ids = lookup_ids(groups)
        records = yield from self._first.points.look_up(
            list(dict.fromkeys(ids.values())), self._request.lookup(), self._options
        )
        return [
            group.model_copy(
                update={"lookup": records.get(ids[group.id]) if group.id in ids else None}
            )
            for group in groups
        ]

    def _complete(
        self, orders: list[list[RerankedPoint]], early: Records | None
    ) -> Flow[tuple[list[list[RerankedPoint]], float]]:
        """The hits with what the caller wants to see of them, and seconds that it took."""
        if not self._fetches:
            return orders, 0.0
        began = time.perf_counter()
        records = early
        if records is None:
            records = yield from self._fetch(orders)
        return [completed(order, records) for order in orders], time.perf_counter() - began

    def _fetch(self, found: Iterable[Iterable[models.ScoredPoint]]) -> Flow[Records]:
        """What the caller wants to see of these points."""
        return (
            yield from self._first.points.fetch(
                (hit.id for hits in found for hit in hits),
                self._options,
                with_payload=self._request.with_payload,
                with_vectors=self._request.with_vectors,
                shard_key=self._request.shard_key_selector,
            )
        )

    def _fetches_later(self) -> bool:
        """Whether recall asks only for the texts, and a second request for the rest."""
        request, two_phase = self._request, self._options.two_phase
        if request.with_payload is not True or request.with_vectors:
            return True
        if two_phase is not None:
            return two_phase and self._text.fields is not None
        shown = request.limit * max(request.group_size, 1)
        return self._terms.deadline is NO_DEADLINE and self._sizes.pays(self._candidates, shown)

    def _needed_payload(self) -> bool | list[str]:
        """The payload that recall needs: texts, and what groups are made by."""
        fields = text_payload(self._text)
        if isinstance(fields, bool) or not self._request.group_by:
            return fields
        return list(dict.fromkeys([*fields, whole_field(self._request.group_by)]))

    def _ended(self, trace: SearchTrace, fetch_s: float) -> SearchTrace:
        return replace(
            trace,
            recall_s=trace.recall_s + fetch_s,
            total_s=time.perf_counter() - self._terms.began,
            retries=self._terms.retried,
        )
