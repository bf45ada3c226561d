"""Texts of hits with the states that their collection stores of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qdrant_rerank.cross_encoder.document_states import is_current
from qdrant_rerank.cross_encoder.state_scorer import StoredText
from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
from qdrant_rerank.qdrant.schema import CollectionStates
from qdrant_rerank.reranking.cascade import Cascade
from qdrant_rerank.types import PointId

__all__ = ["Stored", "states_encoders"]


@dataclass(frozen=True, slots=True)
class Stored:
    """What a collection stores of the candidates.

    Attributes:
        states: the collection's record of them.
        records: of the candidates that have one, by their ids.
    """

    states: CollectionStates
    records: Mapping[PointId, bytes]

    def text(self, point_id: PointId, text: str) -> StoredText:
        """Return a text with its record, if that is of this very text."""
        states, record = self.states, self.records.get(point_id)
        if record is not None and not is_current(record, text, states.model, states.precision):
            record = None
        return StoredText.of(text, states.model, states.precision, record)


def states_encoders(reranker: Any) -> list[TextCrossEncoder]:
    """Return the cross-encoders of a reranker, which may make states: of a cascade, the last first.

    A peer may name one that it runs, as ``states_encoder``; it gets texts with their states.

    Whether one can is known when it is asked for its states.
    """
    stages = (
        [stage for stage, _ in reranker.stages] if isinstance(reranker, Cascade) else [reranker]
    )
    encoders = [
        stage if isinstance(stage, TextCrossEncoder) else getattr(stage, "states_encoder", None)
        for stage in reversed(stages)
    ]
    return [encoder for encoder in encoders if encoder is not None]
