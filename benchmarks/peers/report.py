"""Tables of recorded results.

python -m benchmarks.peers.report benchmarks/results/peers.json
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.arguments import existing_path
from qdrant_rerank.utils.atomic_files import atomic_binary, atomic_text

from .plot import draw
from .targets import ratios, spread, targets

__all__ = ["write_report"]

HEADER = (
    "contender",
    "setting",
    "pairs/s",
    "times as fast as {base}",
    "of the fp32 limit",
    "of the int8 limit",
    "largest difference",
    "rank corr.",
    "loaded MB",
    "peak MB above",
)


def write_report(results: dict[str, Any], folder: Path, name: str) -> None:
    """Write ``name.json``, ``name.md`` and ``name.png``, each whole or not at all."""
    with atomic_text(folder / f"{name}.json") as file:
        json.dump(results, file, indent=1)
    with atomic_text(folder / f"{name}.md") as file:
        file.write(page(results, name))
    with atomic_binary(folder / f"{name}.png") as picture:
        draw(results, picture)


def page(results: dict[str, Any], name: str) -> str:
    """The whole report in Markdown."""
    machine = results["machine"]
    parts = [
        f"# {name}",
        f"{machine['when']}, {machine['cores']} cores of {machine['processor']} "
        f"({machine['family']}; {' '.join(machine['flags'])}), {machine['memory_gb']} GB, "
        f"{machine['system']}, Python {machine['python']}, commit {machine['commit']}, "
        f"load {machine['load']:.2f} at the start.",
        "; ".join(f"{package} {version}" for package, version in versions(results)) + ".",
        "Medians over the rounds; in brackets the lowest and the highest. How it measures: "
        "`benchmarks/peers/__init__.py`. Every time of every round: the JSON file beside this one.",
    ]
    if "trial" in results:
        parts.append(f"**A trial of the benchmark itself, not a result: {results['trial']}.**")
    reached = [
        (
            row.workload,
            row.target,
            row.measured,
            {True: "yes", False: "**no**", None: ""}[row.reached],
        )
        for row in targets(results)
    ]
    if reached:
        head = ("workload, 6 x 384, 100 candidates", "target", "measured", "reached")
        parts += ["## Targets", markdown(head, reached)]
    parts.append(f"![pairs a second]({name}.png)")
    for suite in results["suites"]:
        parts += [f"## {suite['name']}: {suite['rounds']} rounds", suite_table(suite)]
        left_out = [
            f"- {entry['label']}: not run to the end: {entry['error']}"
            for entry in suite["entries"]
            if "error" in entry
        ]
        if left_out:
            parts.append("\n".join(left_out))
    return "\n\n".join(parts) + "\n"


def versions(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Of every package that a contender ran with; more than one where environments differ."""
    entries = [entry for suite in results["suites"] for entry in suite["entries"]]
    found: dict[str, set[str]] = {}
    for entry in [*entries, results.get("search", {})]:
        for package, version in entry.get("versions", {}).items():
            found.setdefault(package, set()).add(version)
    return [(package, " and ".join(sorted(found[package]))) for package in sorted(found)]


def suite_table(suite: dict[str, Any]) -> str:
    """One suite: a row an entry."""
    entries = [entry for entry in suite["entries"] if entry.get("seconds")]
    if not entries:
        return "Nothing ran."
    base, pairs = entries[0]["label"], entries[0]["pairs"]
    rows = []
    for entry in entries:
        scored = "differences" in entry
        speeds = [entry["pairs"] / seconds for seconds in entry["seconds"]]
        faster = [ratio * entry["pairs"] / pairs for ratio in ratios(suite, base, entry["label"])]
        rows.append(
            (
                entry["label"],
                setting(entry),
                spread(speeds, "{:.1f}"),
                "" if entry["label"] == base else spread(faster),
                *(
                    spread(ratios(suite, limit, entry["label"]), "{:.0%}") if scored else ""
                    for limit in ("limit, fp32", "limit, int8")
                ),
                f"{max(entry['differences']):.1e}" if scored else "",
                f"{median(entry['rank_correlations']):.4f}" if scored else "",
                f"{entry['loaded_mb']:.0f}",
                f"{entry['peak_mb'] - entry['loaded_mb']:.0f}",
            )
        )
    return markdown([title.format(base=base) for title in HEADER], rows)


def setting(entry: dict[str, Any]) -> str:
    """What was chosen for a contender, in words."""
    chosen = {**entry["options"], "batch_size": entry["batch_size"], "threads": entry["threads"]}
    return " ".join(f"{name}={value}" for name, value in chosen.items() if value is not None)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recorded", type=existing_path)
    recorded = parser.parse_args().recorded
    write_report(json.loads(recorded.read_text()), recorded.parent, recorded.stem)
