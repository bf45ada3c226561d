"""Pictures of an evaluation and of a sweep, by matplotlib; no window, no global state."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qdrant_rerank.errors import InvalidInputError, MissingDependencyError
from qdrant_rerank.whole import whole_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from qdrant_rerank.evaluation.results import Evaluation
    from qdrant_rerank.evaluation.tuning import Tuning

__all__ = ["draw_front", "draw_gains", "require_matplotlib", "save_figure"]

BETTER, WORSE, MUTED = "#2a7f62", "#b5482f", "#8a8a8a"
LONGEST_NAME = 40  # characters
FORMATS = ("png", "svg", "pdf")


def require_matplotlib() -> Any:
    """The module of figures.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib import figure
    except ImportError as error:
        raise MissingDependencyError(
            'Pictures need matplotlib: pip install "qdrant-rerank[eval]".'
        ) from error
    return figure


def draw_gains(evaluation: "Evaluation", measure: str | None = None) -> "Figure":
    """Gain of each query, largest first, a panel for each configuration that reranks.

    Args:
        evaluation: what was measured.
        measure: one of its measures; None for the first.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    measure = evaluation.measures[0] if measure is None else measure
    shown = [c for c in evaluation.configurations if c.pairs] or evaluation.configurations
    figure = require_matplotlib().Figure(figsize=(7, 0.6 + 2.4 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axis, configuration in zip(axes, shown, strict=True):
        before, after = (configuration.values[s][measure] for s in ("before", "after"))
        gains = np.sort(after - before)[::-1]
        colours = [BETTER if gain > 0 else WORSE if gain < 0 else MUTED for gain in gains]
        axis.bar(np.arange(1, len(gains) + 1), gains, color=colours, width=0.9)
        axis.axhline(0, color="black", linewidth=0.6)
        gain = configuration.gains[measure]
        axis.axhline(gain.mean, color=MUTED, linewidth=1, linestyle="--")
        axis.set_title(
            f"{_plain(configuration.name)}: {before.mean():.3f} to {after.mean():.3f}, better for "
            f"{(gains > 0).sum()}, worse for {(gains < 0).sum()} of {len(gains)}",
            fontsize=9,
            loc="left",
        )
        axis.set_ylabel(f"gain in {measure}", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("queries, sorted by gain (dashed: the mean)", fontsize=9)
    return figure  # type: ignore[no-any-return]


def draw_front(tuning: "Tuning") -> "Figure":
    """Quality against milliseconds: every configuration, the front, and what is left of it.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = require_matplotlib().Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    front = tuning.front
    others = [point for point in tuning.points if point not in front]
    axis.scatter(
        [p.ms for p in others], [p.chosen_on for p in others], s=12, color=MUTED, alpha=0.5
    )
    ms = [p.ms for p in front]
    axis.plot(
        ms, [p.chosen_on for p in front], "o-", color=BETTER, label="on the half they are chosen on"
    )
    axis.plot(ms, [p.reported_on for p in front], "o:", color=WORSE, label="on the other half")
    best = tuning.best
    axis.scatter([best.ms], [best.chosen_on], s=160, facecolors="none", edgecolors="black")
    recall_only = [point for point in front if point.reranker is None][-1:]
    for point in recall_only + [point for point in front if point.reranker is not None]:
        name = "first stage" if point.reranker is None else f"{point.candidates}, {point.blend}"
        axis.annotate(
            name, (point.ms, point.chosen_on), (4, 5), textcoords="offset points", fontsize=7
        )
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel(
        "milliseconds a query (labels: candidates, blend; circle: the best)", fontsize=9
    )
    axis.set_ylabel(tuning.measure, fontsize=9)
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return figure  # type: ignore[no-any-return]


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write a picture, whole or not at all; the suffix says the format.

    Raises:
        InvalidInputError: a suffix that is no picture's, or a path that cannot be written.
    """
    path = Path(path)
    if path.suffix[1:] not in FORMATS:
        raise InvalidInputError(
            f"{path} ends in {path.suffix!r}; expected one of {', '.join(FORMATS)}."
        )
    with whole_bytes(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=150)


def _plain(name: str) -> str:
    """A name that fits a title and that matplotlib does not read as mathematics."""
    return name[:LONGEST_NAME].replace("$", r"\$")
