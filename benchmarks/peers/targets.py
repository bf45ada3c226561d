"""What was to be reached on 2 cores, and what was measured: medians of ratios within a round."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

__all__ = ["Target", "ratios", "spread", "targets"]

FASTEMBED = "fastembed, default"
OURS = ("ours", "ours, openvino fp32")
MOST_OVERHEAD = 0.08  # of search over rerank alone
LEAST_THROUGHPUT = 0.95  # of eight callers by one's
MOST_MB = 60  # above the loaded model
LARGEST_DIFFERENCE = 1e-4  # of scores, fp32


@dataclass(frozen=True, slots=True)
class Target:
    """One row: ``reached`` is None where something did not run."""

    workload: str
    target: str
    measured: str
    reached: bool | None


def targets(results: dict[str, Any]) -> list[Target]:
    """The rows that these results say something about."""
    suites = {suite["name"]: suite for suite in results["suites"]}
    rows: list[Target] = []
    if suite := suites.get("mixed"):
        rows += _mixed(suite)
    for shape in ("short", "long"):
        if suite := suites.get(shape):
            rows += _never_slower(suite)
    if search := results.get("search"):
        rows.append(_search(search))
    for name in ("callers", "callers, int8 file"):
        if suite := suites.get(name):
            rows += _callers(suite)
    if suite := suites.get("candidates"):
        rows += _candidates(suite)
    return rows


def ratios(suite: dict[str, Any], slower: str, faster: str) -> list[float]:
    """Seconds of the one by seconds of the other in each round; empty where one did not run."""
    seconds = {entry["label"]: entry.get("seconds", []) for entry in suite["entries"]}
    pairs = zip(seconds.get(slower, []), seconds.get(faster, []), strict=False)
    return [one / other for one, other in pairs]


def spread(values: Sequence[float], form: str = "{:.2f}") -> str:
    """Median, lowest and highest."""
    if not values:
        return ""
    low, middle, high = (form.format(of(values)) for of in (min, median, max))
    return f"{middle} ({low} to {high})"


def _mixed(suite: dict[str, Any]) -> Iterator[Target]:
    fp32, int8, best = "mixed, fp32", "mixed, int8, onnxruntime alone", "mixed, best int8 engine"
    for ours in OURS:
        yield _times(fp32, suite, FASTEMBED, ours, 4.5)
        yield _times(fp32, suite, "fastembed, best", ours, 2.8)
        yield _share(fp32, suite, "limit, fp32", ours, 0.7)
        for difference in _largest(suite, ours):
            measured = f"{ours}: {difference:.1e}"
            reached = difference <= LARGEST_DIFFERENCE
            yield Target(fp32, "largest difference 1e-4", measured, reached)
    alone = _fastest(suite, ("ours, int8 file", "ours, precision=int8"))
    yield _times(int8, suite, FASTEMBED, alone, 9)
    yield _times(best, suite, FASTEMBED, alone, 12)
    yield _share(best, suite, "limit, int8", alone, 0.55)
    yield _times("mixed, bf16", suite, FASTEMBED, "ours, openvino bf16", 12)


def _never_slower(suite: dict[str, Any]) -> Iterator[Target]:
    peers = [
        entry["label"] for entry in suite["entries"] if entry["engine"] not in {"ours", "limit"}
    ]
    for ours in OURS:
        nearest = _fastest(suite, peers)
        yield _times(f"{suite['name']}, fp32, the fastest peer", suite, nearest, ours, 1)


def _search(found: dict[str, Any]) -> Target:
    extra = [ratio - 1 for ratio in found["ratios"]]
    return Target(
        f"search against rerank, {found['engine']}, {found['points']:,} points",
        f"at most {MOST_OVERHEAD:.0%} more",
        spread(extra, "{:+.1%}"),
        median(extra) <= MOST_OVERHEAD,
    )


def _callers(suite: dict[str, Any]) -> Iterator[Target]:
    one, many = (entry["label"] for entry in suite["entries"])
    found = ratios(suite, one, many)
    for difference in _largest(suite, many):
        yield Target(
            f"8 {suite['name']}",
            f"{LEAST_THROUGHPUT:.0%} of one caller's throughput, no error, same scores",
            f"{spread(found, '{:.0%}')}, largest difference {difference:.1e}",
            median(found) >= LEAST_THROUGHPUT and difference == 0,
        )


def _candidates(suite: dict[str, Any]) -> Iterator[Target]:
    entries = {entry["label"]: entry for entry in suite["entries"]}
    for name in ("ours", "ours, int8 file"):
        few, many = f"{name}, 100", f"{name}, 1,000"
        if found := ratios(suite, many, few):
            about = f"1,000 candidates, {name}"
            above = entries[many]["peak_mb"] - entries[many]["loaded_mb"]
            yield Target(about, "10x the time of 100", spread(found), median(found) <= 10)
            yield Target(
                about, f"{MOST_MB} MB above the model", f"{above:.0f} MB", above <= MOST_MB
            )


def _times(workload: str, suite: dict[str, Any], slower: str, faster: str, least: float) -> Target:
    found = ratios(suite, slower, faster)
    measured = f"{faster}: {spread(found)}" if found else f"{faster} or {slower}: not run"
    reached = median(found) >= least if found else None
    return Target(workload, f"{least:g}x {slower}", measured, reached)


def _share(workload: str, suite: dict[str, Any], limit: str, label: str, least: float) -> Target:
    found = ratios(suite, limit, label)
    measured = f"{label}: {spread(found, '{:.0%}')}" if found else f"{label}: not run"
    reached = median(found) >= least if found else None
    return Target(
        workload,
        f"{least:.0%} of the {limit.removeprefix('limit, ')} GEMM limit",
        measured,
        reached,
    )


def _largest(suite: dict[str, Any], label: str) -> Iterator[float]:
    """The largest difference of an entry's scores, if it ran."""
    for entry in suite["entries"]:
        if entry["label"] == label and entry.get("differences"):
            yield max(entry["differences"])


def _fastest(suite: dict[str, Any], labels: Iterable[str]) -> str:
    """The entry with the lowest median; the first where none ran."""
    names = list(labels)
    ran = {
        entry["label"]: median(entry["seconds"])
        for entry in suite["entries"]
        if entry.get("seconds")
    }
    return min((name for name in names if name in ran), key=ran.__getitem__, default=names[0])
