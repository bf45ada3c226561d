"""The command; see the package."""

import argparse
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.arguments import destination, existing_path
from benchmarks.gpu.measure import Plan, measure
from benchmarks.gpu.models import SHAPES
from benchmarks.gpu.parity import parity
from benchmarks.gpu.report import page, write
from benchmarks.peers.machine import machine
from benchmarks.peers.workloads import read_words
from qdrant_rerank import DEFAULT_RERANKER
from qdrant_rerank.inference.cpu import available_cores
from qdrant_rerank.inference.gpu.devices import CudaReport, cuda_report
from qdrant_rerank.inference.sessions import import_onnxruntime

BENCHMARKS = Path(__file__).parents[1]
MODELS = BENCHMARKS.parent / "build" / "benchmarks"
SMALLEST = "minilm-l6-fp32"
ROUNDS = 200
USAGE_ERROR = 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--trial", action="store_true", help="a few pairs on the CPU; not recorded")
    parser.add_argument("--data", type=existing_path, help="folder with eval/dl19, for the parity")
    parser.add_argument("--parity-model", default=DEFAULT_RERANKER, help="a name or a directory")
    parser.add_argument("--model", action="append", choices=SHAPES, help="may be repeated")
    parser.add_argument("--rounds", type=int, help=f"of 100 candidates; {ROUNDS} by default")
    parser.add_argument("--models", type=Path, default=MODELS, help="where they are made and kept")
    parser.add_argument("--out", type=Path, help="folder of the report")
    given = parser.parse_args()
    part = given.model or given.rounds
    given.out = destination(given.out, BENCHMARKS / "results", part=part) or given.models
    report = cuda_report(import_onnxruntime())
    if not given.trial and not report.usable:
        for problem in report.problems:
            print(problem, file=sys.stderr)
        print("Nothing is recorded without a GPU; --trial runs on the CPU.", file=sys.stderr)
        raise SystemExit(USAGE_ERROR)
    names = given.model or ([SMALLEST] if given.trial else list(SHAPES))
    make_models(given.models, names)
    with ExitStack() as stack:
        log = given.models / "gpu.log"
        if given.trial:
            log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "gpu.log"
        results = run(given, names, log, report)
        print(page(results))


def run(
    given: argparse.Namespace, names: list[str], log: Path, report: CudaReport
) -> dict[str, Any]:
    """Measure, and record after each model: a run that is cut short has recorded what it did."""
    cores, device = available_cores(), "cpu" if given.trial else "cuda"
    plan = Plan(
        models=given.models,
        words=read_words(given.models / names[0] / "tokenizer.json"),
        device=device,
        candidates=4 if given.trial else 100,
        rounds=2 if given.trial else given.rounds or ROUNDS,
        queries=2 if given.trial else 20,
        pooled_rounds=1 if given.trial else 5,
        log=log,
        cores=cores,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    results: dict[str, Any] = {
        "machine": machine(cores),
        "gpu": "no GPU" if given.trial else "; ".join(map(str, report.driver.gpus)),
        "driver": report.driver.cuda,
        "trial": given.trial,
        "models": [],
    }
    for name in names:
        results["models"].append(measure(plan, name))
        if not given.trial:
            write(results, given.out)
    if given.data is not None:
        few = {"queries": 2, "candidates": 12} if given.trial else {}
        results["parity"] = parity(given.data, given.parity_model, device, **few)
        if not given.trial:
            write(results, given.out)
    return results


def make_models(folder: Path, names: list[str]) -> None:
    """In a process of its own, which loads torch."""
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        command = [sys.executable, "-m", "benchmarks.gpu.models", str(folder.absolute())]
        subprocess.run([*command, *missing], check=True, cwd=BENCHMARKS.parent)


if __name__ == "__main__":
    main()
