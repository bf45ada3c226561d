"""A cascade of rerankers: a small one prunes, a larger one finishes.

Most of the time of reranking goes into documents that end up far down. A small model finds these
for a fraction of the price; the large one then reads only what is left.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from qdrant_rerank.arguments import require_positive
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.reranking import load_reranker, score
from qdrant_rerank.types import Reranker

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

    def rerank(self, query: str, documents: Iterable[str]) -> list[float]:
        """Score documents for one query.

        Args:
            query: any text.
            documents: texts.

        Returns:
            One score a document, in input order. Those that reached the last stage have its
            scores. The others follow below: a stage's scores, moved down so that the best of them
            is just under everything that went on. Higher is more relevant throughout, but only the
            last stage's scores are worth comparing with a threshold.

        Raises:
            ModelOutputError: a stage failed, or did not return one finite score a document.
        """
        texts = list(documents)
        if not texts:
            return []
        rows = np.arange(len(texts))
        left = []
        for reranker, keep in self.stages[:-1]:
            values = score(reranker, [(query, [texts[row] for row in rows])]).scores[0]
            best = np.argsort(-values, kind="stable")
            left.append((rows[best[keep:]], values[best[keep:]]))
            rows = rows[best[:keep]]
        last, _ = self.stages[-1]
        scores = np.empty(len(texts), dtype=np.float32)
        scores[rows] = score(last, [(query, [texts[row] for row in rows])]).scores[0]
        lowest = scores[rows].min()
        for rows, values in reversed(left):
            if len(rows):
                scores[rows] = values - values.max() + lowest - STEP
                lowest = scores[rows].min()
        result: list[float] = scores.tolist()
        return result

    def __repr__(self) -> str:
        return f"Cascade({self.stages!r})"
