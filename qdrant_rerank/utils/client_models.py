"""Models of qdrant-client that not every supported release has.

In the place of one that the installed release lacks stands a class that nothing is an instance of
and that cannot be made: the feature is missing, and everything else works.
"""

import importlib.metadata
from typing import TYPE_CHECKING, Any

from qdrant_client import models

from qdrant_rerank.errors import MissingDependencyError

if TYPE_CHECKING:
    from qdrant_client.models import (
        AcoshExpression,
        Bm25Params,
        Bm25Scoring,
        DenseVectorNameConfig,
        IdTrackerParams,
        MatchPrefix,
        MatchSubstring,
        MaxExpression,
        MinExpression,
        PayloadStorageParams,
        RelevanceFeedbackInput,
        RelevanceFeedbackQuery,
        SliceCondition,
        SparseVectorNameConfig,
        TextQuery,
        TextQueryInput,
        TextScoringParams,
        TurboQuantization,
        UpdateMode,
    )

__all__ = [
    "SINCE",
    "AcoshExpression",
    "Bm25Params",
    "Bm25Scoring",
    "DenseVectorNameConfig",
    "IdTrackerParams",
    "MatchPrefix",
    "MatchSubstring",
    "MaxExpression",
    "MinExpression",
    "PayloadStorageParams",
    "RelevanceFeedbackInput",
    "RelevanceFeedbackQuery",
    "SliceCondition",
    "SparseVectorNameConfig",
    "TextQuery",
    "TextQueryInput",
    "TextScoringParams",
    "TurboQuantization",
    "UpdateMode",
    "optional_field",
]

#: Name of a model -> the first release of qdrant-client that has it.
SINCE = {
    "UpdateMode": "1.17",
    "RelevanceFeedbackInput": "1.17",
    "RelevanceFeedbackQuery": "1.17",
    "DenseVectorNameConfig": "1.18",
    "SparseVectorNameConfig": "1.18",
    "TurboQuantization": "1.18",
    "IdTrackerParams": "1.20",
    "MatchPrefix": "1.19",
    "PayloadStorageParams": "1.19",
    "SliceCondition": "1.19",
    "AcoshExpression": "1.20",
    "Bm25Params": "1.20",
    "Bm25Scoring": "1.20",
    "MatchSubstring": "1.20",
    "MaxExpression": "1.20",
    "MinExpression": "1.20",
    "TextQuery": "1.20",
    "TextQueryInput": "1.20",
    "TextScoringParams": "1.20",
}


def optional_field(model: Any, name: str) -> Any:
    """Return a field of a model; None where the installed release has no such field."""
    return getattr(model, name, None)


def _stand_in(name: str, since: str) -> type:
    """Return a class that raises MissingDependencyError when it is called."""

    def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
        installed = importlib.metadata.version("qdrant-client")
        raise MissingDependencyError(
            f"models.{name} needs qdrant-client {since} or newer; {installed} is installed. "
            f"pip install --upgrade 'qdrant-client>={since}'"
        )

    return type(name, (), {"__init__": refuse, "__doc__": f"qdrant-client has it since {since}."})


if not TYPE_CHECKING:
    globals().update(
        {
            name: getattr(models, name, None) or _stand_in(name, since)
            for name, since in SINCE.items()
        }
    )
