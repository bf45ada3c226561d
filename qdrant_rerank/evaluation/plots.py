"""Plots of an evaluation and of a sweep, by matplotlib. They open no window."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import InvalidInputError, MissingDependencyError
from qdrant_rerank.utils.atomic_files import atomic_binary
from qdrant_rerank.utils.validation import as_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FrontPoint", "draw_front", "draw_gains", "require_matplotlib", "save_figure"]

BETTER, WORSE, MUTED = "#2a7f62", "#b5482f", "#8a8a8a"
LONGEST_NAME = 40  # characters
FORMATS = ("png", "svg", "pdf")


def require_matplotlib() -> Any:
    """Return matplotlib's module of figures.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib import figure
    except ImportError as error:
        raise MissingDependencyError(
            'Plots need matplotlib: pip install "qdrant-rerank[eval]".'
        ) from error
    return figure


def draw_gains(
    scores: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], measure: str
) -> "Figure":
    """Plot the gain of each query, largest first, one panel per configuration.

    Args:
        scores: configuration -> its scores before and after reranking, each of shape (queries,).
        measure: the metric that they are of, for the labels.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = require_matplotlib().Figure(figsize=(7, 0.6 + 2.4 * len(scores)), layout="constrained")
    axes = figure.subplots(len(scores), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axis, (name, (before, after)) in zip(axes, scores.items(), strict=True):
        gains = np.sort(after - before)[::-1]
        colours = [BETTER if gain > 0 else WORSE if gain < 0 else MUTED for gain in gains]
        axis.bar(np.arange(1, len(gains) + 1), gains, color=colours, width=0.9)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.axhline(gains.mean(), color=MUTED, linewidth=1, linestyle="--")
        axis.set_title(
            f"{_plain(name)}: {before.mean():.3f} to {after.mean():.3f}, better for "
            f"{(gains > 0).sum()}, worse for {(gains < 0).sum()} of {len(gains)}",
            fontsize=9,
            loc="left",
        )
        axis.set_ylabel(f"gain in {measure}", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("queries, sorted by gain (dashed: the mean)", fontsize=9)
    return figure  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """One configuration of the front.

    Attributes:
        ms: milliseconds per query.
        chosen_on: the metric on the half of the queries that configurations are chosen on.
        reported_on: the metric on the other half.
        label: a few words.
        best: whether it is the best of the front.
    """

    ms: float
    chosen_on: float
    reported_on: float
    label: str
    best: bool


def draw_front(
    front: Sequence[FrontPoint], others: Sequence[tuple[float, float]], measure: str
) -> "Figure":
    """Plot quality against milliseconds per query: the Pareto front among all configurations.

    Args:
        front: the front, fastest first.
        others: milliseconds and metric of the configurations that are not on it.
        measure: the metric, for the label.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = require_matplotlib().Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.scatter([ms for ms, _ in others], [y for _, y in others], s=12, color=MUTED, alpha=0.5)
    ms = [p.ms for p in front]
    axis.plot(
        ms, [p.chosen_on for p in front], "o-", color=BETTER, label="on the half they are chosen on"
    )
    axis.plot(ms, [p.reported_on for p in front], "o:", color=WORSE, label="on the other half")
    for point in front:
        at = (point.ms, point.chosen_on)
        if point.best:
            axis.scatter([at[0]], [at[1]], s=160, facecolors="none", edgecolors="black")
        axis.annotate(point.label, at, (4, 5), textcoords="offset points", fontsize=7)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel(
        "milliseconds per query (labels: candidates, blend; circle: the best)", fontsize=9
    )
    axis.set_ylabel(measure, fontsize=9)
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return figure  # type: ignore[no-any-return]


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write a plot, whole or not at all; the suffix says the format.

    Raises:
        InvalidInputError: no format has that suffix, or the path cannot be written.
    """
    path = as_path("path", path)
    if path.suffix[1:] not in FORMATS:
        raise InvalidInputError(
            f"{path} ends in {path.suffix!r}; expected one of {', '.join(FORMATS)}."
        )
    with atomic_binary(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=150)


def _plain(name: str) -> str:
    """Return a name that fits a title and that matplotlib does not read as mathematics."""
    return name[:LONGEST_NAME].replace("$", r"\$")
