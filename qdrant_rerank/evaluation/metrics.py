"""Metrics by query, and how certain a difference of two runs is. Pure: no I/O, no model.

ir-measures (which uses trec_eval) computes the metrics. This module adds what it leaves open: which
queries count, what the best order of given candidates reaches, and the interval and the test of a
paired difference.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import InvalidInputError, MissingDependencyError
from qdrant_rerank.evaluation.trec import Qrels, Run
from qdrant_rerank.utils.validation import shown

__all__ = [
    "Gain",
    "best_order",
    "bootstrap_interval",
    "by_query",
    "gain_of",
    "holm",
    "randomisation_p",
    "require_metrics",
]

RESAMPLES = 10_000  # another seed moves the ends of an interval by about 1 % of its width
VALUES_AT_ONCE = 4_000_000  # resampled values in memory at the same time: 32 MB


@dataclass(frozen=True, slots=True)
class Gain:
    """The mean of a paired difference over queries.

    Attributes:
        mean: mean of the differences.
        low: lower end of its 95 % bootstrap interval.
        high: upper end of that interval.
        p: p-value of the two-sided randomisation test that there is no difference.
    """

    mean: float
    low: float
    high: float
    p: float


def by_query(
    measures: Sequence[str], qrels: Qrels, run: Run, queries: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Compute metrics for each query.

    Args:
        measures: names of ir-measures, such as "nDCG@10", "RR", "AP", "R@100".
        qrels: grades; each of the queries has some.
        run: documents of each query, best first. Only the order counts, not the scores: trec_eval
            would order equal scores by document id.
        queries: the queries that count. A query without documents in the run scores 0.

    Returns:
        Metric -> shape (len(queries),), float64, in the order of ``queries``.

    Raises:
        InvalidInputError: ir-measures has no such metric.
        MissingDependencyError: ir-measures is not installed.
    """
    parsed = {name: _parse(name) for name in measures}
    ordered = {
        query: {document: -float(rank) for rank, document in enumerate(run[query])}
        for query in queries
        if run.get(query)
    }
    # trec_eval takes only Python's own whole numbers.
    judged = {q: {document: int(grade) for document, grade in qrels[q].items()} for q in queries}
    found = {(measure, query): 0.0 for measure in parsed.values() for query in queries}
    if ordered:
        for item in _ir_measures().iter_calc(list(parsed.values()), judged, ordered):
            found[item.measure, item.query_id] = item.value
    return {
        name: np.array([found[measure, query] for query in queries], dtype=np.float64)
        for name, measure in parsed.items()
    }


def best_order(qrels: Qrels, run: Run) -> Run:
    """Order the candidates by grade, which no reranking of them can beat.

    The highest grade first is the best order for nDCG (swapping two neighbours in the wrong order
    raises the DCG), for reciprocal rank, for average precision and for recall.
    """
    return {
        query: {
            document: float(grade)
            for document, grade in sorted(
                ((document, qrels.get(query, {}).get(document, 0)) for document in found),
                key=lambda item: -item[1],
            )
        }
        for query, found in run.items()
    }


def gain_of(
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Gain:
    """Compute the gain from the first to the second, paired by query.

    Args:
        before: shape (queries,).
        after: shape (queries,), the same queries.
        resamples: resamples of the interval and of the test.
        seed: seed of both; the same seed gives the same result.
    """
    differences = after - before
    low, high = bootstrap_interval(differences, resamples=resamples, seed=seed)
    p = randomisation_p(differences, resamples=resamples, seed=seed)
    return Gain(float(differences.mean()), low, high, p)


def bootstrap_interval(
    differences: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Compute the 95 % percentile interval of the mean, by drawing queries with replacement.

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3; for paired runs
    over queries: Sakai, Evaluating Evaluation Metrics based on the Bootstrap, SIGIR 2006.

    Args:
        differences: shape (queries,).
        resamples: how often to draw.
        seed: the same seed gives the same interval.
    """
    rng = np.random.default_rng(seed)
    count = len(differences)
    means = [
        differences[rng.integers(0, count, (rows, count))].mean(axis=1)
        for rows in _portions(resamples, count)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def randomisation_p(
    differences: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0
) -> float:
    """Compute the two-sided p-value of the paired randomisation test.

    If the two runs were equally good, each difference could as well have the other sign. p is the
    share of sign patterns whose mean is at least as far from 0 as the observed one. All patterns
    are tried if there are at most ``resamples``; else random ones and the observed one. Smucker,
    Allan and Carterette, A Comparison of Statistical Significance Tests for Information Retrieval
    Evaluation, CIKM 2007.

    Args:
        differences: shape (queries,).
        resamples: number of random sign patterns.
        seed: the same seed gives the same p.

    Returns:
        Above 0, at most 1.
    """
    # A query without a difference has only one pattern.
    moved = differences[differences != 0]
    # Sums of the same numbers in another order differ in their last bits.
    seen = abs(float(moved.sum())) - 1e-9 * float(np.abs(moved).sum())
    if 2 ** min(len(moved), 60) <= resamples:
        patterns = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))
        sums = (1 - 2 * (patterns & 1)) @ moved
        return float((np.abs(sums) >= seen).mean())
    rng = np.random.default_rng(seed)
    as_far = 0
    for rows in _portions(resamples, len(moved)):
        signs = 1 - 2 * rng.integers(0, 2, (rows, len(moved)), dtype=np.int8)
        as_far += int((np.abs(signs @ moved) >= seen).sum())
    return (as_far + 1) / (resamples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for the number of tests that were made together.

    The chance that any of them is below 0.05 where nothing differs is then at most 5 %. Holm, A
    Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 1979.

    Args:
        p_values: of tests that need not be independent.

    Returns:
        One per p-value, in the same order: not smaller than it, at most 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    for done, at in enumerate(order):
        highest = max(highest, min(1.0, p_values[at] * (len(p_values) - done)))
        corrected[at] = highest
    return corrected


def require_metrics(measures: Sequence[str]) -> None:
    """Raise, before any work, for an unknown metric or a missing library.

    Raises:
        InvalidInputError: there is no such metric, or none is given.
        MissingDependencyError: ir-measures is not installed.
    """
    if isinstance(measures, str) or not measures:
        raise InvalidInputError(
            f"measures is {shown(measures)}; expected names, such as ['nDCG@10']."
        )
    for name in measures:
        _parse(name)


def _portions(resamples: int, count: int) -> Iterator[int]:
    """Yield numbers of rows that fit in memory at the same time."""
    at_once = max(1, VALUES_AT_ONCE // max(1, count))
    for start in range(0, resamples, at_once):
        yield min(at_once, resamples - start)


def _parse(name: str) -> Any:
    module = _ir_measures()
    try:
        return module.parse_measure(name)
    except (NameError, ValueError, TypeError, SyntaxError) as error:
        raise InvalidInputError(
            f"measure is {name!r}; expected a name of ir-measures, such as nDCG@10, RR or R@100."
        ) from error


def _ir_measures() -> Any:
    try:
        import ir_measures
    except ImportError as error:
        raise MissingDependencyError(
            'Measuring needs ir-measures: pip install "qdrant-rerank[eval]".'
        ) from error
    return ir_measures
