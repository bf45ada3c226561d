"""SearchOptions, checked: one place for what their values may be."""

from collections.abc import Sequence
from typing import Any

from qdrant_client import models

from qdrant_rerank.arguments import require_blend, require_choice, require_positive
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.feedback import Feedback
from qdrant_rerank.types import Fusion, OnMissingText, OnRerankError, SearchOptions

__all__ = ["require_options"]


def require_options(options: SearchOptions) -> None:
    """Raise InvalidInputError unless each value is one that it may be."""
    require_choice("on_missing_text", options.on_missing_text, OnMissingText)
    require_choice("on_rerank_error", options.on_rerank_error, OnRerankError)
    require_blend(options.blend)
    if isinstance(options.fusion, models.Rrf):
        _require_rrf(options.fusion)
    else:
        require_choice("fusion", options.fusion, Fusion)
    for name in ("dense_vector", "sparse_vector"):
        _require_names(name, getattr(options, name))
    for name in ("dense_candidates", "sparse_candidates", "timeout_s"):
        require_positive(name, getattr(options, name))
    if options.recall_threshold is not None:
        _require_number("recall_threshold", options.recall_threshold, "a retrieval score")
    _require_number("diversity", options.diversity, "0 to 1")
    if not 0 <= options.diversity <= 1:
        raise InvalidInputError(f"diversity is {options.diversity}; expected 0 to 1.")
    if options.feedback is not None and not isinstance(options.feedback, Feedback):
        raise InvalidInputError(
            f"feedback is {options.feedback!r:.80}; expected Feedback(), or None for one recall."
        )
    if options.two_phase not in {None, True, False}:
        raise InvalidInputError(f"two_phase is {options.two_phase!r}; expected a bool or None.")
    if options.retries != 0:
        require_positive("retries", options.retries)


def _require_rrf(rrf: models.Rrf) -> None:
    require_positive("the k of Rrf", rrf.k)
    for weight in rrf.weights or []:
        if not 0 <= weight < float("inf"):
            raise InvalidInputError(f"A weight of Rrf is {weight}; expected 0 or more.")


def _require_names(name: str, value: Any) -> None:
    if value is None or isinstance(value, str):
        return
    if not isinstance(value, Sequence) or not value or not all(isinstance(v, str) for v in value):
        raise InvalidInputError(
            f"{name} is {value!r:.80}; expected the name of a vector, several names, or None."
        )
    if len(set(value)) < len(value):
        raise InvalidInputError(f"{name} is {value!r}; expected each name once.")


def _require_number(name: str, value: Any, expected: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124
        raise InvalidInputError(f"{name} is {value!r}; expected {expected}.")
