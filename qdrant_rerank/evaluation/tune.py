"""Try depths, models, precisions, blends and fusions on judged queries; score each pair once.

The hits of the first stage depend on depth and fusion, so it is searched once for each of them. The
pairs of a query are scored once per model. All orders are made of these scores, by the same code
as in a search.

Configurations are chosen on one random half of the queries and reported on the other. On the same
queries, the best of many would look better than it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.evaluation.collect import document_id, judged_queries, progress_bar
from qdrant_rerank.evaluation.compare import with_reranker
from qdrant_rerank.evaluation.metrics import by_query, require_metrics
from qdrant_rerank.evaluation.trec import Qrels
from qdrant_rerank.evaluation.tuning_result import Point, Tuning, constructor_call, pareto_front
from qdrant_rerank.hub.precision import Precision
from qdrant_rerank.hub.specs import DEFAULT_RERANKER
from qdrant_rerank.options import Blend, Fusion
from qdrant_rerank.payload import AUTO
from qdrant_rerank.payload.choice import choose_text
from qdrant_rerank.reranking.loading import load_reranker
from qdrant_rerank.reranking.ordering import order_by_score
from qdrant_rerank.reranking.scoring import score
from qdrant_rerank.search.searcher import HybridSearcher
from qdrant_rerank.types import RerankedPoint, Reranker, SearchResults
from qdrant_rerank.utils.validation import (
    require_blend,
    require_choice,
    require_number,
    require_positive,
    shown,
)

__all__ = ["BLENDS", "DEPTHS", "tune"]

DEPTHS = (10, 20, 50, 100)
BLENDS: tuple[Blend, ...] = (0.0, 0.2, 0.5, "rrf")
FEWEST_QUERIES = 4  # two to choose on, two to report on; hundreds are better

Model = tuple[str, Precision]


@dataclass(frozen=True, slots=True)
class _Setting:
    """A configuration before it is measured; without a model, the order of the first stage."""

    fusion: Fusion
    depth: int
    model: Model | None
    blend: Blend


def tune(
    searcher: HybridSearcher,
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    rerankers: Sequence[str | Path] = (DEFAULT_RERANKER,),
    precisions: Sequence[Precision] = ("auto",),
    candidates: Sequence[int] = DEPTHS,
    blends: Sequence[Blend] = BLENDS,
    fusions: Sequence[Fusion] = ("rrf", "dbsf"),
    measure: str = "nDCG@10",
    max_ms: float | None = None,
    id_field: str | None = "_id",
    ignore_identical_ids: bool = True,
    seed: int = 0,
    progress: bool | None = None,
) -> Tuning:
    """Find the Pareto front of quality against milliseconds, over all combinations of the values.

    Args:
        searcher: has the collection, the encoders, the text source and the other options.
        queries: texts by id. Queries without judgments are counted, but not searched.
        qrels: grades by query and document id; those of other queries are ignored.
        rerankers: names or paths. The first stage without a reranker is always tried too.
        precisions: precisions of each reranker.
        candidates: numbers of hits to rerank.
        blends: as in ``SearchOptions``.
        fusions: as in ``SearchOptions``; ignored if the searches are only dense or only sparse.
        measure: a metric, by its name in ir-measures; higher is better.
        max_ms: most milliseconds per query of the chosen configuration; None sets no limit.
        id_field: payload field with the document id that the qrels use.
        ignore_identical_ids: whether a hit with the query's own id does not count, as in BEIR.
        seed: seed of the two halves.
        progress: whether to show a progress bar on stderr; None shows one if stderr is a terminal.

    Raises:
        InvalidInputError: an argument is wrong, fewer than 4 queries are judged, or no
            configuration is as fast as ``max_ms``.
        ModelError: a reranker cannot be loaded, or has no such precision.
        MissingDependencyError: ir-measures is not installed.
    """
    require_metrics([measure])
    _require_sweep(rerankers, precisions, candidates, blends, fusions)
    if max_ms is not None:
        require_number("max_ms", max_ms, "milliseconds per query, or None for no limit")
    judged = judged_queries(queries, qrels)
    if len(judged) < FEWEST_QUERIES:
        raise InvalidInputError(
            f"{len(judged)} queries are judged; expected {FEWEST_QUERIES} or more, half to choose "
            "on and half to report on."
        )
    models = {
        (str(name), precision): _load(name, precision)
        for name, precision in product(rerankers, precisions)
    }
    if not searcher.is_hybrid():
        own = searcher.options.fusion
        fusions = (own if isinstance(own, str) else "rrf",)  # nothing is fused
    sweep = _Sweep(with_reranker(searcher, None), models, id_field, measure)
    settings = [
        _Setting(fusion, depth, model, blend)
        for fusion, depth in product(dict.fromkeys(fusions), sorted(set(candidates)))
        for model, blend in ((None, 0.0), *product(models, dict.fromkeys(blends)))
    ]
    with progress_bar(len(judged), progress) as bar:
        for query, text in judged.items():
            ignored = query if ignore_identical_ids else None
            sweep.add(text, qrels[query], settings, ignored)
            bar.update()
    rows = np.random.default_rng(seed).permutation(len(judged))
    halves = np.sort(rows[: len(rows) // 2]), np.sort(rows[len(rows) // 2 :])
    points = [sweep.point(column, setting, *halves) for column, setting in enumerate(settings)]
    fast = [point for point in pareto_front(points) if max_ms is None or point.ms <= max_ms]
    if not fast:
        quickest = min(point.ms for point in points)
        seen = (
            f"is {max_ms}, and the fastest configuration takes {quickest:.1f} ms per query. Allow "
            "more."
        )
        raise InvalidInputError(f"max_ms {seen}", command=f"--max-ms {seen}")
    return Tuning(
        queries=tuple(judged),
        chosen_on=halves[0],
        reported_on=halves[1],
        unjudged=len(queries) - len(judged),
        measure=measure,
        points=tuple(points),
        first_stage=max(
            (p for p in points if p.reranker is None and p.fusion == fusions[0]),
            key=lambda p: p.candidates,
        ),
        pairs=sweep.pairs,
        best=fast[-1],
        call=constructor_call(searcher, fast[-1]),
        arguments={
            "rerankers": [str(name) for name in rerankers],
            "precisions": list(precisions),
            "candidates": list(candidates),
            "blends": list(blends),
            "fusions": list(fusions),
            "measure": measure,
            "max_ms": max_ms,
            "ignore_identical_ids": ignore_identical_ids,
            "seed": seed,
        },
    )


class _Sweep:
    """Values and times of all queries; the texts and scores of a query are not kept."""

    def __init__(
        self,
        first_stage: HybridSearcher,
        models: Mapping[Model, Reranker],
        id_field: str | None,
        measure: str,
    ) -> None:
        self._first = first_stage
        self._models = models
        self._id_field = id_field
        self._measure = measure
        self._values: list[NDArray[np.float64]] = []  # per query, shape (settings,)
        self._recall_s: dict[tuple[Fusion, int], list[float]] = {}
        self._depths: dict[tuple[Fusion, int], list[int]] = {}
        self._scored: dict[Model, tuple[float, int]] = dict.fromkeys(models, (0.0, 0))

    @property
    def pairs(self) -> int:
        """Number of pairs that all models have scored."""
        return sum(pairs for _, pairs in self._scored.values())

    def add(
        self,
        query: str,
        judged: Mapping[str, int],
        settings: Sequence[_Setting],
        ignored: str | None,
    ) -> None:
        """Search and score one query, and measure the order of each setting.

        Args:
            query: the text.
            judged: grades by document id.
            settings: what to measure.
            ignored: id of a document that does not count; None if all count.
        """
        found: dict[tuple[Fusion, int], list[RerankedPoint]] = {}
        for setting in settings:
            key = (setting.fusion, setting.depth)
            if key not in found:
                found[key] = [
                    hit
                    for hit in self._recall(query, *key)
                    if document_id(hit, self._id_field) != ignored
                ]
        read = self._first.text
        if read.source == AUTO:  # nothing was chosen, and this says why
            choose_text(hit.payload for hits in found.values() for hit in hits)
        texts = {}
        for hit in (hit for hits in found.values() for hit in hits):
            if self._first.options.on_missing_text == "raise":
                read.require(hit.payload, f"Point {hit.id!r}")
            if (text := read(hit.payload)) is not None:
                texts[hit.id] = text
        scores = {model: self._score(model, query, texts) for model in self._models}
        run = {}
        for number, setting in enumerate(settings):
            hits = found[setting.fusion, setting.depth]
            by_id = {} if setting.model is None else scores[setting.model]
            rows = [row for row, hit in enumerate(hits) if hit.id in by_id]
            ordered = order_by_score(
                hits,
                rows,
                np.array([by_id[hits[row].id][0] for row in rows]),
                logits=np.array([by_id[hits[row].id][1] for row in rows]),
                keep_unscored=setting.model is None
                or self._first.options.on_missing_text != "drop",
                blend=setting.blend,
            )
            run[str(number)] = dict.fromkeys((document_id(h, self._id_field) for h in ordered), 0.0)
        # Each setting is one more query with the same judgments: one call measures them all.
        columns = list(run)
        qrels = {column: dict(judged) for column in columns}
        self._values.append(by_query([self._measure], qrels, run, columns)[self._measure])

    def point(
        self,
        column: int,
        setting: _Setting,
        chosen_on: NDArray[np.intp],
        reported_on: NDArray[np.intp],
    ) -> Point:
        """Return a setting with its figures."""
        key = (setting.fusion, setting.depth)
        values = np.array([row[column] for row in self._values])
        seconds = float(np.median(self._recall_s[key]))
        if setting.model is not None:
            total, pairs = self._scored[setting.model]
            seconds += float(np.mean(self._depths[key])) * total / max(pairs, 1)
        return Point(
            reranker=None if setting.model is None else setting.model[0],
            precision="auto" if setting.model is None else setting.model[1],
            candidates=setting.depth,
            blend=setting.blend,
            fusion=setting.fusion,
            ms=seconds * 1000,
            values=values,
            chosen_on=float(values[chosen_on].mean()),
            reported_on=float(values[reported_on].mean()),
        )

    def _recall(self, query: str, fusion: Fusion, depth: int) -> SearchResults:
        options = replace(self._first.options, fusion=fusion)
        hits = self._first.search(query, limit=depth, candidates=depth, options=options)
        key = (fusion, depth)
        self._recall_s.setdefault(key, []).append(hits.trace.embed_s + hits.trace.recall_s)
        self._depths.setdefault(key, []).append(len(hits))
        return hits

    def _score(
        self, model: Model, query: str, texts: Mapping[Any, str]
    ) -> dict[Any, tuple[float, float]]:
        """Return the score and the logit of each text."""
        scored = score(self._models[model], [(query, list(texts.values()))])
        seconds, pairs = self._scored[model]
        self._scored[model] = (
            seconds + scored.tokenize_s + scored.infer_s,
            pairs + len(texts),
        )
        values = zip(scored.scores[0].tolist(), scored.logits[0].tolist(), strict=True)
        return dict(zip(texts, values, strict=True))


def _load(name: str | Path, precision: Precision) -> Reranker:
    if precision == "auto":
        loaded: Reranker = load_reranker(str(name))
        return loaded
    return TextCrossEncoder(name, precision=precision)


def _require_sweep(
    rerankers: Sequence[str | Path],
    precisions: Sequence[Precision],
    candidates: Sequence[int],
    blends: Sequence[Blend],
    fusions: Sequence[Fusion],
) -> None:
    given = {
        "rerankers": rerankers,
        "precisions": precisions,
        "candidates": candidates,
        "blends": blends,
        "fusions": fusions,
    }
    for name, values in given.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise InvalidInputError(f"{name} is {shown(values)}; expected a list of one or more.")
    for depth in candidates:
        require_positive("candidates", depth)
    for blend in blends:
        require_blend(blend)
    for fusion in fusions:
        require_choice("fusion", fusion, Fusion)
    for precision in precisions:
        require_choice("precision", precision, Precision)
    for reranker in rerankers:
        if not isinstance(reranker, str | Path):
            raise InvalidInputError(
                f"rerankers holds a {type(reranker).__name__}; expected names or paths, which a "
                "constructor call can be written with."
            )
