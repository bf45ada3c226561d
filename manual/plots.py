"""Plots of recorded figures, as SVG that needs nothing from elsewhere."""

import json
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams |= {
    "svg.hashsalt": "qdrant-rerank",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.transforms import Bbox  # noqa: E402

from manual.models import quality_rows  # noqa: E402
from qdrant_rerank import DEFAULT_RERANKER  # noqa: E402

__all__ = ["PLOTS", "RESULTS"]

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
OURS, OTHERS = "#3949ab", "#9e9e9e"
#: Bundled rerankers, and how their line in the plot of depth is drawn.
DEPTH_LINES = {
    DEFAULT_RERANKER: "o-",
    "grown-e5-small-cross-v1": "^:",
    "grown-e5-small-l6-v1": "s--",
}


def read(name: str) -> Any:
    """Return a recorded result."""
    return json.loads((RESULTS / name).read_text("utf-8"))


def _svg(figure: Figure) -> str:
    out = StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})
    return out.getvalue()


def quality() -> str:
    """Draw each public set: the first stage and the bundled reranker."""
    rows = quality_rows()[::-1]
    figure = Figure((7, 0.4 * len(rows) + 0.8))
    axes = figure.subplots()
    for row, (_, _, before, after) in enumerate(rows):
        axes.plot([before, after], [row, row], color=OTHERS, zorder=1)
        axes.scatter(before, row, color=OTHERS, zorder=2, label="" if row else "before")
        axes.scatter(after, row, color=OURS, zorder=3, label="" if row else "after")
    axes.set_yticks(range(len(rows)), [f"{name}, {measure}" for name, measure, *_ in rows])
    axes.set_xlabel("quality, before and after reranking")
    axes.legend(frameon=False)
    return _svg(figure)


def peers() -> str:
    """Draw pairs per second of this package and its peers, on the same ONNX file."""
    [mixed] = [suite for suite in read("peers.json")["suites"] if suite["name"] == "mixed"]
    rates = {
        entry["label"]: entry["pairs"] / median(entry["seconds"])
        for entry in mixed["entries"]
        if not entry["label"].startswith("limit")
    }
    order = sorted(rates, key=rates.get)
    figure = Figure((7, 0.28 * len(order) + 0.8))
    axes = figure.subplots()
    colors = [OURS if label.startswith("ours") else OTHERS for label in order]
    bars = axes.barh(order, [rates[label] for label in order], color=colors)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_xlabel("pairs per second, 2 cores, mixed lengths")
    return _svg(figure)


def depth() -> str:
    """Draw quality against time by depth; the number of candidates stands at the default's."""
    record = read("candidates.json")
    [whole] = [
        p["ms"]
        for p in record["points"]
        if (p["reranker"], p["candidates"]) == (DEFAULT_RERANKER, 100)
    ]
    figure = Figure((7, 3.4))
    axes = figure.subplots()
    for model, line in DEPTH_LINES.items():
        points = [p for p in record["points"] if p["reranker"] == model]
        places = [(p["ms"] / whole, p["nDCG@10"]) for p in points]
        axes.plot(*zip(*places, strict=True), line, color=OURS, label=model)
        for p, place in zip(points, places, strict=True):
            if model == DEFAULT_RERANKER:
                axes.annotate(str(p["candidates"]), place, (4, -12), textcoords="offset points")
    first = max(p["nDCG@10"] for p in record["points"] if p["reranker"] is None)
    axes.axhline(first, color=OTHERS, linestyle="--", label="first stage alone")
    axes.legend(frameon=False, loc="lower right")
    axes.set_xscale("log")
    axes.set_xlabel("time per query, as a share of 100 candidates with the default")
    axes.set_ylabel("nDCG@10")
    return _svg(figure)


def cascade() -> str:
    """Draw what a cascade keeps of the quality, and how much faster it is."""
    record = read("cascade.json")
    names = list(record["nDCG@10"])
    means = {name: sum(record["nDCG@10"][name]) / len(record["nDCG@10"][name]) for name in names}
    times = {name: median(record["seconds"][name]) * 1000 for name in names}
    figure = Figure((7, 3.2))
    axes = figure.subplots()
    axes.scatter(
        [times[name] for name in names],
        [means[name] for name in names],
        color=[OURS if name.startswith("keep") else OTHERS for name in names],
    )
    axes.margins(0.15)
    axes.autoscale_view()  # labels are placed by the final limits
    taken = _boxes(axes, [(times[name], means[name]) for name in names])
    for name in names:
        _label(axes, name, (times[name], means[name]), taken)
    axes.set_xlabel("milliseconds per query, 100 candidates")
    axes.set_ylabel("nDCG@10, TREC DL 2019")
    return _svg(figure)


#: nDCG@10 on TREC DL 2019 by the card of ms-marco-MiniLM-L-6-v2, fastembed's default. The recorded
#: speed is that of a model of its shape with random weights.
FASTEMBED = ("shape of fastembed's default, in fastembed (quality by its card)", 0.743)
FIRST_STAGE = 0.506  # of the same candidates, BM25's 100


def states() -> str:
    """Draw quality against time of whole models and stored states, where both are recorded."""
    record = read("stored_states.json")
    points = {}
    for name, row in record.items():
        part, _, model = name.partition(" ")
        if part == "speed" and "fastembed ms" in row:
            points[FASTEMBED[0]] = (row["fastembed ms"], FASTEMBED[1], OTHERS)
        quality = record.get(f"dl19 {model}", {})
        for kind, key, color in (("whole", "whole", OTHERS), ("stored", "int8", OURS)):
            if part == "speed" and f"{key} nDCG@10" in quality:
                points[f"{model}, {kind}"] = (row[f"{kind} ms"], quality[f"{key} nDCG@10"], color)
    figure = Figure((7, 3.8))
    axes = figure.subplots()
    axes.axhline(FIRST_STAGE, color=OTHERS, linestyle="--")
    axes.set_xscale("log")
    axes.set_xlim(min(ms for ms, *_ in points.values()) / 2, 20_000)
    axes.set_ylim(0.49, 0.78)
    taken = _boxes(axes, [(ms, value) for ms, value, _ in points.values()])
    for name, (ms, value, color) in points.items():
        axes.scatter(ms, value, color=color, zorder=2)
        _label(axes, name, (ms, value), taken)
    place = (axes.get_xlim()[0], FIRST_STAGE)
    _label(axes, "no reranker: BM25", place, taken)
    axes.set_xlabel("milliseconds to rerank 100 documents of 15 to 250 words, 2 cores")
    axes.set_ylabel("nDCG@10, TREC DL 2019")
    return _svg(figure)


def _boxes(axes: Axes, places: list[tuple[float, float]]) -> list[Bbox]:
    """Return where points are drawn, which no label may cover."""
    drawn = axes.transData.transform(places)
    return [Bbox.from_extents(x - 3, y - 3, x + 3, y + 3) for x, y in drawn]


def _label(axes: Axes, text: str, place: tuple[float, float], taken: list[Bbox]) -> None:
    """Write beside a point, where no other label is."""
    for up in (5, -13, 18, -26, 31):
        for align, right in (("left", 5), ("right", -5)):
            label = axes.annotate(
                text, place, (right, up), textcoords="offset points", ha=align, fontsize=8
            )
            box = label.get_window_extent()
            if axes.bbox.containsx(box.x1) and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                return
            label.remove()
    raise ValueError(f"no room for {text!r}")


#: File name -> function that draws it.
PLOTS = {
    "quality.svg": quality,
    "peers.svg": peers,
    "depth.svg": depth,
    "cascade.svg": cascade,
    "states.svg": states,
}
