"""Every page and plot of the site that is not a file of ``docs/``."""

import re
from collections.abc import Callable
from pathlib import Path

from manual.api import api_pages
from manual.commands import commands_page
from manual.models import benchmarks_page, cards_page, known_models_page
from manual.plots import PLOTS
from manual.settings import metrics_page, settings_page

__all__ = ["MADE"]


def _changes() -> str:
    """Return the changelog, with links as they are from its place in the site."""
    text = (Path(__file__).parents[1] / "CHANGELOG.md").read_text("utf-8")
    return re.sub(r"\]\(docs/", "](../", text)


#: Path from ``docs/`` -> function that returns Markdown or SVG.
MADE: dict[str, Callable[[], str]] = {
    **{f"assets/{name}": draw for name, draw in PLOTS.items()},
    **api_pages(),
    "reference/benchmarks.md": benchmarks_page,
    "reference/changes.md": _changes,
    "reference/commands.md": commands_page,
    "reference/known-models.md": known_models_page,
    "reference/metrics.md": metrics_page,
    "reference/model-cards.md": cards_page,
    "reference/settings.md": settings_page,
}
