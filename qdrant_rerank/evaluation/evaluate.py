"""Search with each judged query, and measure the orders before and after reranking.

``evaluate`` uses searchers. ``evaluate_run`` reranks given candidates, without Qdrant. Both take
one query at a time, and keep only ids, scores and times.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client.models import ScoredPoint

from qdrant_rerank.embedders import Bm25Encoder, QdrantInference, TextIndex
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.evaluation.baselines import (
    BM25_NAME,
    Bm25Baseline,
    bi_encoder_inside,
    bi_encoder_key,
    inside_name,
)
from qdrant_rerank.evaluation.collect import (
    Collected,
    Search,
    collect,
    document_id,
    judged_queries,
    progress_bar,
)
from qdrant_rerank.evaluation.compare import with_reranker
from qdrant_rerank.evaluation.corpus import Document
from qdrant_rerank.evaluation.evaluation_result import Configuration, Evaluation, require_names
from qdrant_rerank.evaluation.metrics import (
    RESAMPLES,
    best_order,
    by_query,
    gain_of,
    require_metrics,
)
from qdrant_rerank.evaluation.trec import Qrels, Run
from qdrant_rerank.hub.specs import DEFAULT_RERANKER
from qdrant_rerank.reranking.loading import load_reranker
from qdrant_rerank.reranking.ordering import keep_order
from qdrant_rerank.reranking.rerank import rerank_points
from qdrant_rerank.search.searcher import HybridSearcher
from qdrant_rerank.types import RerankedPoint, Reranker, SearchResults, SearchTrace
from qdrant_rerank.utils.terminal import one_line
from qdrant_rerank.utils.validation import a_type, require_number, require_positive

__all__ = ["METRICS", "evaluate", "evaluate_run"]

#: nDCG as trec_eval computes it (with linear gain), reciprocal rank, average precision.
METRICS = ("nDCG@10", "RR", "AP")
RECALL_AT = (10, 20, 50, 100, 200, 500, 1000)
RerankerLike = Reranker | str | Path | None


def evaluate(
    searcher: HybridSearcher | Mapping[str, HybridSearcher],
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    candidates: int | None = None,
    id_field: str | None = "_id",
    ignore_identical_ids: bool = True,
    measures: Sequence[str] = METRICS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: bool | None = None,
    baseline: bool = False,
) -> Evaluation:
    """Measure what reranking gains and costs on judged queries.

    Args:
        searcher: one searcher, or several by name, which the tables compare.
        queries: texts by id. Queries without judgments are counted, but not searched.
        qrels: grades by query and document id; those of other queries are ignored.
        candidates: hits to rerank; None takes each searcher's own number.
        id_field: payload field with the document id that the qrels use. For a point without it, or
            if this is None, the point's own id counts. If several points belong to one document,
            the best one counts.
        ignore_identical_ids: whether a hit with the query's own id does not count, as in BEIR. In
            some test collections the queries are documents of the corpus.
        measures: metrics, by their names in ir-measures; plots show the first.
        resamples: resamples of the intervals and tests.
        seed: seed of the intervals and tests.
        progress: whether to show a progress bar on stderr; None shows one if stderr is a terminal.
        baseline: whether to measure what a reranker has to beat, too: BM25 alone, over the
            collection of the first searcher, and the bi-encoder inside each bundled reranker, on
            the same candidates.

    Raises:
        InvalidInputError: an argument is wrong, no query is judged, or no candidate is judged.
        MissingDependencyError: ir-measures is not installed.
        QdrantRerankError: see ``HybridSearcher.search``.

    Examples:
        >>> searcher = HybridSearcher("docs")
        >>> documents = [{"_id": "iron", "text": "Iron melts at 1538 C."},
        ...              {"_id": "bread", "text": "Bread is baked in an oven."}]
        >>> added = searcher.add(documents)
        >>> found = evaluate(searcher, {"q": "melting point of iron"}, {"q": {"iron": 1}})
        >>> float(found.configurations[0].values["after"]["RR"].mean())
        1.0
    """
    searchers = searcher if isinstance(searcher, Mapping) else {_name_of(searcher): searcher}
    for name, item in searchers.items():
        if not isinstance(item, HybridSearcher):
            raise InvalidInputError(
                f"{name!r} is {a_type(item)}; expected a HybridSearcher, or several by name."
            )
    require_positive("candidates", candidates)
    if baseline:
        searchers = {**searchers, **_baseline_searchers(searchers)}

    def search_with(one: HybridSearcher) -> Search:
        depth = candidates or one.candidates
        # A hit that is dropped because it has no text was still a candidate.
        missing = one.options.on_missing_text
        options = replace(one.options, on_missing_text="last" if missing == "drop" else missing)

        def search(_: str, query: str) -> tuple[SearchResults, Callable[[RerankedPoint], str]]:
            found = one.search(query, limit=depth, candidates=depth, options=options)
            return found, lambda hit: document_id(hit, id_field)

        return search

    return _evaluate(
        {
            name: (
                search_with(one),
                candidates or one.candidates,
                one.reranker is not None and one.options.on_missing_text == "drop",
            )
            for name, one in searchers.items()
        },
        queries,
        qrels,
        measures=measures,
        resamples=resamples,
        seed=seed,
        progress=progress,
        ignore_identical_ids=ignore_identical_ids,
        arguments={
            "candidates": candidates,
            "id_field": id_field,
            "baseline": baseline,
            "configurations": {name: repr(one) for name, one in searchers.items()},
        },
    )


def evaluate_run(
    run: Run,
    corpus: Mapping[str, Document],
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    reranker: RerankerLike | Mapping[str, RerankerLike] = DEFAULT_RERANKER,
    candidates: int | None = None,
    ignore_identical_ids: bool = True,
    measures: Sequence[str] = METRICS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: bool | None = None,
    baseline: bool = False,
    language: str = "english",
    ranked: bool = True,
) -> Evaluation:
    """Measure reranking of given candidates: a published run, or another engine's hits.

    Args:
        run: documents of each query, best first.
        corpus: documents by id; those of the run are enough.
        queries: as in :func:`evaluate`.
        qrels: as in :func:`evaluate`.
        reranker: a name, a path, an object with ``rerank(query, documents)``, None to keep the
            order, or several of them by name.
        candidates: documents per query to rerank; None reranks all.
        ignore_identical_ids: as in :func:`evaluate`.
        measures: as in :func:`evaluate`.
        resamples: as in :func:`evaluate`.
        seed: as in :func:`evaluate`.
        progress: as in :func:`evaluate`.
        baseline: whether to measure BM25 and the bi-encoder inside each bundled reranker, too, on
            the same candidates; one that several of them hold is measured once. BM25 counts words
            in all candidates of the run.
        language: language of that BM25.
        ranked: whether the run is in an order of relevance; False for a pool that is only written
            down in some order, so that the result does not call it a first stage.

    Raises:
        InvalidInputError: an argument is wrong, a document of the run is not in the corpus, no
            query is judged, or no candidate is judged.
        MissingDependencyError: ir-measures is not installed.
        ModelError: a reranker cannot be loaded, or it failed.
    """
    named = reranker if isinstance(reranker, Mapping) else {_reranker_name(reranker): reranker}
    require_positive("candidates", candidates)
    if not isinstance(run, Mapping) or not all(isinstance(r, Mapping) for r in run.values()):
        raise InvalidInputError(
            "run is no mapping of mappings; expected scores by query and document id, best first."
        )
    if not isinstance(corpus, Mapping):
        raise InvalidInputError(f"corpus is {a_type(corpus)}; expected documents by id.")
    for query, found in run.items():
        for document, score in found.items():
            require_number(f"The score of {document!r:.80} for {query!r:.80}", score, "a number")
            if document in corpus and not hasattr(corpus[document], "content"):
                raise InvalidInputError(
                    f"corpus has {a_type(corpus[document])} for {document!r:.80}; expected a "
                    "Document(id, title, text)."
                )
            if document not in corpus:
                raise InvalidInputError(
                    f"Document {document!r:.80} of query {query!r:.80} is not in the corpus. Pass "
                    "the corpus that the run was made from."
                )
    deepest = max((len(found) for found in run.values()), default=0)
    depth = min(candidates, deepest) if candidates else deepest
    loaded = {name: None if r is None else load_reranker(r) for name, r in named.items()}
    if baseline:
        pool = dict.fromkeys(document for found in run.values() for document in found)
        texts = (corpus[document].content for document in pool)
        loaded |= _unless_named(loaded, BM25_NAME, Bm25Baseline(texts, language))
        inside = _bi_encoders(loaded, {})
        loaded |= {inside_name(name): one for name, one in inside.items()}

    def search_with(one: Reranker | None) -> Search:
        def search(
            identifier: str, query: str
        ) -> tuple[SearchResults, Callable[[RerankedPoint], str]]:
            found = [
                (document, score)
                for document, score in run.get(identifier, {}).items()
                if not (ignore_identical_ids and document == identifier)
            ][:depth]
            points = [
                ScoredPoint(id=row, version=0, score=score, payload={"text": corpus[d].content})
                for row, (d, score) in enumerate(found)
            ]
            if one is None or not points:
                results = SearchResults(
                    keep_order(points), query=query, trace=SearchTrace(status="recall only")
                )
            else:
                results = rerank_points(query, points, reranker=one, text="text")
            return results, lambda hit: found[hit.retrieval_rank - 1][0]

        return search

    return _evaluate(
        {name: (search_with(one), depth, False) for name, one in loaded.items()},
        queries,
        qrels,
        measures=measures,
        resamples=resamples,
        seed=seed,
        progress=progress,
        ignore_identical_ids=ignore_identical_ids,
        arguments={
            "candidates": candidates,
            "baseline": baseline,
            "configurations": {name: repr(one) for name, one in loaded.items()},
        },
        ranked=ranked,
    )


def _baseline_searchers(searchers: Mapping[str, HybridSearcher]) -> dict[str, HybridSearcher]:
    """Return searchers of the baselines by name."""
    if not searchers:
        return {}
    first = next(iter(searchers.values()))
    own = first.sparse
    lexical = isinstance(own, Bm25Encoder | TextIndex | QdrantInference)
    bm25 = HybridSearcher(
        first.collection,
        client=first.client,
        embedder=None,
        sparse=own if lexical else "Qdrant/bm25",
        reranker=None,
        text=first.text.source,
        candidates=first.candidates,
        options=first.options,
    )
    found = _unless_named(searchers, BM25_NAME, bm25)
    inside = _bi_encoders(
        {name: one.reranker for name, one in searchers.items()},
        {name: _first_stage(one) for name, one in searchers.items()},
    )
    return found | {
        inside_name(name): with_reranker(searchers[name], one) for name, one in inside.items()
    }


def _first_stage(searcher: HybridSearcher) -> Hashable:
    """Return what searchers have in common that retrieve the same candidates."""
    parts = (searcher.client, searcher.embedder, searcher.sparse)
    return (
        *map(id, parts),
        searcher.collection,
        searcher.candidates,
        repr(searcher.options),
        repr(searcher.text.source),
    )


def _bi_encoders(
    rerankers: Mapping[str, Reranker | None], stages: Mapping[str, Hashable]
) -> dict[str, Reranker]:
    """Return the bi-encoders inside rerankers by the names of these.

    If several rerankers hold the same one, it is that of the first.

    Args:
        rerankers: by name.
        stages: by the same names, what the candidates come from; a bi-encoder is measured once on
            those of each.
    """
    found: dict[str, Reranker] = {}
    seen = set()
    for name, one in rerankers.items():
        key = (bi_encoder_key(one), stages.get(name))
        if key in seen or inside_name(name) in rerankers:
            continue
        inside = bi_encoder_inside(one)
        if inside is not None:
            seen.add(key)
            found[name] = inside
    return found


def _unless_named(named: Mapping[str, Any], name: str, made: Any) -> dict[str, Any]:
    """Return a baseline by its name; under another one if that is taken."""
    return {f"{name} (baseline)" if name in named else name: made}


def _evaluate(
    searches: Mapping[str, tuple[Search, int, bool]],
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    measures: Sequence[str],
    resamples: int,
    seed: int,
    progress: bool | None,
    ignore_identical_ids: bool,
    arguments: Mapping[str, Any],
    ranked: bool = True,
) -> Evaluation:
    """Measure each configuration on all judged queries; ``searches`` has (search, depth, drops)."""
    require_metrics(measures)
    require_positive("resamples", resamples)
    require_names(list(searches))
    if not searches:
        raise InvalidInputError("There is no configuration to evaluate; expected one or more.")
    judged = judged_queries(queries, qrels)
    configurations = []
    with progress_bar(len(judged) * len(searches), progress) as bar:
        for name, (search, depth, drops) in searches.items():
            bar.set_description(one_line(name))
            collected = collect(
                search,
                judged,
                qrels,
                drops=drops,
                ignore_identical_ids=ignore_identical_ids,
                bar=bar,
            )
            configurations.append(
                _configuration(
                    name, depth, collected, judged, qrels, tuple(measures), resamples, seed
                )
            )
    return Evaluation(
        queries=judged,
        unjudged=len(queries) - len(judged),
        without_relevant=sum(max(qrels[query].values()) == 0 for query in judged),
        measures=tuple(measures),
        configurations=tuple(configurations),
        arguments={**arguments, "ignore_identical_ids": ignore_identical_ids},
        resamples=resamples,
        seed=seed,
        ranked=ranked,
    )


def _configuration(
    name: str,
    depth: int,
    collected: Collected,
    judged: Mapping[str, str],
    qrels: Qrels,
    measures: tuple[str, ...],
    resamples: int,
    seed: int,
) -> Configuration:
    queries = list(judged)
    recall_at = [f"R@{k}" for k in sorted({k for k in RECALL_AT if k < depth} | {depth})]
    first = by_query([*measures, *recall_at], qrels, collected.before, queries)
    after = by_query(measures, qrels, collected.after, queries)
    best = by_query(measures, qrels, best_order(qrels, collected.before), queries)
    before = {measure: first[measure] for measure in measures}
    return Configuration(
        name=name,
        candidates=depth,
        before=collected.before,
        after=collected.after,
        values={"before": before, "after": after, "best": best},
        recall={k: first[k] for k in recall_at},
        gains={
            measure: gain_of(before[measure], after[measure], resamples=resamples, seed=seed)
            for measure in measures
        },
        seconds={stage: np.array(values) for stage, values in collected.seconds.items()},
        pairs=collected.pairs,
        without_text=collected.without_text,
    )


def _name_of(searcher: Any) -> str:
    return _reranker_name(getattr(searcher, "reranker", None))


def _reranker_name(reranker: Any) -> str:
    if reranker is None:
        return "no reranker"
    if isinstance(reranker, str | Path):
        return str(reranker)
    return str(getattr(reranker, "model_name", type(reranker).__name__))
