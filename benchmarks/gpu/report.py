"""Tables of what was measured.

python -m benchmarks.gpu.report benchmarks/results/gpu.json
"""

import argparse
import json
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.arguments import existing_path
from benchmarks.gpu.contenders import LIMIT
from benchmarks.gpu.models import SHAPES
from benchmarks.peers.report import markdown
from qdrant_rerank.utils.atomic_files import atomic_text

__all__ = ["page", "write"]

HEADER = (
    "contender",
    "p50 ms",
    "p99 ms",
    "pairs/s",
    "times as fast as fastembed",
    "of the fp16 limit",
    "largest difference",
)
BASE = "fastembed, fp32"
PARITY = ("precision", "largest difference", "same first 10", "nDCG@10", "on the CPU, fp32")


def write(results: dict[str, Any], folder: Path) -> None:
    """Write ``gpu.json`` and ``gpu.md``, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_text(folder / "gpu.json") as file:
        json.dump(results, file, indent=1)
    with atomic_text(folder / "gpu.md") as file:
        file.write(page(results))


def page(results: dict[str, Any]) -> str:
    """All tables in Markdown."""
    machine = results["machine"]
    parts = [
        "# gpu",
        f"{machine['when']}, {results['gpu']}, {machine['cores']} cores of "
        f"{machine['processor']}, {machine['system']}, Python {machine['python']}, commit "
        f"{machine['commit']}.",
        "; ".join(f"{name} {version}" for name, version in _versions(results)) + ".",
        "How it measures: `benchmarks/gpu/__init__.py`.",
    ]
    if results["trial"]:
        parts.append("**A trial of the benchmark itself on a CPU, not a result.**")
    for measured in results["models"]:
        candidates, pooled = measured["candidates"], measured["pooled"]
        parts += [
            f"## {SHAPES[measured['model']]}",
            f"p50 and p99 of {candidates['pairs']} candidates; pairs per second of "
            f"{pooled['pairs']:,} pairs in one call.",
            markdown(HEADER, [_row(label, measured) for label in measured["contenders"]]),
        ]
        failed = {
            label: about["error"]
            for label, about in measured["contenders"].items()
            if "error" in about
        }
        if failed:
            parts.append("\n".join(f"- {label}: {error}" for label, error in failed.items()))
    if "parity" in results:
        found = results["parity"]
        rows = [
            (
                precision,
                f"{found[precision]['largest_difference']:.1e}",
                f"{found[precision]['same_top_10']:.1%}",
                f"{found[precision]['nDCG@10']:.4f}",
                f"{found['nDCG@10']:.4f}",
            )
            for precision in ("fp32", "fp16")
        ]
        parts += [
            f"## Parity on TREC DL 2019: {found['queries']} queries, {found['pairs']:,} pairs",
            markdown(PARITY, rows),
        ]
    return "\n\n".join(parts) + "\n"


def _row(label: str, measured: dict[str, Any]) -> tuple[str, ...]:
    one = measured["candidates"]["seconds"].get(label)
    many = _speed(label, measured)
    if not one or many is None:
        return (label, *[""] * (len(HEADER) - 1))
    hundredths = quantiles(one, n=100, method="inclusive") if len(one) > 1 else one * 99
    base, limit = _speed(BASE, measured), _speed(LIMIT, measured)
    difference = measured["pooled"]["largest_difference"].get(label)
    return (
        label,
        f"{1000 * median(one):.1f}",
        f"{1000 * hundredths[98]:.1f}",
        f"{many:,.0f}",
        "" if base is None else f"{many / base:.2f}",
        "" if limit is None else f"{many / limit:.0%}",
        "" if difference is None or label == LIMIT else f"{difference:.1e}",
    )


def _speed(label: str, measured: dict[str, Any]) -> float | None:
    """Pairs per second; None where it did not run."""
    seconds = measured["pooled"]["seconds"].get(label)
    return None if not seconds else float(measured["pooled"]["pairs"] / median(seconds))


def _versions(results: dict[str, Any]) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for measured in results["models"]:
        for about in measured["contenders"].values():
            found.update(about.get("versions", {}))
    return sorted(found.items())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recorded", type=existing_path)
    recorded = parser.parse_args().recorded
    write(json.loads(recorded.read_text()), recorded.parent)
