"""Resident memory over thousands of queries of changing sizes: does it ratchet up?

    python benchmarks/memory.py [--queries 5000] [--level 500] [--documents 6] [--model NAME]
                                [--precision P] [--callers 1] [--out FILE.json] [--plot FILE.png]
    python benchmarks/memory.py --variants [--queries 1000]

Each query has 1 to ``--documents`` documents of 5 to 500 words, so that runs are of every width.
Prints resident memory as it goes and ends with exit code 1 where, at the end, it is more than 5 %
above its level after ``--level`` queries. ``--variants`` does the same with bare onnxruntime
sessions, each in a process of its own, to compare what an allocator makes of it. Linux only.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from qdrant_rerank.hub.locate import locate
from qdrant_rerank.utils.atomic_files import atomic_binary, atomic_text

WORDS = """
iron ore melts in a blast furnace at high heat while bread of rye and wheat rises for a night before
it is baked and the river carries sand and stone from the mountain to the sea where ships wait for
wind and the sailors tell of storms stars and islands that no map has ever shown to anyone on land
""".split()
SAMPLES = 100  # points of the curve
ALLOWED = 1.05
# Name -> session options, provider options, run options.
VARIANTS: dict[str, tuple[dict[str, bool], dict[str, str], dict[str, str]]] = {
    "as it comes": ({}, {}, {}),
    "no arena": ({"enable_cpu_mem_arena": False}, {}, {}),
    "no memory pattern": ({"enable_mem_pattern": False}, {}, {}),
    "neither": ({"enable_cpu_mem_arena": False, "enable_mem_pattern": False}, {}, {}),
    "as requested": ({}, {"arena_extend_strategy": "kSameAsRequested"}, {}),
    "shrinking": ({}, {}, {"memory.enable_memory_arena_shrinkage": "cpu:0"}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--level", type=int, help="queries after which the level is taken; 500")
    parser.add_argument("--documents", type=int, default=6)
    parser.add_argument("--model", default=DEFAULT_RERANKER)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    level = given.level or min(500, given.queries // 2)
    if given.variants:
        for name in VARIANTS:
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--variant", name], check=True)
        return
    if given.variant:
        curve = follow(bare(locate(given.model).model, given.variant), given, level)
        print(f"{given.variant:<18}{given.queries} queries {told(curve, level)}", flush=True)
        return
    encoder = TextCrossEncoder(given.model, precision=given.precision)
    print(encoder)

    def ask(words: Sequence[int]) -> None:
        encoder.rerank(text(8), [text(count) for count in words])

    curve = follow(ask, given, level, shown=True)
    print(told(curve, level))
    if given.out:
        with atomic_text(given.out) as file:
            json.dump({"model": repr(encoder), "level": level, "megabytes": curve}, file, indent=1)
    if given.plot:
        draw(curve, level, given.plot)
    if curve[-1][1] > ALLOWED * dict(curve)[level]:
        sys.exit(1)


def follow(
    ask: Callable[[Sequence[int]], None], given: argparse.Namespace, level: int, shown: bool = False
) -> list[tuple[int, float]]:
    """(queries so far, resident megabytes), after the first, after ``level``, and in between."""
    draw = random.Random(0)
    at = {1, level, *range(0, given.queries + 1, max(1, given.queries // SAMPLES)), given.queries}
    curve = []
    with ThreadPoolExecutor(given.callers) as callers:
        done = 0
        while done < given.queries:
            end = min(step for step in at if step > done)
            work = [sizes(draw, given.documents) for _ in range(end - done)]
            list(callers.map(ask, work))
            done = end
            curve.append((done, resident()))
            if shown:
                print(f"{done:>7} queries {curve[-1][1]:8.1f} MB", flush=True)
    return curve


def sizes(draw: random.Random, most: int) -> list[int]:
    """Words of each document of a query; one query has short ones, another long ones."""
    longest = draw.choice([20, 60, 150, 500])
    return [draw.randint(5, longest) for _ in range(draw.randint(1, most))]


def text(words: int) -> str:
    return " ".join(random.choices(WORDS, k=words))


def bare(model: Path, variant: str) -> Callable[[Sequence[int]], None]:
    """Runs of an onnxruntime session on two threads, one row each, as wide as there are words."""
    import onnxruntime as ort

    session_options, provider_options, run_options = VARIANTS[variant]
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for name, switch in session_options.items():
        setattr(options, name, switch)
    how = ort.RunOptions()
    for name, value in run_options.items():
        how.add_run_config_entry(name, value)
    session = ort.InferenceSession(
        str(model),
        options,
        providers=["CPUExecutionProvider"],
        provider_options=[provider_options],
    )
    inputs = [node.name for node in session.get_inputs()]
    pool = ThreadPoolExecutor(2)

    def run(width: int) -> Any:
        ids = np.full((1, width), 2000, dtype=np.int64)
        halves = (np.arange(width)[None] >= width // 2).astype(np.int64)
        fed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": halves}
        return session.run(None, {name: fed[name] for name in inputs}, how)

    def ask(words: Sequence[int]) -> None:
        list(pool.map(run, words))

    return ask


def resident() -> float:
    """Of this process, in megabytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def told(curve: Sequence[tuple[int, float]], level: int) -> str:
    """The level, what became of it, and the highest in between."""
    at_level, end = dict(curve)[level], curve[-1][1]
    highest = max(size for count, size in curve if count >= level)
    return (
        f"{at_level:.1f} MB after {level}, {end:.1f} MB at the end ({end / at_level - 1:+.1%}), "
        f"at most {highest:.1f} MB ({highest / at_level - 1:+.1%})"
    )


def draw(curve: Sequence[tuple[int, float]], level: int, path: Path) -> None:
    """The curve, its level and what is allowed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*curve, strict=True))
    base = dict(curve)[level]
    axes.axhspan(base / ALLOWED, base * ALLOWED, alpha=0.15, label=f"within 5 % of query {level}")
    axes.set(xlabel="queries", ylabel="resident memory, MB", ylim=(0, None))
    axes.legend()
    with atomic_binary(path) as file:
        figure.savefig(file, format="png")


if __name__ == "__main__":
    main()
