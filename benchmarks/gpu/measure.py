"""Turns and rounds: each contender in a process of its own, on new texts of the same lengths."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.contenders import CONTENDERS
from benchmarks.peers.process import ContenderError, Process
from benchmarks.peers.workloads import Workload, write_requests

__all__ = ["Plan", "measure"]

WORKER = "benchmarks.gpu.worker"
SEED_OF_WARM_UP = 100_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        models: folder of the models.
        words: that texts are made of.
        device: "cuda"; "cpu" in a trial.
        candidates: documents a query.
        rounds: of one query.
        queries: pooled in one call.
        pooled_rounds: of such a call.
        log: where contenders' own output goes.
        cores: that this process may use.
        say: told what goes on.
    """

    models: Path
    words: Sequence[str]
    device: str
    candidates: int
    rounds: int
    queries: int
    pooled_rounds: int
    log: Path
    cores: int
    say: Callable[[str], None]


def measure(plan: Plan, model: str) -> dict[str, Any]:
    """All contenders with one model.

    Returns:
        ``candidates`` and ``pooled``: of each the pairs a turn, and for each contender its label,
        seconds and largest difference from the first one's scores a round, or its error.
    """
    one = Workload("mixed", plan.candidates)
    many = Workload("mixed", plan.candidates, queries=plan.queries, pooled=True)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found: dict[str, dict[str, Any]] = {label: {} for label in CONTENDERS}
        alive = _start(plan, model, stack, found)
        return {
            "model": model,
            "contenders": found,
            "candidates": _rounds(plan, alive, one, plan.rounds, work, found),
            "pooled": _rounds(plan, alive, many, plan.pooled_rounds, work, found),
        }


def _start(plan: Plan, model: str, stack: ExitStack, found: dict[str, Any]) -> dict[str, Process]:
    alive = {}
    for label, contender in CONTENDERS.items():
        options = {**contender.options, "device": plan.device}
        try:
            process = Process(
                replace(contender, model=model, options=options),
                plan.models / model,
                cores=plan.cores,
                log=plan.log,
                python=None,
                module=WORKER,
            )
        except ContenderError as error:
            plan.say(f"{model}: {label} does not load: {error}")
            found[label]["error"] = str(error)
            continue
        stack.callback(process.close)
        found[label].update(process.loaded)
        alive[label] = process
        plan.say(f"{model}: {label} is loaded")
    return alive


def _rounds(
    plan: Plan,
    alive: dict[str, Process],
    workload: Workload,
    rounds: int,
    work: Path,
    found: dict[str, Any],
) -> dict[str, Any]:
    """Rounds of a workload, after one that warms up; who fails is left out from then on."""
    seconds: dict[str, list[float]] = {}
    differences: dict[str, float] = {}
    for number in range(-1, rounds):
        path = work / "requests.json"
        write_requests(workload, plan.words, SEED_OF_WARM_UP if number < 0 else number, path)
        reference: list[float] = []
        for label in _rotated(list(alive), max(number, 0)):
            try:
                answer = alive[label].turn(path, None)
            except ContenderError as error:
                plan.say(f"{workload}: {label} failed: {error}")
                found[label]["error"] = str(error)
                del alive[label]
                continue
            if number < 0:
                scores = answer["scores"]
                reference = reference or scores
                if len(scores) == len(reference):
                    pairs = zip(scores, reference, strict=True)
                    differences[label] = max(abs(a - b) for a, b in pairs)
            else:
                seconds.setdefault(label, []).append(answer["seconds"])
    plan.say(f"{workload}: {rounds} rounds")
    return {
        "pairs": workload.candidates * workload.queries,
        "seconds": seconds,
        "largest_difference": differences,
    }


def _rotated(labels: list[str], by: int) -> list[str]:
    start = by % max(1, len(labels))
    return labels[start:] + labels[:start]
