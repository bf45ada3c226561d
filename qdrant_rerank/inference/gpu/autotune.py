"""Opens a model on cards: a session each, its buffers, its budget, and what to do without memory.

What is better on this card is found by running it, once, and remembered: how many tokens a run
holds, whether small runs are replayed as CUDA graphs, and whether attention skips padding.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.inference.gpu.devices import Provider, name_of
from qdrant_rerank.inference.gpu.io_binding import BoundSession
from qdrant_rerank.inference.gpu.pool import (
    CardSession,
    GpuPool,
    HostSession,
    Inputs,
    is_out_of_memory,
    seconds_of,
)
from qdrant_rerank.inference.gpu.token_budget import Budget, Way, budget_key, measure_budget
from qdrant_rerank.inference.providers import CUDA

__all__ = ["GpuPlan", "is_faster", "open_gpus"]

logger = logging.getLogger(__name__)

GRAPHS = "enable_cuda_graph"  # of the CUDA provider's options
TRIAL_WIDTH = 128  # tokens of a pair when runs are timed; every window is at least as wide
SMALL_TRIAL = 512  # padded tokens of a run that graphs should make faster
FASTER = 0.95  # share of the time that another way may take to be worth it
SAME = 1e-2  # of logits: fp16 may round otherwise when it is replayed


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """What to open.

    Attributes:
        model: the ONNX file.
        providers: of each session, one a card.
        output: name of the output to return.
        budgets: folder where budgets are remembered; None to forget them.
        card: what decides about a budget beside the model: the card and its limit, for instance.
        packed: the same model with attention that skips padding; None where there is none.
    """

    model: Path
    providers: Sequence[Sequence[Provider]]
    output: str
    budgets: Path | None = None
    card: tuple[object, ...] = ()
    packed: Path | None = None


def open_gpus(
    ort: ModuleType,
    plan: GpuPlan,
    *,
    sessions: Sequence[Any],
    open_session: Callable[[Sequence[Provider], Path], Any],
    open_fallback: Callable[[], Any],
    feed_of: Callable[[int, int, int], Inputs],
) -> GpuPool:
    """The cards of a model behind one queue.

    Args:
        ort: onnxruntime.
        plan: see :class:`GpuPlan`.
        sessions: opened with the plan's providers, one a card.
        open_session: opens another one, with other providers or of another file.
        open_fallback: opens one on the CPU.
        feed_of: a feed of so many rows and tokens a row, some of them padding; the last argument
            tells feeds of one shape apart.
    """
    budget = Budget(plan.budgets, budget_key(plan.model, ort.__version__, *plan.card))
    plain = [
        _bound(ort, plan, session, providers)
        for session, providers in zip(sessions, plan.providers, strict=True)
    ]

    def opened(way: Way) -> list[CardSession] | None:
        """Sessions that run another way; None where that cannot be."""
        path = plan.packed if way == "packed" else plan.model
        providers = [_recording(one) if way == "graphs" else one for one in plan.providers]
        try:
            return [
                _bound(ort, plan, open_session(one, path or plan.model), one) for one in providers
            ]
        except Exception as error:  # operators that the provider lacks, or no memory
            logger.info("%s does not run with %s: %s", plan.model, way, error)
            short_of_memory.append(is_out_of_memory(error))
            return None

    def trial(tokens: int, seed: int = 0) -> Inputs:
        return feed_of(max(1, tokens // TRIAL_WIDTH), TRIAL_WIDTH, seed)

    cards = None
    short_of_memory: list[bool] = []
    if not budget.known:
        tokens = measure_budget(lambda tokens: seconds_of(plain[0], trial(tokens)))
        sizes = {"packed": tokens, "graphs": SMALL_TRIAL}
        chosen: Way = "plain"
        for way in _ways(plan):
            plain[0].give_back(trial(TRIAL_WIDTH))  # the trials' memory, for the other sessions
            cards = opened(way)
            feeds = [trial(sizes[way], seed) for seed in (0, 1)]
            if cards is not None and is_faster(plain[0], cards[0], *feeds):
                chosen = way
                break
            cards = None  # closed before the next ones are opened
        budget.set(tokens, chosen, keep=not any(short_of_memory))
    elif budget.way in _ways(plan):
        cards = opened(budget.way)

    def fallback() -> HostSession:
        return _Host(open_fallback(), plan.output)

    return GpuPool(cards or plain, open_fallback=fallback, budget=budget)


class _Host:
    """A session on the CPU."""

    def __init__(self, session: Any, output: str) -> None:
        self._session = session
        self._output = output

    def run(self, feed: Inputs) -> NDArray[Any]:
        found: NDArray[Any] = self._session.run([self._output], dict(feed))[0]
        return found


def is_faster(plain: CardSession, other: CardSession, feed: Inputs, second: Inputs) -> bool:
    """Whether a run takes clearly less time another way, with the same output.

    Args:
        plain: runs kernel by kernel.
        other: the other way; a graph is recorded when a shape comes for the second time.
        feed: of a size that the other way is for.
        second: another one of its shape, which a graph that kept the first one would not read.
    """
    other_s, plain_s = seconds_of(other, feed), seconds_of(plain, feed)
    if other_s is None or plain_s is None or other_s > FASTER * plain_s:
        return False
    return all(np.allclose(other.run(one), plain.run(one), atol=SAME) for one in (second, feed))


def _ways(plan: GpuPlan) -> list[Way]:
    """To try, beside the plain one."""
    ways: list[Way] = ["packed"] if plan.packed is not None else []
    if all(name_of(providers[0]) == CUDA for providers in plan.providers):
        ways.append("graphs")
    return ways


def _bound(
    ort: ModuleType, plan: GpuPlan, session: Any, providers: Sequence[Provider]
) -> CardSession:
    options = {} if isinstance(providers[0], str) else providers[0][1]
    on_cuda = name_of(providers[0]) == CUDA
    return BoundSession(
        ort,
        session,
        plan.output,
        device="cuda" if on_cuda else "cpu",
        number=int(options.get("device_id", 0)) if on_cuda else 0,
        graphs=on_cuda and str(options.get(GRAPHS)).lower() in {"1", "true"},
    )


def _recording(providers: Sequence[Provider]) -> list[Provider]:
    """The same providers, with graphs."""
    first = providers[0]
    options = {} if isinstance(first, str) else first[1]
    return [(CUDA, {**options, GRAPHS: "1"}), *providers[1:]]
