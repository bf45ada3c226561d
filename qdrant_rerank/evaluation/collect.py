"""Search with each judged query; keep ids, scores and times, but no texts."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from qdrant_client.models import ScoredPoint

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.evaluation.evaluation_result import STAGES
from qdrant_rerank.evaluation.trec import Qrels, Run, require_overlap
from qdrant_rerank.types import UNSCORED, RerankedPoint, SearchResults
from qdrant_rerank.utils.progress import tqdm
from qdrant_rerank.utils.validation import a_type, require_query, shown

__all__ = ["Collected", "Search", "collect", "document_id", "judged_queries", "progress_bar"]

# If no candidate of so many queries is judged, the ids do not match.
QUERIES_UNTIL_DOUBT = 50
HIGHEST_GRADE = 2**31 - 1  # trec_eval's numbers have 32 bits

#: (query id, query text) -> hits, best first, and the id of each hit in the qrels.
Search = Callable[[str, str], tuple[SearchResults, Callable[[RerankedPoint], str]]]


def judged_queries(queries: Mapping[str, str], qrels: Qrels) -> dict[str, str]:
    """Return the queries that have judgments.

    Raises:
        InvalidInputError: no query has judgments, one of them has no text, or a grade is invalid.
    """
    for name, given, expected in (
        ("queries", queries, "texts by id"),
        ("qrels", qrels, "grades by query and document id"),
    ):
        if not isinstance(given, Mapping):
            raise InvalidInputError(f"{name} is {a_type(given)}; expected a mapping, {expected}.")
    require_overlap(queries, qrels, found_in="queries", qrels_in="qrels")
    judged = {query: text for query, text in queries.items() if qrels.get(query)}
    if not judged:
        raise InvalidInputError("None of the queries has a judgment; expected one or more.")
    for query, text in judged.items():
        require_query(text)
        _require_grades(query, qrels[query])
    return judged


def _require_grades(query: str, grades: Any) -> None:
    if not isinstance(grades, Mapping):
        raise InvalidInputError(
            f"The judgments of query {query!r:.80} are {a_type(grades)}; expected grades by "
            "document id, such as {'doc7': 1}."
        )
    for document, grade in grades.items():
        if not isinstance(document, str):
            raise InvalidInputError(
                f"A judged document of query {query!r:.80} is {a_type(document)}, {document!r:.80};"
                " expected its id as a str."
            )
        if not isinstance(grade, int | np.integer) or abs(int(grade)) > HIGHEST_GRADE:
            raise InvalidInputError(
                f"The grade of document {shown(document)} for query {shown(query)} is "
                f"{shown(grade)}; expected a whole number, 0 for what is not relevant."
            )


class Collected:
    """Ids, scores and times of all queries, but no texts."""

    def __init__(self) -> None:
        self.before: Run = {}
        self.after: Run = {}
        self.seconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
        self.pairs = 0
        self.without_text = 0


def collect(
    search: Search,
    judged: Mapping[str, str],
    qrels: Qrels,
    *,
    drops: bool,
    ignore_identical_ids: bool,
    bar: Any,
) -> Collected:
    """Search with one configuration for all judged queries.

    Args:
        search: searches with the configuration.
        judged: texts by id.
        qrels: grades, to notice candidates whose ids do not match.
        drops: whether the configuration drops hits that were not scored.
        ignore_identical_ids: whether a hit with the query's own id does not count.
        bar: progress bar; each query advances it.

    Raises:
        InvalidInputError: no candidate is judged.
    """
    collected = Collected()
    known = 0
    for number, (query, text) in enumerate(judged.items(), start=1):
        results, identify = search(query, text)
        before, after = _orders(results, identify, drops=drops)
        if ignore_identical_ids:
            before.pop(query, None)
            after.pop(query, None)
        collected.before[query], collected.after[query] = before, after
        trace = results.trace
        times = (trace.embed_s, trace.recall_s, trace.tokenize_s, trace.infer_s, trace.total_s)
        for stage, seconds in zip(STAGES, times, strict=True):
            collected.seconds[stage].append(seconds)
        collected.pairs += trace.pairs
        collected.without_text += trace.missing_text
        known += len(before.keys() & qrels[query].keys())
        if not known and number in {QUERIES_UNTIL_DOUBT, len(judged)}:
            seen = (
                f"Not one candidate of {number} queries is judged, so there is nothing to measure. "
                f"A candidate's id is {next(iter(before), None)!r:.80}, a judged one "
                f"{next(iter(qrels[query]))!r:.80}. Pass the qrels of this collection, or the "
                "payload field that holds their ids"
            )
            raise InvalidInputError(f"{seen} (id_field).", command=f"{seen} (--id-field).")
        bar.update()
    return collected


def _orders(
    results: SearchResults, identify: Callable[[RerankedPoint], str], *, drops: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Return document -> score, best first: before reranking, and after it."""
    before: dict[str, float] = {}
    for hit in sorted(results, key=lambda hit: hit.retrieval_rank):
        before.setdefault(identify(hit), hit.retrieval_score)
    after: dict[str, float] = {}
    lowest = 0.0
    for hit in results:
        if hit.score > UNSCORED:
            lowest = hit.score
        elif drops:
            continue
        # The score of an unscored hit is far below all others; only the order counts.
        after.setdefault(identify(hit), hit.score if hit.score > UNSCORED else lowest - 1)
    return before, after


@contextmanager
def progress_bar(total: int, progress: bool | None) -> Iterator[Any]:
    """Make a bar on stderr if ``progress`` is True, or if it is None and stderr is a terminal."""
    disable = None if progress is None else not progress
    with tqdm(total=total, unit="query", disable=disable, leave=False) as bar:
        yield bar


def document_id(hit: ScoredPoint, field: str | None) -> str:
    """Return the id that the qrels use: a payload field's value, else the point's own id."""
    value = None if field is None else (hit.payload or {}).get(field)
    return str(hit.id if value is None else value)
