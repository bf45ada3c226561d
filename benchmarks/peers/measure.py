"""Turns and rounds: every entry of a suite once a round, until the time is used."""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .contenders import BATCH_SIZES, Contender, Entry, Suite
from .models import model_folder
from .process import ContenderError, Process
from .workloads import Workload, write_requests

__all__ = ["Bench"]

LEAST_ROUNDS = 3
MOST_ROUNDS = 15
PAUSE_S = 0.2  # between turns: a thread pool may spin for a while after its last run
WARM_UP = 32  # documents: a few might be run in another way than many
# Documents of the sweep: enough to tell settings apart, few enough to try them all.
SWEPT = {"mixed": 32, "short": 64, "long": 16}
SWEEPS = 2
SEED_OF_WARM_UP, SEED_OF_SWEEP = 1000, 2000


@dataclass(frozen=True, slots=True)
class Bench:
    """What all suites share.

    Attributes:
        models: folder of the models.
        words: that texts are made of.
        cores: that this process may use.
        log: where contenders' own output goes.
        onnx_python: interpreter of the environment with sentence-transformers' ONNX backend.
        rounds: exactly so many; None for as many as fit the suite's time.
        documents: of a request, at most; None for all. To try the benchmark itself.
        say: told what goes on.
    """

    models: Path
    words: Sequence[str]
    cores: int
    log: Path
    onnx_python: Path | None
    rounds: int | None
    documents: int | None
    say: Callable[[str], None]

    def run(self, suite: Suite) -> dict[str, Any]:
        """All rounds of a suite.

        Returns:
            name, rounds, and for each entry what is known of it: label, engine, model, setting,
            workload, memory, versions, ``seconds`` and ``differences`` a round; or ``error``.
        """
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            work = Path(folder)
            found: dict[str, dict[str, Any]] = {}
            alive: dict[str, Process] = {}
            for entry in suite.entries:
                contender = entry.contender
                if contender.sweep:
                    self.say(f"{suite.name}: looking for the best setting of {entry.label}")
                found[entry.label] = _described(entry, self.documents)
                try:
                    if contender.sweep:
                        contender, tried = self.best_setting(contender, entry.workload, work)
                        found[entry.label] |= {"swept": tried, **_setting(contender)}
                    process = self.start(contender)
                    stack.callback(process.close)
                    self.turn(process, entry.workload, SEED_OF_WARM_UP, work, WARM_UP)
                except ContenderError as error:
                    self.say(f"{suite.name}: {entry.label} is left out: {error}")
                    found[entry.label]["error"] = str(error)
                    continue
                found[entry.label] |= process.loaded
                alive[entry.label] = process
            rounds = self.rounds_of(suite, alive, found, work)
        return {"name": suite.name, "rounds": rounds, "entries": list(found.values())}

    def rounds_of(
        self,
        suite: Suite,
        alive: dict[str, Process],
        found: dict[str, dict[str, Any]],
        work: Path,
    ) -> int:
        """Give turns; write seconds, differences and memory into ``found``."""
        began = time.perf_counter()
        number = 0
        while self.another(number, time.perf_counter() - began, suite.seconds):
            entries = [entry for entry in suite.entries if entry.label in alive]
            first = number % max(1, len(entries))
            scores: dict[str, list[float] | None] = {}
            for entry in entries[first:] + entries[:first]:
                about = found[entry.label]
                try:
                    answer = self.turn(alive[entry.label], entry.workload, number, work)
                except ContenderError as error:
                    self.say(f"{suite.name}: {entry.label} failed: {error}")
                    about["error"] = str(error)
                    del alive[entry.label]
                    continue
                about.setdefault("seconds", []).append(answer["seconds"])
                about["peak_mb"] = answer["peak_mb"]
                scores[entry.label] = answer["scores"]
            for label, (largest, correlation) in compared(suite.entries, scores).items():
                found[label].setdefault("differences", []).append(largest)
                found[label].setdefault("rank_correlations", []).append(correlation)
            number += 1
            self.say(f"{suite.name}: round {number}, {time.perf_counter() - began:.0f} s")
        return number

    def another(self, done: int, seconds: float, most: float) -> bool:
        """Whether there is to be another round."""
        if self.rounds is not None:
            return done < self.rounds
        if done < LEAST_ROUNDS:
            return True
        return done < MOST_ROUNDS and seconds * (done + 1) / done < most

    def start(self, contender: Contender) -> Process:
        """A contender's process, loaded."""
        elsewhere = contender.engine == "sentence-transformers ONNX"
        return Process(
            contender,
            model_folder(self.models, contender.model),
            cores=self.cores,
            log=self.log,
            python=self.onnx_python if elsewhere else None,
        )

    def turn(
        self,
        process: Process,
        workload: Workload,
        seed: int,
        work: Path,
        documents: int | None = None,
    ) -> dict[str, Any]:
        """One turn on the texts of that seed."""
        most = min((n for n in (documents, self.documents) if n is not None), default=None)
        path = work / f"{workload}-{seed}-{most}.json"
        if not path.exists():
            write_requests(workload, self.words, seed, path, most)
        time.sleep(PAUSE_S)
        return process.turn(path, process.contender.batch_size)

    def best_setting(
        self, contender: Contender, workload: Workload, work: Path
    ) -> tuple[Contender, list[dict[str, Any]]]:
        """The contender with the batch size and threads that were fastest on part of the workload.

        Raises:
            ContenderError: it does not load, or fails.
        """
        part = Workload(workload.shape, min(workload.candidates, SWEPT[workload.shape]))
        tried: dict[tuple[int | None, int], float] = {}
        process = self.start(contender)
        try:
            self.sweep(process, BATCH_SIZES, part, work, tried)
            if contender.engine != "FlashRank" and self.cores > 1:
                process.load(replace(contender, threads=1))
                best = min(tried, key=tried.__getitem__)[1]
                self.sweep(process, [best], part, work, tried)
        finally:
            process.close()
        threads, size = min(tried, key=tried.__getitem__)
        return replace(contender, threads=threads, batch_size=size), [
            {"threads": threads, "batch_size": size, "seconds": seconds}
            for (threads, size), seconds in tried.items()
        ]

    def sweep(
        self,
        process: Process,
        sizes: Sequence[int],
        part: Workload,
        work: Path,
        tried: dict[tuple[int | None, int], float],
    ) -> None:
        """Try batch sizes of a loaded contender; the shortest time of each goes into ``tried``."""
        loaded = process.contender
        for number in range(-1, SWEEPS):  # the first turn warms up
            for size in sizes if number >= 0 else sizes[:1]:
                process.contender = replace(loaded, batch_size=size)
                seconds = self.turn(process, part, SEED_OF_SWEEP - number, work)["seconds"]
                if number >= 0:
                    key = (loaded.threads, size)
                    tried[key] = min(seconds, tried.get(key, seconds))


def compared(
    entries: Sequence[Entry], scores: dict[str, list[float] | None]
) -> dict[str, tuple[float, float]]:
    """Largest difference and rank correlation with the first entry that has as many scores."""
    references: dict[int, list[float]] = {}
    found = {}
    for entry in entries:
        mine = scores.get(entry.label)
        if mine is None:
            continue
        reference = references.setdefault(len(mine), mine)
        largest = max(abs(a - b) for a, b in zip(mine, reference, strict=True))
        found[entry.label] = (largest, rank_correlation(mine, reference))
    return found


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's, -1 to 1, without ties; NaN for a single score."""
    if len(one) == 1:
        return math.nan
    first, second = (np.argsort(np.argsort(scores)) for scores in (one, other))
    return float(np.asarray(np.corrcoef(first, second))[0, 1])


def _described(entry: Entry, documents: int | None) -> dict[str, Any]:
    workload = entry.workload
    candidates = min(workload.candidates, documents or workload.candidates)
    return {
        "label": entry.label,
        "engine": entry.contender.engine,
        "model": entry.contender.model,
        "options": dict(entry.contender.options),
        "workload": str(workload),
        "pairs": workload.queries * candidates,
        **_setting(entry.contender),
    }


def _setting(contender: Contender) -> dict[str, int | None]:
    return {"threads": contender.threads, "batch_size": contender.batch_size}
