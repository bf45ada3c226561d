"""The steps of a call, without doing any of them: what the sync and the async searcher share.

A flow is a generator. It yields what it does not do itself, a request to Qdrant (``Ask``) or work
that keeps a processor busy (``Compute``), is sent what came of it, and returns its result. A
driver does the steps: :class:`~qdrant_rerank.qdrant.transport.driver.Driver` one after the
other in the calling thread, another one awaits them. (HTTPX's authentication is written that way.)
"""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from qdrant_client import QdrantClient

from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline

__all__ = ["Ask", "AskMany", "CallLimits", "Compute", "Flow", "Step", "ask", "ask_many", "compute"]

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to Qdrant.

    Attributes:
        send: calls the client, to the same effect if called twice; is given the client and the
            timeout in whole seconds, or None. An ``AsyncQdrantClient`` has the same calls, and
            then returns what has to be awaited.
    """

    send: Callable[[QdrantClient, int | None], Any]


@dataclass(frozen=True, slots=True)
class AskMany:
    """Requests that do not wait for each other.

    What comes of them is a list: for each its answer, or the ``QdrantError`` that it ended with.

    Attributes:
        sends: see ``Ask``.
        retries: times that each is sent again at least, whatever the terms.
    """

    sends: Sequence[Callable[[QdrantClient, int | None], Any]]
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Compute:
    """Work for a processor, or for a reader of files: nothing that an event loop should wait for.

    Attributes:
        work: does it.
    """

    work: Callable[[], Any]


Step = Ask | AskMany | Compute
Flow = Generator[Step, Any, Answer]


@dataclass(slots=True)
class CallLimits:
    """What the steps of one call keep to, and how often requests were sent again.

    Attributes:
        timeout_s: whole seconds that a request may take; None for the client's own.
        retries: times that a request is sent again if its failure may pass.
        deadline: when all must be done, retries and the waits before them included.
        retried: requests that were sent again so far.
        began: when the call began, on the clock of ``time.perf_counter``.
    """

    timeout_s: int | None = None
    retries: int = 0
    deadline: Deadline = NO_DEADLINE
    retried: int = 0
    began: float = field(default_factory=time.perf_counter)


def ask(send: Callable[[QdrantClient, int | None], Answer]) -> Flow[Answer]:
    """One request, and its answer."""
    answer: Answer = yield Ask(send)
    return answer


def ask_many(
    sends: Sequence[Callable[[QdrantClient, int | None], Any]], *, retries: int = 0
) -> Flow[list[Any]]:
    """Several requests at once, and what came of each; see :class:`AskMany`."""
    outcomes: list[Any] = yield AskMany(sends, retries)
    return outcomes


def compute(work: Callable[[], Answer]) -> Flow[Answer]:
    """A piece of work, and what it made."""
    made: Answer = yield Compute(work)
    return made
