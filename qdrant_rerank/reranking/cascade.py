"""A cascade of rerankers: a small one removes most documents, a larger one reads the rest.

Most of the time of reranking is spent on documents that end up far down. A small model finds these
at a fraction of the cost.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
from qdrant_rerank.errors import DeadlineError, InvalidInputError
from qdrant_rerank.qdrant.transport.driver import run
from qdrant_rerank.reranking.awaiting import Compute, awaited, score_async
from qdrant_rerank.reranking.late_interaction import late_interaction_of
from qdrant_rerank.reranking.loading import load_reranker
from qdrant_rerank.reranking.scored import Scored
from qdrant_rerank.reranking.scoring import score
from qdrant_rerank.reranking.stored import fetch_late, states_encoder
from qdrant_rerank.types import RerankerLike
from qdrant_rerank.utils.deadline import Deadline
from qdrant_rerank.utils.validation import require_positive, require_several, shown

__all__ = ["Cascade", "states_encoders"]

# Distance from the lowest score of a stage to the best document that did not reach it. It is large
# enough that float32 tells them apart, for users who keep scores in it.
STEP = 1e-2


class Cascade:
    """A chain of rerankers, in which each one reranks the best documents of the one before.

    A cascade is itself a ``Reranker``. If one of its stages is an async client or coroutine, only
    ``AsyncHybridSearcher`` can use it; models then still run in threads.

    Args:
        stages: (reranker, keep) for each stage, the cheapest first. The reranker is a model name,
            a path or another reranker that ``HybridSearcher`` takes; ``keep`` is how many of its
            best documents the next stage gets. For the last stage ``keep`` may be None. The first
            one may be a ``LateInteraction``; then only a searcher can use the cascade.

    Raises:
        InvalidInputError: there is no stage, a ``keep`` is below 1 or above that of the stage
            before, or a stage does not rerank.
        ModelError: a model cannot be found or loaded.

    Examples:
        >>> from qdrant_rerank import DEFAULT_RERANKER
        >>> cascade = Cascade([(DEFAULT_RERANKER, 2), (DEFAULT_RERANKER, None)])
        >>> scores = cascade.rerank("melting point of iron",
        ...                         ["Bread is baked.", "Iron melts at 1538 C.", "Ore is mined."])
        >>> scores.index(max(scores))
        1
    """

    def __init__(self, stages: Sequence[tuple[RerankerLike, int | None]]) -> None:
        given: object = stages  # a text is a sequence, too
        if not isinstance(given, Sequence) or isinstance(given, str | bytes):
            raise InvalidInputError(
                f"stages is {shown(stages)}; expected a list of (reranker, keep) pairs."
            )
        if not stages:
            raise InvalidInputError("stages is empty; expected (reranker, keep) pairs.")
        most: int | None = None
        for number, stage in enumerate(stages):
            if not isinstance(stage, tuple | list) or len(stage) != 2:
                raise InvalidInputError(
                    f"Stage {number} is {shown(stage)}; expected (reranker, keep)."
                )
            keep = stage[1]
            require_positive(f"keep of stage {number}", keep)
            if keep is None and number < len(stages) - 1:
                raise InvalidInputError(
                    f"keep of stage {number} is None, so it would remove nothing. Say how many of "
                    "its best documents the next stage gets."
                )
            if keep is not None and most is not None and keep > most:
                raise InvalidInputError(
                    f"keep of stage {number} is {keep}, but only {most} documents reach it. "
                    "Expected at most the keep of the stage before."
                )
            most = keep
        self.stages: list[tuple[Any, int | None]] = [
            (load_reranker(reranker, awaits=True, searches=number == 0), keep)
            for number, (reranker, keep) in enumerate(stages)
        ]

    @property
    def asynchronous(self) -> bool:
        """Whether a stage has to be awaited, so that only ``AsyncHybridSearcher`` can use it."""
        return self._awaited_stage() is not None

    def awaited_only(self) -> str:
        """Return the message for a caller that cannot await it."""
        stage = self._awaited_stage()
        return "" if stage is None else f"A stage of the cascade: {stage.awaited_only()}"

    def _awaited_stage(self) -> Any:
        stages = (stage for stage, _ in self.stages)
        return next((one for one in stages if getattr(one, "asynchronous", False) is True), None)

    def rerank(
        self, query: str, documents: Iterable[str], *, deadline_s: float | None = None
    ) -> list[float]:
        """Score documents for one query.

        Args:
            query: any text.
            documents: texts.
            deadline_s: seconds that the call may take; None for no limit. See
                :meth:`rerank_until`.

        Returns:
            One score per document, in input order. Documents that reached the last stage have its
            scores; if an activation gave several of them one score, these are moved apart by the
            smallest step that a float has, in the order of their logits. The others have the
            scores of the stage where they ended, moved down below all documents that went on.
            Higher is always more relevant, but only the scores of the last stage can be compared
            with a threshold.

        Raises:
            InvalidInputError: ``deadline_s`` is not above 0.
            DeadlineError: the time was up before the first stage had scored every document; its
                ``scores`` are those of the first documents.
            ModelOutputError: a stage failed, or did not return one finite score per document.
        """
        require_several("documents", documents)
        texts = list(documents)
        scores, _ = self.rerank_until(query, texts, Deadline.after(deadline_s))
        if len(scores) < len(texts):
            raise DeadlineError(
                f"{len(scores)} of {len(texts)} documents were scored in {deadline_s} s. Their "
                "scores are in the scores attribute of this error. Pass a longer deadline_s, or "
                "fewer documents.",
                scores,
            )
        return scores

    def rerank_until(
        self, query: str, documents: Sequence[str], deadline: Deadline
    ) -> tuple[list[float], int]:
        """Score as many documents as a deadline allows.

        The first stage scores documents in their order; each later stage starts with the best
        documents of the stage before. When the time is up, the documents that a stage did not
        reach follow those that it scored, in the order of the stage before.

        Args:
            query: any text.
            documents: texts.
            deadline: given to each stage; see :func:`~qdrant_rerank.reranking.scoring.score`.

        Returns:
            One score per document, in input order, maybe only of the first documents; and the
            number of documents that a stage had no time for.

        Raises:
            ModelOutputError: a stage failed, or did not return one finite score per document.
            InvalidInputError: the first stage is a ``LateInteraction``, or a stage is async.
        """
        late = late_interaction_of(self)
        if late is not None:
            raise InvalidInputError(
                f"{late!r}, the first stage, scores in the request of a search, so this cascade "
                "has no scores for texts alone. Pass it to HybridSearcher."
            )
        return self._at_once(query, documents, deadline, None)

    def rerank_after(
        self, query: str, documents: Sequence[str], deadline: Deadline, first: NDArray[np.float64]
    ) -> tuple[list[float], int]:
        """Score as :meth:`rerank_until` does, where the first stage has scored already.

        Args:
            query: any text.
            documents: texts.
            deadline: as in :meth:`rerank_until`.
            first: scores of the first stage, shape (len(documents),).
        """
        return self._at_once(query, documents, deadline, first)

    async def rerank_until_async(
        self,
        query: str,
        documents: Sequence[str],
        deadline: Deadline,
        *,
        first: NDArray[np.float64] | None = None,
        compute: Compute = asyncio.to_thread,
    ) -> tuple[list[float], int]:
        """Score as :meth:`rerank_until` does, for an event loop, which awaits async stages.

        Args:
            query: any text.
            documents: texts.
            deadline: as in :meth:`rerank_until`.
            first: scores of the first stage, shape (len(documents),), if it has scored already.
            compute: calls the other stages, in a thread.
        """

        async def ask(reranker: Any, texts: list[str]) -> Scored:
            if awaited(reranker):
                return await score_async(reranker, [(query, texts)], deadline, compute=compute)
            scored: Scored = await compute(score, reranker, [(query, texts)], deadline)
            return scored

        return await self._rerank(documents, first, ask)

    def _at_once(
        self,
        query: str,
        documents: Sequence[str],
        deadline: Deadline,
        first: NDArray[np.float64] | None,
    ) -> tuple[list[float], int]:
        """Score in the calling thread."""
        if self.asynchronous:
            raise InvalidInputError(self.awaited_only())

        async def ask(reranker: Any, texts: list[str]) -> Scored:
            return score(reranker, [(query, texts)], deadline)

        return run(self._rerank(documents, first, ask))

    async def _rerank(
        self,
        documents: Sequence[str],
        given: NDArray[np.float64] | None,
        ask: Callable[[Any, list[str]], Awaitable[Scored]],
    ) -> tuple[list[float], int]:
        rows = np.arange(len(documents))
        values = np.empty(0)
        layers = []  # (rows, scores) by the stage where they ended, the lowest first
        late = 0
        for number, (reranker, keep) in enumerate(self.stages):
            if number == 0 and given is not None:
                found = given
            else:
                texts = [documents[row] for row in rows.tolist()]
                fetched = await fetch_late(reranker, texts)
                scored = await ask(reranker, texts)
                found = _apart(scored.scores[0], scored.logits[0])
                for text in fetched[len(found) :]:  # the time was up before them
                    text.by_states = False
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


def states_encoders(reranker: Any) -> list[TextCrossEncoder]:
    """Return the cross-encoders of a reranker, which may make states: of a cascade, the last first.

    See :func:`~qdrant_rerank.reranking.stored.states_encoder`.
    """
    stages = (
        [stage for stage, _ in reranker.stages] if isinstance(reranker, Cascade) else [reranker]
    )
    return [one for one in map(states_encoder, reversed(stages)) if one is not None]


def _apart(scores: NDArray[np.float64], logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move scores that are equal, though their logits are not, apart by the smallest step."""
    apart = scores.copy()
    order = np.lexsort((-logits, -scores))
    for before, row in pairwise(order.tolist()):
        if logits[row] == logits[before]:
            apart[row] = min(scores[row], apart[before])
        else:
            apart[row] = min(scores[row], np.nextafter(apart[before], -np.inf))
    return apart


def _stacked(
    layers: Sequence[tuple[NDArray[np.intp], NDArray[np.float64]]], count: int
) -> NDArray[np.float64]:
    """Return the scores by row: those of each layer are moved down below the next layer."""
    scores = np.empty(count)
    lowest = None
    for rows, values in reversed(layers):
        if len(rows):
            scores[rows] = values if lowest is None else values - values.max() + lowest - STEP
            lowest = scores[rows].min()
    return scores
