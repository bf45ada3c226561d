"""A contender's own process: loads, scores when told, and says how long it took and what it holds.

One JSON object a line on stdin, one answer a line on stdout; see :mod:`.process`. What libraries
print goes to stderr. Imports nothing but the contender's library, so that it runs in that library's
environment too.
"""

import importlib.metadata
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
RESET_PEAK = "5"  # proc(5): resets the peak resident set


class Worker:
    """A loaded contender."""

    def __init__(self, asked: dict[str, Any]) -> None:
        began = time.perf_counter()
        folder, options = Path(asked["folder"]), asked["options"]
        self.score: Callable[[dict[str, Any], int | None], list[float] | None]
        if asked["engine"] == "limit":
            from .limits import Limit

            limit = Limit(
                folder, options["precision"], asked["cores"], attention="attention" in options
            )
            packages = limit.packages
            self.score = lambda work, _: limit.run(work["lengths"])
        else:
            from .engines import ENGINES, Engine

            engine: Engine = ENGINES[asked["engine"]](folder, asked["threads"], options)
            packages = engine.packages
            self.score = lambda work, batch_size: _score(engine, work, batch_size)
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)
        self.loaded = {
            "load_s": time.perf_counter() - began,
            "loaded_mb": _resident("VmRSS"),
            "versions": _versions(packages),
        }

    def turn(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Score the requests of a file."""
        work = json.loads(Path(asked["work"]).read_text())
        began = time.perf_counter()
        scores = self.score(work, asked["batch_size"])
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "scores": scores, "peak_mb": _resident("VmHWM")}


def _score(engine: Any, work: dict[str, Any], batch_size: int | None) -> list[float]:
    """Scores of all pairs of all requests, in input order."""
    requests = [(query, documents) for query, documents in work["requests"]]
    if work["pooled"]:
        pooled: list[float] = engine.pooled(requests, batch_size)
        return pooled

    def one(request: tuple[str, list[str]]) -> list[float]:
        scores: list[float] = engine.rerank(*request, batch_size)
        return scores

    if work["callers"] == 1:
        answers = [one(request) for request in requests]
    else:
        with ThreadPoolExecutor(work["callers"]) as callers:
            answers = list(callers.map(one, requests))
    return [score for scores in answers for score in scores]


def _resident(field: str) -> float:
    """Megabytes of this process, as the kernel counts them."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1000 * 1.024
    return float("nan")


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def main() -> None:
    # Private ends: a library that prints, or a process that it starts, must not disturb them.
    asked, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    worker: Worker | None = None
    for line in asked:
        try:
            question = json.loads(line)
            if worker is None or "engine" in question:
                worker = Worker(question)
                answer = worker.loaded
            else:
                answer = worker.turn(question)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
