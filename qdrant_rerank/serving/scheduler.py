"""Requests take turns at one model, batch by batch, in the order of ``turns``.

A request with 20 documents that arrives during one with 1,000 waits for the batches that are
running, and not for the other request.

Batches are those that the library makes of the request alone, so the scores are equal, too. On a
CPU, mixing pairs of several requests would gain nothing: a batch there is about 512 tokens, mostly
one pair (see :mod:`~qdrant_rerank.inference.batching`), and as many batches run at the same time as
there are cores.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from itertools import accumulate, count
from typing import Protocol

from qdrant_rerank.cross_encoder.pair_scores import PairScores
from qdrant_rerank.cross_encoder.steps import Steps
from qdrant_rerank.errors import DeadlineError
from qdrant_rerank.inference.batching import Batch
from qdrant_rerank.serving.turns import Turns, in_order
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline

__all__ = ["Job", "Meter", "QueueFullError", "Scheduler", "StepModel"]

TEXTS_PER_CUT = 32  # that are cut in one turn
# Share of its time that a request may need, by the measured speed. The rest is for the turns that
# the first request is owed, and for a speed that changes.
SURE = 0.75
# Times as many tokens as a new request has: for the sake of a request that is longer than this, no
# new one is refused. A client whose requests are all long would stop the others.
MUCH_LONGER = 8
LEFT_FREE = 1 / 8  # of the queue, or as many tokens as a new request has: it leaves them to others
# Weight that each batch takes from those before it in the measured speed, which is that of several
# requests: each runs its longest documents first, and these are the fastest by the token.
SMOOTHING = 0.005


class QueueFullError(Exception):
    """So much work waits that a request is not taken.

    Args:
        reason: what is full.
        retry_after_s: seconds until there is room, at the speed that was measured.
    """

    def __init__(self, reason: str, retry_after_s: float) -> None:
        self.retry_after_s = max(1.0, retry_after_s)
        super().__init__(f"{reason} Try again in {self.retry_after_s:.0f} s.")


class StepModel(Protocol):
    """The part of ``TextCrossEncoder`` that is used."""

    @property
    def workers(self) -> int:
        """Batches that run at the same time."""

    def steps(self, pairs: Sequence[tuple[str, str]]) -> list[Steps]:
        """Score pairs step by step."""

    def cut(self, texts: Sequence[str], tokens: int) -> list[str]:
        """Cut texts after so many tokens."""

    def has_cores_for(self, batches: int) -> bool:
        """Whether a batch may use several cores."""


class Meter(Protocol):
    """Is told of what was done."""

    def batch(self, pairs: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """A batch has run."""


class Job:
    """The pairs of one request.

    Args:
        pairs: (query, document) texts.
        tokens: estimate of their tokens.
        deadline: no step begins after it.
        number: place in the order of arrival.
        document_tokens: tokens of a document that are read; None for the model's limit.

    Attributes:
        future: gets the scores, or the error.
        size: the estimate.
        remaining: tokens that the model has not read yet; an estimate until all are tokenised.
        waited_s: seconds until the first step.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        tokens: int,
        deadline: Deadline,
        number: int,
        document_tokens: int | None = None,
    ) -> None:
        self.pairs = list(pairs)
        self.document_tokens = document_tokens
        self.uncut = 0 if document_tokens is None else len(self.pairs)  # the last ones
        self.size = self.remaining = tokens
        self.deadline = deadline
        self.number = number
        self.future: Future[PairScores] = Future()
        self.future.set_running_or_notify_cancel()  # a waiter that gives up cannot cancel it
        self.began = time.perf_counter()
        self.waited_s: float | None = None
        self.blocks: list[Steps] | None = None
        self.unread_tokens = tokens
        self.unread_pairs = len(pairs)
        self.parts: list[PairScores] = []
        self.ready: list[tuple[Batch, int]] = []  # batches of the first block, the next one last
        self.reading = False
        self.running = 0


Unit = Callable[[], None]


class Scheduler:
    """Threads that run one model for all requests.

    Args:
        model: the model.
        queue_tokens: tokens that may wait; beyond them a request is refused, and a long one before
            a short one. A request that finds no other one is always taken.
        meter: is told of each batch; None for nobody.
        name: of the threads.
    """

    def __init__(
        self,
        model: StepModel,
        *,
        queue_tokens: int,
        meter: Meter | None = None,
        name: str = "model",
    ) -> None:
        self._model = model
        self._limit = queue_tokens
        self._meter = meter
        self._changed = threading.Condition()
        self._jobs: dict[int, Job] = {}
        self._numbers = count()
        self._turns = Turns()
        self._closed = False
        # Sums over the last batches: what they held, and how long they and the reading took.
        self._tokens = self._seconds = 0.0
        self._reading_s = 0.0  # since the last batch
        # Likewise over the last texts that were read: their tokens, and the estimate of these.
        self._read_tokens = self._estimated_tokens = 0.0
        self._threads = [
            threading.Thread(target=self._work, name=f"serve-{name}_{n}", daemon=True)
            for n in range(model.workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting_tokens(self) -> int:
        """Tokens of all requests that the model has not read yet."""
        with self._changed:
            return self._waiting()

    @property
    def waiting_requests(self) -> int:
        """Requests that have no answer yet."""
        return len(self._jobs)

    @property
    def tokens_per_s(self) -> float:
        """Speed of the model with all its threads, as measured lately; 0 before the first batch."""
        return len(self._threads) * self._tokens / self._seconds if self._seconds else 0.0

    def submit(
        self,
        pairs: Sequence[tuple[str, str]],
        tokens: int,
        deadline: Deadline = NO_DEADLINE,
        *,
        document_tokens: int | None = None,
    ) -> Job:
        """Let a request take its turns.

        Args:
            pairs: (query, document) texts.
            tokens: estimate of their tokens.
            deadline: no step begins after it; the future then has a ``DeadlineError``.
            document_tokens: tokens of a document that are read; None for the model's limit.

        Raises:
            QueueFullError: too many tokens wait, or so many that this request would be late, or
                would make one late that was taken before and is longer, but not much longer.
        """
        with self._changed:
            job = Job(pairs, tokens, deadline, next(self._numbers), document_tokens)
            if self._jobs:
                self._require_room(job)
            self._jobs[job.number] = job
            self._changed.notify_all()
        return job

    def cancel(self, job: Job) -> None:
        """Give a request no more turns; without effect if it has its answer."""
        with self._changed:
            self._jobs.pop(job.number, None)
            self._changed.notify_all()

    def close(self) -> None:
        """Finish the requests that were taken, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _require_room(self, new: Job) -> None:
        """Refuse what the queue does not hold, or what would not be done in time."""
        waiting, speed = self._waiting(), self.tokens_per_s
        free = int(min(new.size, LEFT_FREE * self._limit))
        excess = waiting + new.size + free - self._limit
        if excess > 0:
            raise QueueFullError(
                f"{waiting:,} tokens wait at the model. With the {new.size:,} of this request, and "
                f"{free:,} tokens left free for shorter ones, they would be more than the limit of "
                f"{self._limit:,} tokens (queue_tokens).",
                min(excess, waiting) / speed if speed else 0.0,
            )
        if speed:
            self._require_time(new, speed)

    def _require_time(self, new: Job, speed: float) -> None:
        """Refuse what would be late, or what would make a request late that was taken before."""
        ends = self._ends(self._jobs.values(), speed)
        ends_with = self._ends([*self._jobs.values(), new], speed)
        needed, time_left = ends_with[new.number], new.deadline.remaining
        if time_left is not None and needed > SURE * time_left:
            raise QueueFullError(
                f"So much work waits that this request would need {needed:.1f} s, and it has "
                f"{time_left:.1f} s (timeout_s, or X-Request-Timeout).",
                needed - SURE * time_left,
            )
        now = time.monotonic()
        for number, end in ends.items():
            job = self._jobs[number]
            left = job.deadline.at - now
            overtaken = ends_with[number] > end and job.size <= MUCH_LONGER * new.size
            if overtaken and end <= left and ends_with[number] > SURE * left:
                raise QueueFullError(
                    "This request would overtake another one, which would then be late.",
                    end,  # then the other one has its answer
                )

    def _ends(self, jobs: Iterable[Job], speed: float) -> dict[int, float]:
        """Seconds until each request has its answer, by its number, in that order."""
        ordered = list(in_order(jobs))
        ends = accumulate(self._work_left(job) / speed for job in ordered)
        return {job.number: end for job, end in zip(ordered, ends, strict=True)}

    def _work_left(self, job: Job) -> float:
        """Tokens of a request, where those that are estimated are off by as much as lately."""
        if not self._estimated_tokens:
            return job.remaining
        off = self._read_tokens / self._estimated_tokens
        return job.remaining + (off - 1) * job.unread_tokens

    def _waiting(self) -> int:
        return sum(job.remaining for job in self._jobs.values())

    def _work(self) -> None:
        while True:
            with self._changed:
                while (found := self._next()) is None:
                    if self._closed and not self._jobs:
                        return
                    self._changed.wait()
            job, unit = found
            try:
                unit()
            except BaseException as error:  # the request gets it
                self._end(job, error=error)

    def _next(self) -> tuple[Job, Unit] | None:
        """Choose whose turn it is; called with the lock held."""
        now = time.monotonic()
        for job in [job for job in self._jobs.values() if job.deadline.at <= now]:
            del self._jobs[job.number]
            job.future.set_exception(DeadlineError("The time was up before the last document."))
        able = [job for job in self._jobs.values() if job.ready or not (job.reading or job.running)]
        if not able:
            return None
        job = self._turns.next(able, next(iter(self._jobs)))  # a dict keeps the order of arrival
        if job.waited_s is None:
            job.waited_s = time.perf_counter() - job.began
        if not job.ready:
            job.reading = True
            self._turns.took(job.number)
            return job, lambda: self._read(job)
        job.running += 1
        batch, tokens = job.ready.pop()
        self._turns.took(job.number, tokens)
        waiting = 1 + sum(len(other.ready) for other in able)
        return job, lambda: self._run(job, batch, tokens, waiting)

    def _read(self, job: Job) -> None:
        """Tokenise the next pairs of a request; its batches are ready after the last ones."""
        if job.uncut:
            self._cut(job)
            return
        began = time.perf_counter()
        if job.blocks is None:
            job.blocks = self._model.steps(job.pairs)
        if not job.blocks:
            self._end(job)
            return
        block = job.blocks[0]
        done = block.read()
        with self._changed:
            # Nobody else takes the next block before an empty one, which the score cache answers
            # whole, is finished.
            self._reading_s += time.perf_counter() - began
            empty = done and not block.batches
            job.reading = empty
            if done:
                share = job.unread_tokens * block.pairs // max(job.unread_pairs, 1)
                job.unread_tokens -= share
                kept = (1 - SMOOTHING) ** block.pairs
                self._read_tokens = kept * self._read_tokens + sum(block.tokens)
                self._estimated_tokens = kept * self._estimated_tokens + share
                job.unread_pairs -= block.pairs
                job.remaining = sum(block.tokens) + job.unread_tokens
                job.ready = list(zip(block.batches, block.tokens, strict=True))[::-1]
            self._changed.notify_all()
        if empty:
            self._finish_block(job)

    def _cut(self, job: Job) -> None:
        """Cut the next documents of a request."""
        assert job.document_tokens is not None
        start = len(job.pairs) - job.uncut
        part = job.pairs[start : start + TEXTS_PER_CUT]
        texts = self._model.cut([document for _, document in part], job.document_tokens)
        job.pairs[start : start + len(part)] = [
            (query, text) for (query, _), text in zip(part, texts, strict=True)
        ]
        with self._changed:
            job.uncut -= len(part)
            job.reading = False
            self._changed.notify_all()

    def _run(self, job: Job, batch: Batch, tokens: int, waiting: int) -> None:
        """Run one batch of a request, and finish its block after the last one."""
        assert job.blocks
        block = job.blocks[0]
        began = time.perf_counter()
        block.run(batch, spread=self._model.has_cores_for(waiting))
        seconds = time.perf_counter() - began
        if self._meter is not None:
            self._meter.batch(len(batch.rows), tokens, len(batch.rows) * batch.width, seconds)
        with self._changed:
            kept = 1 - SMOOTHING
            self._tokens = kept * self._tokens + tokens
            self._seconds = kept * self._seconds + seconds + self._reading_s
            self._reading_s = 0.0
            job.remaining -= tokens
            job.running -= 1
            last = not job.running and not job.ready and job.number in self._jobs
            job.reading = last  # nobody else takes the next block before this one is finished
        if last:
            self._finish_block(job)

    def _finish_block(self, job: Job) -> None:
        assert job.blocks
        block = job.blocks.pop(0)
        job.parts.append(block.finish())
        if not job.blocks:
            self._end(job)
            return
        with self._changed:
            job.reading = False
            self._changed.notify_all()

    def _end(self, job: Job, error: BaseException | None = None) -> None:
        """Answer a request, unless nobody waits for it any more."""
        with self._changed:
            waited_for = self._jobs.pop(job.number, None) is not None
            self._changed.notify_all()
        if not waited_for:
            return
        if error is not None:
            job.future.set_exception(error)
        elif job.parts:
            job.future.set_result(PairScores.joined(job.parts, len(job.pairs)))
        else:
            job.future.set_exception(AssertionError("A request without pairs was submitted."))
