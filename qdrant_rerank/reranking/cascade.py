"""A cascade of rerankers: a small one prunes, a larger one finishes.

Most of the time of reranking goes into documents that end up far down. A small model finds these
for a fraction of the price; the large one then reads only what is left.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import DeadlineError, InvalidInputError
from qdrant_rerank.reranking.scoring import load_reranker, score
from qdrant_rerank.types import Reranker
from qdrant_rerank.utils.deadline import Deadline
from qdrant_rerank.utils.validation import require_positive, require_several

__all__ = ["Cascade"]

# From the lowest score of a stage to the best document that never reached it: enough to tell
# them apart in float32 at any size that a logit has.
STEP = 1e-2


class Cascade:
    """Rerankers in a row, each on the best documents of the one before. A ``Reranker``.

    Args:
        stages: (reranker, keep), the cheapest first: a model name, a path or an object with
            ``rerank(query, documents)``, and how many of its best documents go on to the next
            stage. Of the last stage, which nothing follows, ``keep`` may be None.

    Raises:
        InvalidInputError: no stage, a ``keep`` below 1 or above that of the stage before, or
            something that does not rerank.
        ModelError: a model cannot be found or loaded.

    Examples:
        >>> from qdrant_rerank import DEFAULT_RERANKER
        >>> cascade = Cascade([(DEFAULT_RERANKER, 2), (DEFAULT_RERANKER, None)])
        >>> scores = cascade.rerank("melting point of iron",
        ...                         ["Bread is baked.", "Iron melts at 1538 C.", "Ore is mined."])
        >>> scores.index(max(scores))
        1
    """

    def __init__(self, stages: Sequence[tuple[Reranker | str | Path, int | None]]) -> None:
        if not stages:
            raise InvalidInputError("stages is empty; expected (reranker, keep) pairs.")
        most: int | None = None
        for number, stage in enumerate(stages):
            if not isinstance(stage, tuple | list) or len(stage) != 2:
                raise InvalidInputError(
                    f"Stage {number} is {stage!r:.80}; expected (reranker, keep)."
                )
            keep = stage[1]
            require_positive(f"keep of stage {number}", keep)
            if keep is None and number < len(stages) - 1:
                raise InvalidInputError(
                    f"keep of stage {number} is None, so it would prune nothing. Say how many of "
                    "its best documents go on to the next stage."
                )
            if keep is not None and most is not None and keep > most:
                raise InvalidInputError(
                    f"keep of stage {number} is {keep}, but only {most} documents reach it. "
                    "Expected it to be no more than that of the stage before."
                )
            most = keep
        self.stages = [(load_reranker(reranker), keep) for reranker, keep in stages]

    def rerank(
        self, query: str, documents: Iterable[str], *, deadline_s: float | None = None
    ) -> list[float]:
        """Score documents for one query.

        Args:
            query: any text.
            documents: texts.
            deadline_s: seconds that this may take; None for no limit. See :meth:`rerank_until`.

        Returns:
            One score a document, in input order. Those that reached the last stage have its
            scores. The others follow below: a stage's scores, moved down so that the best of them
            is just under everything that went on. Higher is more relevant throughout, but only the
            last stage's scores are worth comparing with a threshold.

        Raises:
            InvalidInputError: ``deadline_s`` is not above 0.
            DeadlineError: time was up before the first stage had scored every document; its
                ``scores`` are those of the first ones.
            ModelOutputError: a stage failed, or did not return one finite score a document.
        """
        require_several("documents", documents)
        texts = list(documents)
        scores, _ = self.rerank_until(query, texts, Deadline.after(deadline_s))
        if len(scores) < len(texts):
            raise DeadlineError(
                f"{len(scores)} of {len(texts)} documents were scored in {deadline_s} s. Their "
                "scores are in this error's scores. Give it longer, or fewer documents.",
                scores,
            )
        return scores

    def rerank_until(
        self, query: str, documents: Sequence[str], deadline: Deadline
    ) -> tuple[list[float], int]:
        """What can be scored by a deadline.

        The first stage scores documents in their order, each other one the best of the stage
        before first. Where time is up, documents that a later stage did not reach follow those
        that it did, in the order of the stage before.

        Args:
            query: any text.
            documents: texts.
            deadline: given to each stage; see :func:`~qdrant_rerank.reranking.scoring.score`.

        Returns:
            One score a document, in input order, maybe only of the first documents; and how many
            documents a stage had no time for.

        Raises:
            ModelOutputError: a stage failed, or did not return one finite score a document.
        """
        rows = np.arange(len(documents))
        values = np.empty(0, dtype=np.float32)
        layers = []  # rows and values of the stage that they ended at, the lowest first
        late = 0
        for number, (reranker, keep) in enumerate(self.stages):
            [found] = score(
                reranker, [(query, [documents[row] for row in rows.tolist()])], deadline
            ).scores
            done = len(found)
            late = len(rows) - done
            if late and number == 0:
                first: list[float] = found.tolist()
                return first, late
            layers.append((rows[done:], values[done:]))
            best = np.argsort(-found, kind="stable")
            going_on = 0 if late or number == len(self.stages) - 1 else keep
            layers.append((rows[best[going_on:]], found[best[going_on:]]))
            rows, values = rows[best[:going_on]], found[best[:going_on]]
            if not len(rows):
                break
        scores: list[float] = _stacked(layers, len(documents)).tolist()
        return scores, late

    def __repr__(self) -> str:
        return f"Cascade({self.stages!r})"


def _stacked(
    layers: Sequence[tuple[NDArray[np.intp], NDArray[np.float32]]], count: int
) -> NDArray[np.float32]:
    """Scores by row: the last layer's as they are, each other moved down below the next."""
    scores = np.empty(count, dtype=np.float32)
    lowest = None
    for rows, values in reversed(layers):
        if len(rows):
            scores[rows] = values if lowest is None else values - values.max() + lowest - STEP
            lowest = scores[rows].min()
    return scores
