"""Opens a model on cards: a session each, its buffers, its budget, and what to do without memory.

What is better on this card is found by running it, once, and remembered: how many tokens a run
holds, and whether small runs are replayed as CUDA graphs.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from qdrant_rerank.bound_session import BoundSession
from qdrant_rerank.card_pool import CardPool, CardSession, Feed, seconds_of
from qdrant_rerank.gpu_budget import Budget, budget_key, measure_budget
from qdrant_rerank.providers import CUDA, Provider, name_of

__all__ = ["CardPlan", "open_cards", "prefers_graphs"]

logger = logging.getLogger(__name__)

GRAPHS = "enable_cuda_graph"  # of the CUDA provider's options
TRIAL_WIDTH = 128  # tokens of a pair when runs are timed; every window is at least as wide
SMALL_TRIAL = 512  # padded tokens of a run that graphs should make faster
FASTER = 0.95  # share of the time that a graph may take to be worth its memory
SAME = 1e-2  # of logits: fp16 may round otherwise when it is replayed


@dataclass(frozen=True, slots=True)
class CardPlan:
    """What to open.

    Attributes:
        model: the ONNX file.
        providers: of each session, one a card.
        output: name of the output to return.
        budgets: folder where budgets are remembered; None to forget them.
        card: what decides about a budget beside the model: the card and its limit, for instance.
    """

    model: Path
    providers: Sequence[Sequence[Provider]]
    output: str
    budgets: Path | None = None
    card: tuple[object, ...] = ()


def open_cards(
    ort: ModuleType,
    plan: CardPlan,
    *,
    sessions: Sequence[Any],
    open_session: Callable[[Sequence[Provider]], Any],
    open_fallback: Callable[[], Any],
    feed_of: Callable[[int, int], Feed],
) -> CardPool:
    """The cards of a model behind one queue.

    Args:
        ort: onnxruntime.
        plan: see :class:`CardPlan`.
        sessions: opened with the plan's providers, one a card.
        open_session: opens another one, with other providers.
        open_fallback: opens one on the CPU.
        feed_of: a feed of so many rows and tokens a row.
    """
    budget = Budget(plan.budgets, budget_key(plan.model, ort.__version__, *plan.card))
    cards = [
        _bound(ort, plan, session, providers)
        for session, providers in zip(sessions, plan.providers, strict=True)
    ]

    def with_graphs() -> list[CardSession]:
        recording = [_recording(providers) for providers in plan.providers]
        return [_bound(ort, plan, open_session(one), one) for one in recording]

    def trial(tokens: int) -> Feed:
        return feed_of(max(1, tokens // TRIAL_WIDTH), TRIAL_WIDTH)

    on_cuda = all(name_of(providers[0]) == CUDA for providers in plan.providers)
    if not budget.known:
        tokens = measure_budget(lambda tokens: seconds_of(cards[0], trial(tokens)))
        graphs = on_cuda and _graphs_win(cards[0], with_graphs, trial(SMALL_TRIAL))
        budget.set(tokens, graphs)
    if budget.graphs and on_cuda:
        cards = with_graphs()

    def fallback() -> CardSession:
        return BoundSession(ort, open_fallback(), plan.output, device="cpu")

    return CardPool(cards, open_fallback=fallback, budget=budget)


def prefers_graphs(plain: CardSession, recorded: CardSession, feed: Feed) -> bool:
    """Whether a run is faster as a recorded graph, with the same output.

    Args:
        plain: runs kernel by kernel.
        recorded: records a shape when it comes for the second time.
        feed: a small one.
    """
    recorded_s = seconds_of(recorded, feed)  # the first run is plain, the second records
    plain_s = seconds_of(plain, feed)
    if recorded_s is None or plain_s is None or recorded_s > FASTER * plain_s:
        return False
    return bool(np.allclose(recorded.run(feed), plain.run(feed), atol=SAME))


def _graphs_win(
    plain: CardSession, with_graphs: Callable[[], list[CardSession]], feed: Feed
) -> bool:
    try:
        return prefers_graphs(plain, with_graphs()[0], feed)
    except Exception as error:  # some of its operators run on the CPU, for instance
        logger.info("No CUDA graphs: %s", error)
        return False


def _bound(
    ort: ModuleType, plan: CardPlan, session: Any, providers: Sequence[Provider]
) -> CardSession:
    options = {} if isinstance(providers[0], str) else providers[0][1]
    on_cuda = name_of(providers[0]) == CUDA
    return BoundSession(
        ort,
        session,
        plan.output,
        device="cuda" if on_cuda else "cpu",
        number=int(options.get("device_id", 0)) if on_cuda else 0,
        graphs=on_cuda and options.get(GRAPHS) == "1",
    )


def _recording(providers: Sequence[Provider]) -> list[Provider]:
    """The same providers, with graphs."""
    first = providers[0]
    options = {} if isinstance(first, str) else first[1]
    return [(CUDA, {**options, GRAPHS: "1"}), *providers[1:]]
