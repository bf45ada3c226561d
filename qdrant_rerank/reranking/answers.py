"""What rerankers of others answer -> one score per document, in the order of the documents.

Most of them sort their answer, so a score belongs to the document whose index stands beside it,
never to the document at the same place.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import ModelOutputError
from qdrant_rerank.utils.arrays import NOT_NUMBERS, as_numbers, not_awaited
from qdrant_rerank.utils.validation import a_type

__all__ = ["items_of", "scores_by_index", "scores_by_position", "scores_of"]

SCORES = ("relevance_score", "score")  # names of a score, the first one that is there
LISTS = ("results", "data", "rerank")  # names of the list of items, the first one that is there


def scores_of(answer: Any, count: int, who: str) -> NDArray[np.float64]:
    """Return the scores of an answer: by index if its items have one, else by position.

    Arguments, result and errors are those of :func:`scores_by_position`.
    """
    within = None if isinstance(answer, Sequence | np.ndarray) else _listed(answer)
    if isinstance(within, Sequence) and not isinstance(within, str | bytes):
        return scores_by_index(within, count, who)
    if isinstance(answer, Sequence) and answer and _is_whole(_part(answer[0], "index")):
        return scores_by_index(answer, count, who)
    return scores_by_position(answer, count, who)


def scores_by_position(answer: Any, count: int, who: str) -> NDArray[np.float64]:
    """Return scores that come in the order of the documents.

    Args:
        answer: what the reranker returned.
        count: number of documents.
        who: what answered, for messages.

    Returns:
        Shape (count,), float64, finite.

    Raises:
        ModelOutputError: the answer is not one finite number per document.
    """
    expected = "expected one float per document, in input order."
    # The items of a set, and the keys of a dict, are in no order of the documents.
    if isinstance(answer, str | bytes | Mapping | Set) or not isinstance(answer, Iterable):
        raise ModelOutputError(f"{who} returned {a_type(answer)}; {expected}{not_awaited(answer)}")
    answer = answer if hasattr(answer, "shape") else list(answer)
    try:
        scores = as_numbers(answer, np.float64)
    except NOT_NUMBERS as error:
        first = answer[0] if isinstance(answer, list) else answer
        raise ModelOutputError(f"{who} returned {first!r:.80} as a score; {expected}") from error
    if scores.shape != (count,):
        raise ModelOutputError(
            f"{who} returned scores of shape {scores.shape} for {count} documents; {expected}"
        )
    broken = np.flatnonzero(~np.isfinite(scores))
    if len(broken):
        raise ModelOutputError(
            f"{who} returned {scores[broken[0]]} for document {broken[0]}; expected finite scores."
        )
    return scores


def items_of(answer: Any, who: str) -> Sequence[Any]:
    """Return the items of an answer: the answer itself, or the list in it.

    The list is under ``results``, ``data`` or ``rerank``, as an attribute or as a key.

    Raises:
        ModelOutputError: there is no list.
    """
    found = answer if isinstance(answer, Sequence) else _listed(answer)
    if isinstance(found, str | bytes) or not isinstance(found, Sequence):
        raise ModelOutputError(
            f"{who} answered {answer!r:.80}; expected a list with the index and the score of each "
            "document, or an object that has one as results or data."
        )
    return found


def scores_by_index(
    items: Iterable[Any], count: int, who: str, *, index: str = "index", ordered: bool = False
) -> NDArray[np.float64]:
    """Return the scores of items that say which document they are of.

    Args:
        items: objects or dicts, in any order.
        count: number of documents.
        who: what answered, for messages.
        index: name of an item's document, counted from 0.
        ordered: whether items without any score are taken, best first, as a language model answers
            that only orders the documents. Then the score is 1 / rank.

    Returns:
        Shape (count,), float64, finite.

    Raises:
        ModelOutputError: a document has no item or several, or an item has another index or no
            finite score.
    """
    scores = np.full(count, np.nan)
    listed = list(items)
    by_rank = ordered and all(_score(item) is None for item in listed)
    for rank, item in enumerate(listed, start=1):
        row = _part(item, index)
        if not _is_whole(row):
            raise ModelOutputError(
                f"{who} answered an item with the index {row!r:.80}; expected the number of a "
                f"document, 0 to {count - 1}."
            )
        if not 0 <= row < count:
            raise ModelOutputError(
                f"{who} answered a score for document {row}, but there are {count} documents; "
                f"expected an index of 0 to {count - 1}."
            )
        if not np.isnan(scores[row]):
            raise ModelOutputError(
                f"{who} answered two scores for document {row}; expected one per document."
            )
        scores[row] = 1 / rank if by_rank else _number(_score(item), int(row), who)
    missing = np.flatnonzero(np.isnan(scores))
    if len(missing):
        raise ModelOutputError(
            f"{who} answered {count - len(missing)} scores for {count} documents, and none for "
            f"document {missing[0]}; expected one per document."
        )
    return scores


def _listed(answer: Any) -> Any:
    if isinstance(answer, np.generic | np.ndarray):  # its data are its bytes
        return None
    return next((part for name in LISTS if (part := _part(answer, name)) is not None), None)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _score(item: Any) -> Any:
    return next((value for name in SCORES if (value := _part(item, name)) is not None), None)


def _number(value: Any, row: int, who: str) -> float:
    number = np.nan
    if isinstance(value, int | float | np.number) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # a whole number of hundreds of digits
            number = np.inf
    if not np.isfinite(number):
        raise ModelOutputError(
            f"{who} answered the score {value!r:.80} for document {row}; expected a finite number."
        )
    return number


def _part(value: Any, name: str) -> Any:
    """Return a key of a dict, or an attribute of an object; None where it has none."""
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
