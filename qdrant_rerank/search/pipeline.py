"""One search: retrieve candidates, rerank, diversify, complete the hits.

What is here is the sequence of the steps and their times; a
:class:`~qdrant_rerank.qdrant.transport.driver.Driver` does each step.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from qdrant_client import models

from qdrant_rerank.cross_encoder.document_states import kind_of
from qdrant_rerank.errors import QdrantError
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.payload import TextChoice, lookup_ids, whole_field
from qdrant_rerank.qdrant.lookups import (
    Query,
    completed,
    hidden,
    names,
    remove_states,
    retrieve_points,
    selector,
    text_payload,
)
from qdrant_rerank.qdrant.recall import FirstStage
from qdrant_rerank.qdrant.recall_request import Scope
from qdrant_rerank.qdrant.schema import CollectionStates
from qdrant_rerank.qdrant.stored_states import fetch_states
from qdrant_rerank.qdrant.text_source import settle_by_record
from qdrant_rerank.qdrant.transport.driver import Driver
from qdrant_rerank.reranking.cascade import Cascade, states_encoders
from qdrant_rerank.reranking.diversity import diversified, without_vectors
from qdrant_rerank.reranking.grouping import GroupedResults, RerankedGroup, group_points
from qdrant_rerank.reranking.late_interaction import late_interaction_of
from qdrant_rerank.reranking.ordering import keep_order
from qdrant_rerank.reranking.rerank import SecondStage
from qdrant_rerank.reranking.stored import Stored, StoredLater
from qdrant_rerank.search.candidates import Retrieved, retrieve_candidates
from qdrant_rerank.search.payload_sizes import PayloadSizes
from qdrant_rerank.search.request import SearchRequest
from qdrant_rerank.types import PointId, RerankedPoint, SearchResults, SearchTrace
from qdrant_rerank.utils.deadline import NO_DEADLINE
from qdrant_rerank.utils.spans import span

__all__ = ["Search"]

Records = Mapping[PointId, models.Record]
#: Share of the documents that are read again, though states are stored, from which a warning tells.
MUCH_READ = 0.1
#: Seconds for which a schema with states of another model is not read again.
SCHEMA_S = 1.0


@dataclass(frozen=True, slots=True)
class _Ranked:
    """The hits of several queries, in order.

    Attributes:
        texts: the queries as texts.
        orders: hits of each query, best first, with the payload that was retrieved.
        traces: trace of each query so far.
        early: payload and vectors to return, if they had to be fetched early; else None.
    """

    texts: list[str]
    orders: list[list[RerankedPoint]]
    traces: list[SearchTrace]
    early: Records | None


class Search:
    """One search, of queries that go to Qdrant together.

    Args:
        driver: does the steps, within the limits of the call.
        first: first stage.
        reranker: second stage, or None.
        choice: reads the texts of payloads.
        sizes: how large payloads are; learns from this search.
        look_at: sees the texts of the queries, and the word "queries".
        request: the arguments of the search.
        options: the request's own, or the searcher's.
        candidates: hits per query that are retrieved.
    """

    def __init__(
        self,
        driver: Driver,
        first: FirstStage,
        reranker: Any,
        choice: TextChoice,
        sizes: PayloadSizes,
        look_at: Callable[[Sequence[str], Literal["queries", "documents"]], None],
        *,
        request: SearchRequest,
        options: SearchOptions,
        candidates: int,
    ) -> None:
        self._driver = driver
        self._first = first
        self._choice = choice
        self._sizes = sizes
        self._look_at = look_at
        self._request = request
        self._options = options
        self._candidates = candidates
        self._encoders = states_encoders(reranker)
        self._in_stages = isinstance(reranker, Cascade)
        self._late = late_interaction_of(reranker)
        # Whether the reranker compares the text of the query; a late interaction alone does not.
        self._reads = reranker is not None and reranker is not self._late
        self._stage = (
            None
            if reranker is None
            else SecondStage(reranker, choice, options.on_missing_text, options.on_rerank_error)
        )
        # Whether Qdrant's order is the final one, so that it can skip the offset itself.
        self._pages = reranker is None and not options.diversity and request.group_by is None
        self._fetches = not self._pages and self._fetches_later()

    async def search(self, queries: Sequence[Query]) -> list[SearchResults]:
        """Return the hits of each query; every request to Qdrant is for all queries at once."""
        with span("qdrant_rerank.search") as noted:
            noted.note(collection=self._driver.collection, queries=len(queries))
            offset, last = self._request.offset, self._request.offset + self._request.limit
            ranked = await self._rank(queries, last)
            orders = [order[0 if self._pages else offset :] for order in ranked.orders]
            orders, fetch_s = await self._complete(orders, ranked.early)
            return [
                SearchResults(order, query=text, trace=self._ended(trace, fetch_s))
                for order, text, trace in zip(orders, ranked.texts, ranked.traces, strict=True)
            ]

    async def search_groups(self, query: Query, group_by: str) -> GroupedResults:
        """Retrieve and rerank chunks, group them, complete the chunks that are shown."""
        with span("qdrant_rerank.search_groups") as noted:
            noted.note(collection=self._driver.collection, queries=1)
            request = self._request
            ranked = await self._rank([query], last=None)
            groups = group_points(
                ranked.orders[0],
                group_by,
                group_size=request.group_size,
                limit=request.offset + request.limit,
            )[request.offset :]
            orders, fetch_s = await self._complete([group.hits for group in groups], ranked.early)
            groups = [
                group.model_copy(update={"hits": hits})
                for group, hits in zip(groups, orders, strict=True)
            ]
            looked_at = time.perf_counter()
            if request.with_lookup is not None:
                groups = await self._look_up(groups)
            fetch_s += time.perf_counter() - looked_at
            return GroupedResults(
                groups, query=ranked.texts[0], trace=self._ended(ranked.traces[0], fetch_s)
            )

    async def _rank(self, queries: Sequence[Query], last: int | None) -> _Ranked:
        """Return the hits of each query in their final order.

        Args:
            queries: texts, or ids of points.
            last: hits that are needed per query; None for all.
        """
        options, limits = self._options, self._driver.limits
        await self._settle()
        if self._encoders and self._first.known is None:  # it tells whether there are states
            await self._first.schema(self._driver)
        scope = self._scope()
        began = time.perf_counter()
        found = await retrieve_candidates(
            self._driver,
            self._first,
            self._choice,
            queries,
            self._request,
            options,
            self._sent(scope),
            reranked=self._reads,
            late=self._late,
        )
        if remove_states(hit.payload for hits in found.hits for hit in hits):
            self._first.learn_states()
        self._look_at(found.texts, "queries")
        payloads = [hit.payload for hits in found.hits for hit in hits]
        if scope.with_payload is True and not self._choice.settled:
            await self._driver.compute(self._choice.look, payloads)
        if scope.with_payload is True and not self._sizes.known:
            await self._driver.compute(self._sizes.learn, payloads)
        early = None
        if self._fetches and limits.deadline is not NO_DEADLINE:
            # What is still to be fetched must not wait for a reranker that takes all of the time.
            early = await self._fetch(found.hits)
        stored = await self._stored(found)
        trace = SearchTrace(
            embed_s=found.embed_s,
            recall_s=time.perf_counter() - began - found.embed_s,
            status="recall only",
        )
        orders, traces = await self._score(
            found, trace, None if options.diversity else last, stored
        )
        if stored is not None:
            self._tell_unread(stored.states, traces)
        if options.diversity:
            orders = await self._driver.compute(
                diversified,
                orders,
                options.diversity,
                using=found.dense,
                text=self._choice.text,
                embedder=self._first.embedder,
                limit=last,
            )
            if not self._fetches:
                orders = [without_vectors(order) for order in orders]
        traces = [
            replace(
                trace,
                candidates=len(hits),
                status=trace.status if hits else "no candidates",
                vectors=vectors,
            )
            for trace, hits, vectors in zip(traces, found.hits, found.vectors, strict=True)
        ]
        return _Ranked(found.texts, orders, traces, early)

    def _sent(self, scope: Scope) -> Scope:
        """The scope as it is sent: states of documents are not retrieved with the candidates."""
        if not self._first.has_states:
            return scope
        return replace(scope, with_payload=hidden(scope.with_payload))

    async def _stored(self, found: Retrieved) -> Stored | StoredLater | None:
        """Fetch the states of the candidates, if the collection stores those of the reranker.

        Those of a cascade are fetched when it is known which candidates reach the stage.
        """
        schema = self._first.known
        states = None if schema is None else schema.states
        if states is None or not self._encoders:
            return None
        own = await self._driver.compute(
            lambda: [model for one in self._encoders for model in one.states_models.values()]
        )
        if states.model not in own:
            if time.monotonic() - self._first.read_at > SCHEMA_S:
                states = await self._states_now(states)
            if states is None or states.model not in own:
                return None if states is None else Stored(states, {})
        if self._in_stages:
            fetch = partial(self._fetch_stored, states, own)
            return StoredLater(states, fetch, self._driver.compute)
        ids = [hit.id for hits in found.hits for hit in hits]
        return await self._fetch_stored(states, own, ids)

    async def _fetch_stored(
        self, known: CollectionStates, own: Sequence[bytes], ids: Sequence[PointId]
    ) -> Stored | None:
        """Fetch the states of points; None if the collection stores none any more."""
        states: CollectionStates | None = known
        records = await fetch_states(
            self._driver,
            self._first.collection,
            ids,
            self._options,
            self._request.shard_key_selector,
        )
        kinds = {kind_of(record) for record in records.values()} - {None}
        if kinds - {(known.precision, known.model)}:
            states = await self._states_now(known)
            records = records if states is not None and states.model in own else {}
        return None if states is None else Stored(states, records)

    async def _states_now(self, known: CollectionStates) -> CollectionStates | None:
        """Read the schema again: another process may have changed which states are stored.

        If Qdrant does not answer, it is as it was known.
        """
        self._first.forget()
        try:
            return (await self._first.schema(self._driver)).states
        except QdrantError:
            return known

    def _tell_unread(self, states: CollectionStates, traces: Sequence[SearchTrace]) -> None:
        """Warn, once, if much of what was scored was read again, though states are stored."""
        read = sum(trace.documents_read or 0 for trace in traces)
        stored = sum(trace.documents_stored or 0 for trace in traces)
        named = any(encoder.model_name == states.name for encoder in self._encoders)
        if named and read > MUCH_READ * (read + stored):
            self._first.tell_once(
                "states",
                f"{read} of {read + stored} documents of {self._first.collection!r} were read "
                f"again, since no current states of {states.name} are stored of them. Run "
                f"'qdrant-rerank states --collection {self._first.collection}'.",
            )

    async def _settle(self) -> None:
        """Take the text source that the collection records, if the searcher has none yet."""
        if not self._choice.settled and (self._stage is not None or not self._request.given):
            settle_by_record(self._choice, await self._first.schema(self._driver))

    def _scope(self) -> Scope:
        """How much is retrieved, from where, and with what."""
        request = self._request
        return Scope(
            limit=request.limit if self._pages else self._candidates,
            offset=request.offset if self._pages else 0,
            candidates=self._candidates,
            query_filter=request.filter(),
            shard_key_selector=request.shard_key_selector,
            lookup_from=request.lookup_from,
            with_payload=self._needed_payload()
            if self._fetches
            else selector(request.with_payload),
            with_vectors=False if self._fetches else names(request.with_vectors),
        )

    async def _score(
        self,
        found: Retrieved,
        trace: SearchTrace,
        limit: int | None,
        stored: Stored | StoredLater | None,
    ) -> tuple[list[list[RerankedPoint]], list[SearchTrace]]:
        """Return the hits of each query in their order by score, and its trace so far."""
        threshold = self._request.score_threshold
        if self._stage is None:
            skipped = self._request.offset if self._pages else 0
            orders = [
                keep_order(hits, limit=limit, score_threshold=threshold, skipped=skipped)
                for hits in found.hits
            ]
            return orders, [trace] * len(orders)
        hits = list(zip(found.texts, found.hits, strict=True))
        with span("qdrant_rerank.rerank") as noted:
            noted.note(pairs=sum(map(len, found.hits)))
            awaited = self._stage.awaited or isinstance(stored, StoredLater)
            if awaited and self._driver.awaits:
                orders, scored = await self._stage.run_async(
                    self._driver,
                    hits,
                    limit=limit,
                    score_threshold=threshold,
                    blend=self._options.blend,
                    max_sim=found.max_sim,
                    stored=stored,
                )
            else:
                orders, scored = await self._driver.compute(
                    self._stage.run,
                    hits,
                    limit=limit,
                    score_threshold=threshold,
                    blend=self._options.blend,
                    deadline=self._driver.limits.deadline,
                    max_sim=found.max_sim,
                    stored=stored,
                )
        return orders, [replace(trace, **scored.trace(row)) for row in range(len(orders))]

    async def _look_up(self, groups: Sequence[RerankedGroup]) -> list[RerankedGroup]:
        """Return the groups with the points of ``with_lookup``."""
        ids = lookup_ids(groups)
        place = self._request.lookup()
        records = await retrieve_points(
            self._driver,
            place.collection,
            ids.values(),
            self._options,
            with_payload=True if place.with_payload is None else place.with_payload,
            with_vectors=place.with_vectors or False,
        )
        return [
            group.model_copy(
                update={"lookup": records.get(ids[group.id]) if group.id in ids else None}
            )
            for group in groups
        ]

    async def _complete(
        self, orders: list[list[RerankedPoint]], early: Records | None
    ) -> tuple[list[list[RerankedPoint]], float]:
        """Return the hits with what the caller wants to see of them, and seconds that it took."""
        if not self._fetches:
            return orders, 0.0
        began = time.perf_counter()
        records = await self._fetch(orders) if early is None else early
        return [completed(order, records) for order in orders], time.perf_counter() - began

    async def _fetch(self, found: Iterable[Iterable[models.ScoredPoint]]) -> Records:
        """Return what the caller wants to see of these points."""
        request = self._request
        if request.with_payload is False and not request.with_vectors:
            return {}
        wanted = selector(request.with_payload)
        return await retrieve_points(
            self._driver,
            self._first.collection,
            (hit.id for hits in found for hit in hits),
            self._options,
            with_payload=hidden(wanted) if self._first.has_states else wanted,
            with_vectors=request.with_vectors,
            shard_key=request.shard_key_selector,
        )

    def _fetches_later(self) -> bool:
        """Whether the first request asks only for the texts, and a second one for the rest."""
        request, two_phase = self._request, self._options.two_phase
        if request.with_payload is not True or request.with_vectors:
            return True
        if two_phase is not None:
            return two_phase and self._choice.text.fields is not None
        shown = request.limit * max(request.group_size, 1)
        return self._driver.limits.deadline is NO_DEADLINE and self._sizes.pays(
            self._candidates, shown
        )

    def _needed_payload(self) -> bool | list[str]:
        """The payload that reranking and grouping read."""
        fields = text_payload(self._choice.text)
        if isinstance(fields, bool) or not self._request.group_by:
            return fields
        return list(dict.fromkeys([*fields, whole_field(self._request.group_by)]))

    def _ended(self, trace: SearchTrace, fetch_s: float) -> SearchTrace:
        limits = self._driver.limits
        return replace(
            trace,
            recall_s=trace.recall_s + fetch_s,
            total_s=time.perf_counter() - limits.began,
            retries=limits.retried,
        )
