"""Where the time of a model goes, by operator, from ONNX Runtime's own profiler.

    python benchmarks/profile_operators.py FILE.onnx [FILE.onnx ...] [--tokens 182] [--runs 30]

One intra-op thread, one pair per batch. Each file is run twice: as onnxruntime takes it, and as the
package loads it for a CPU (attention fused, SkipLayerNormalization not). Products of two
activations (attention's) are counted apart from products with weights. Of each node the fastest
run counts, so that other work on the machine does not.
"""

import argparse
import json
import math
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from arguments import existing_path
from rich.console import Console
from rich.table import Table

from qdrant_rerank.inference.conversion.attention import with_fused_attention
from qdrant_rerank.inference.sessions import SLOWER_TOGETHER
from qdrant_rerank.utils.atomic_files import atomic_text

QUERY_TOKENS = 10
PRODUCTS = {"MatMul", "FusedMatMul"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=existing_path)
    parser.add_argument("--tokens", type=int, default=182, help="of the pair")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--top", type=int, default=15, help="operators shown")
    parser.add_argument("--out", type=Path, help="JSON with the milliseconds of every operator")
    given = parser.parse_args()
    profiles = {}
    for file in given.files:
        profiles[f"{file}, as it is"] = profile(file, [], given.tokens, given.runs)
        with fused(file) as ours:
            profiles[f"{file}, ours"] = profile(ours, SLOWER_TOGETHER, given.tokens, given.runs)
    Console().print(table(profiles, given.top, given.tokens))
    if given.out:
        with atomic_text(given.out) as file:
            json.dump(profiles, file, indent=1)


@contextmanager
def fused(file: Path) -> Iterator[Path]:
    """The file that the package loads for a CPU."""
    with tempfile.TemporaryDirectory() as cache, with_fused_attention(file, Path(cache)) as made:
        yield made


def profile(file: Path, without: list[str], tokens: int, runs: int) -> dict[str, dict[str, float]]:
    """Milliseconds and calls a run of each operator.

    Args:
        file: an ONNX text encoder.
        without: onnxruntime's optimizers that are left out.
        tokens: of the pair.
        runs: of which the fastest counts.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"], disabled_optimizers=without
        )
        names = {node.name for node in session.get_inputs()}
        inputs = {name: value for name, value in pair(tokens).items() if name in names}
        for _ in range(runs):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    least: dict[tuple[str, str], float] = {}
    for event in events:
        # What is inside an If is counted by itself.
        if event["name"].endswith("_kernel_time") and event["args"]["op_name"] != "If":
            key = (event["name"], operator(event["args"]))
            least[key] = min(least.get(key, math.inf), float(event["dur"]) / 1000)
    milliseconds: defaultdict[str, float] = defaultdict(float)
    calls: Counter[str] = Counter()
    for (_, name), duration in least.items():
        milliseconds[name] += duration
        calls[name] += 1
    return {
        name: {"ms": milliseconds[name], "calls": calls[name]}
        for name in sorted(milliseconds, key=milliseconds.__getitem__, reverse=True)
    }


def pair(tokens: int) -> dict[str, Any]:
    """Inputs of one pair, (1, tokens) int64."""
    ids = np.random.default_rng(0).integers(1000, 20000, (1, tokens), dtype=np.int64)
    ids[0, [0, QUERY_TOKENS - 1, -1]] = 101, 102, 102
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": (np.arange(tokens)[None] >= QUERY_TOKENS).astype(np.int64),
        "position_ids": np.arange(tokens, dtype=np.int64)[None],
    }


def operator(about: dict[str, Any]) -> str:
    """The name of an event's operator."""
    name = str(about["op_name"])
    if name not in PRODUCTS:
        return name
    shapes = [next(iter(shape.values())) for shape in about["input_type_shape"]]
    # Weights are two-dimensional, or packed and then not listed at all.
    attention = len(shapes) > 1 and len(shapes[1]) > 2
    return f"{name} of activations" if attention else f"{name} with weights"


def table(profiles: dict[str, dict[str, dict[str, float]]], top: int, tokens: int) -> Table:
    """A row an operator, a column a file."""
    totals = {file: sum(row["ms"] for row in found.values()) for file, found in profiles.items()}
    most = {
        name: max(found[name]["ms"] for found in profiles.values() if name in found)
        for name in {name for found in profiles.values() for name in found}
    }
    shown = sorted(most, key=most.__getitem__, reverse=True)[:top]
    made = Table(title=f"milliseconds a run of {tokens} tokens, one thread: share, calls")
    made.add_column("operator")
    for file in profiles:
        made.add_column("/".join(Path(file).parts[-3:]), justify="right")
    for name in shown:
        made.add_row(name, *(cell(profiles[file].get(name), totals[file]) for file in profiles))
    rest = [
        sum(row["ms"] for name, row in found.items() if name not in shown)
        for found in profiles.values()
    ]
    made.add_row("others", *(f"{ms:.2f}" for ms in rest))
    made.add_row("all", *(f"{total:.2f}" for total in totals.values()), style="bold")
    return made


def cell(row: dict[str, float] | None, total: float) -> str:
    """Milliseconds, share and calls of an operator in a file."""
    return "" if row is None else f"{row['ms']:.2f}  {row['ms'] / total:4.0%} {row['calls']:4.0f}"


if __name__ == "__main__":
    main()
