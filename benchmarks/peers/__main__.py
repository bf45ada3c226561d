"""The command; see the package."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.arguments import destination
from qdrant_rerank.inference.cpu import available_cores

from .contenders import Suite, every_suite, target_suites
from .machine import machine
from .measure import Bench
from .models import BUNDLED, model_folder
from .report import write_report
from .workloads import read_words

BENCHMARKS = Path(__file__).parents[1]
MODELS = BENCHMARKS.parent / "build" / "benchmarks"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--full", action="store_true", help="every combination; hours")
    parser.add_argument("--only", default="", help="suites whose name matches this expression")
    parser.add_argument("--rounds", type=int, help="exactly so many, whatever they take")
    parser.add_argument("--documents", type=int, help="of a request, at most, to try it out")
    parser.add_argument("--no-search", action="store_true", help="leave search_overhead.py out")
    parser.add_argument(
        "--onnx-python", type=Path, help="interpreter with sentence-transformers' ONNX backend"
    )
    parser.add_argument("--models", type=Path, default=MODELS, help="where they are made and kept")
    parser.add_argument("--out", type=Path, help="folder of the report")
    given = parser.parse_args()
    part = given.only or given.rounds or given.documents or given.no_search
    out = destination(given.out, BENCHMARKS / "results", part=part) or given.models
    cores = available_cores()
    suites = list(every_suite()) if given.full else target_suites(cores)
    names = [suite.name for suite in suites]
    suites = [suite for suite in suites if re.search(given.only, suite.name)]
    searches = not given.full and not given.no_search and bool(re.search(given.only, "search"))
    if not suites and not searches:
        parser.error(f"--only {given.only!r} matches none of {', '.join(names)}")
    make_models(given.models, suites)
    for folder in (out, given.models):
        folder.mkdir(parents=True, exist_ok=True)
    name = "peers-full" if given.full else "peers"
    log = given.models / "contenders.log"
    log.unlink(missing_ok=True)
    bench = Bench(
        models=given.models,
        words=read_words(model_folder(given.models, BUNDLED) / "tokenizer.json"),
        cores=cores,
        log=log,
        onnx_python=given.onnx_python and given.onnx_python.absolute(),
        rounds=given.rounds,
        documents=given.documents,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    results: dict[str, Any] = {"machine": machine(cores), "suites": []}
    if given.documents or given.rounds:
        results["trial"] = {"documents": given.documents, "rounds": given.rounds}
    for suite in suites:
        results["suites"].append(bench.run(suite))
        # After each suite: a run that is cut short has recorded what it did.
        write_report(results, out, name)
    if searches:
        results["search"] = search_overhead(out, given.documents)
        write_report(results, out, name)
    print((out / f"{name}.md").read_text())


def make_models(folder: Path, suites: list[Suite]) -> None:
    """In a process of its own, which loads torch."""
    names = {entry.contender.model for suite in suites for entry in suite.entries}
    missing = [name for name in sorted(names) if not model_folder(folder, name).exists()]
    if missing:
        command = [sys.executable, "-m", "benchmarks.peers.models", str(folder.absolute())]
        subprocess.run([*command, *missing], check=True, cwd=BENCHMARKS.parent)


def search_overhead(out: Path, documents: int | None) -> dict[str, Any]:
    """Run ``search_overhead.py`` in a process of its own; what it found."""
    file = out / "search_overhead.json"
    command = [sys.executable, str(BENCHMARKS / "search_overhead.py"), "--out", str(file)]
    if documents:
        command += ["--points", "200", "--queries", "2", "--candidates", str(documents)]
    subprocess.run(command, check=True)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


if __name__ == "__main__":
    main()
