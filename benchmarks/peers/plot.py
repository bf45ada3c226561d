"""The picture of recorded results: pairs a second of every contender, and the limits."""

from statistics import median
from typing import IO, Any

__all__ = ["draw"]

OURS, PEER, LIMIT = "#1a6faf", "#b9b9b9", "#c23b22"
ROW_INCHES = 0.3
MOST_SUITES = 12  # that one picture shows


def draw(results: dict[str, Any], file: IO[bytes]) -> None:
    """Write a PNG: a panel a suite, a bar a contender (median), whiskers from low to high."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    panels = [
        (suite["name"], [entry for entry in suite["entries"] if entry.get("seconds")])
        for suite in results["suites"][:MOST_SUITES]
    ]
    panels = [(name, entries) for name, entries in panels if entries]
    heights = [len(entries) + 2 for _, entries in panels] or [1]
    figure, axes = plt.subplots(
        len(heights),
        1,
        figsize=(9, ROW_INCHES * sum(heights) + 1),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
    )
    for axis, (name, entries) in zip(axes[:, 0], panels, strict=False):
        panel(axis, name, entries)
    figure.savefig(file, dpi=120, format="png")
    plt.close(figure)


def panel(axis: Any, name: str, entries: list[dict[str, Any]]) -> None:
    """One suite: bars, fastest on top, with limits as lines."""
    speeds = {
        entry["label"]: [entry["pairs"] / seconds for seconds in entry["seconds"]]
        for entry in entries
    }
    engines = {entry["label"]: entry["engine"] for entry in entries}
    bars = [label for label in speeds if engines[label] != "limit"]
    bars.sort(key=lambda label: median(speeds[label]))
    middles = [median(speeds[label]) for label in bars]
    low = [middle - min(speeds[label]) for label, middle in zip(bars, middles, strict=True)]
    high = [max(speeds[label]) - middle for label, middle in zip(bars, middles, strict=True)]
    colours = [OURS if engines[label] == "ours" else PEER for label in bars]
    axis.barh(bars, middles, xerr=[low, high], color=colours, ecolor="#444444", height=0.7)
    for row, (middle, above) in enumerate(zip(middles, high, strict=True)):
        axis.annotate(
            f" {middle:.0f}", (middle + above, row), va="center", fontsize=8, color="#444444"
        )
    for number, label in enumerate(label for label in speeds if engines[label] == "limit"):
        style = ("-", "--", ":")[number % 3]
        axis.axvline(median(speeds[label]), color=LIMIT, linestyle=style, label=label)
    if any(engine == "limit" for engine in engines.values()):
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, frameon=False)
    axis.set_title(name, loc="left", fontsize=10, fontweight="bold")
    axis.set_xlabel("pairs/s", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.margins(x=0.08)
    axis.spines[["top", "right"]].set_visible(False)
