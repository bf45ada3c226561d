"""Seconds from a fresh process to the first answer: import, load, first rerank.

    python benchmarks/cold_start.py [--model NAME_OR_PATH] [--processes 5] [--documents 10]
                                    [--precision P] [--out FILE]

Each process is new; the files are in the system's cache after the first, which is left out. Where
something is kept on disk, such as an optimised graph, that first process has made it, and its own
time is printed apart. ``whole`` is from the start of the interpreter to its end.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from qdrant_rerank import DEFAULT_RERANKER
from qdrant_rerank.utils.atomic_files import atomic_text

# Runs in each process; prints seconds of the three stages.
STAGES = """
import json, sys, time
began = time.perf_counter()
from qdrant_rerank import TextCrossEncoder
imported = time.perf_counter()
encoder = TextCrossEncoder(sys.argv[1], precision=sys.argv[2])
loaded = time.perf_counter()
text = "Iron melts at 1538 degrees Celsius, and bread is baked at far lower temperatures than that."
scores = encoder.rerank("How hot must it be to melt iron?", [text] * int(sys.argv[3]))
answered = time.perf_counter()
print(json.dumps({"import": imported - began, "load": loaded - imported,
                  "first rerank": answered - loaded, "first answer": answered - began}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_RERANKER)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--documents", type=int, default=10)
    parser.add_argument("--out", type=Path, help="JSON with the seconds of every process")
    given = parser.parse_args()
    arguments = [given.model, given.precision, str(given.documents)]
    first, *rows = (start(arguments) for _ in range(given.processes + 1))
    print(f"{given.model}, {given.documents} documents, seconds of {len(rows)} fresh processes")
    print(f"{'':<14}{'median':>8}{'lowest':>8}{'highest':>8}{'the very first':>16}")
    for name in first:
        values = [row[name] for row in rows]
        print(
            f"{name:<14}{median(values):8.2f}{min(values):8.2f}{max(values):8.2f}"
            f"{first[name]:16.2f}"
        )
    if given.out:
        with atomic_text(given.out) as file:
            json.dump({"first": first, "processes": rows}, file, indent=1)


def start(arguments: list[str]) -> dict[str, Any]:
    """Run one process; its stages, and the whole of it."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", STAGES, *arguments], check=True, capture_output=True, text=True
    )
    return {**json.loads(done.stdout), "whole": time.perf_counter() - began}


if __name__ == "__main__":
    main()
