"""The result of an evaluation: tables, JSON, TREC runs and a plot.

``Evaluation.save`` writes into a folder::

    evaluation.json        the schema below
    NAME.first.run         TREC run of the first stage of configuration NAME
    NAME.reranked.run      TREC run after the second stage
    gain.png               gain of each query, sorted

    {"schema": 1,
     "versions": {package: version},
     "arguments": {...},                            as given
     "queries": {"judged", "unjudged", "without_relevant"},
     "ranked": whether the candidates were in an order of relevance before reranking,
     "configurations": {NAME: {
         "candidates", "pairs", "without_text",     most per query; in all; hits without text
         "recall": {"R@10": mean},                  of the first stage
         "measures": {"nDCG@10": {"before", "after", "best", "gain", "low", "high", "p", "p_holm"}},
         "ms": {"embed", "recall", "tokenise", "infer", "total"},    median over queries
         "by_query": {QUERY: {"nDCG@10": [before, after, best]}}}},
     "differences": {NAME: {"nDCG@10": {"mean", "low", "high", "p", "p_holm"}}}}   against the first
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.text import Text

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.evaluation.environment import versions
from qdrant_rerank.evaluation.metrics import Gain, gain_of, holm
from qdrant_rerank.evaluation.trec import Run, write_run
from qdrant_rerank.utils.rendering import Column, Table, html_tables, rich_table, write_json
from qdrant_rerank.utils.validation import as_path

__all__ = [
    "STAGES",
    "Configuration",
    "Evaluation",
    "gain_cells",
]

#: Stages of a search, in order; "total" is the whole search.
STAGES = ("embed", "recall", "tokenise", "infer", "total")
NAMES_WIDTH = 22  # characters; one width for all tables, so that their columns line up
SAFE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"


@dataclass(frozen=True, slots=True, eq=False)
class Configuration:
    """A measured configuration of a search.

    Attributes:
        name: its name in tables and files.
        candidates: most hits per query that the reranker gets.
        before: run of the first stage.
        after: run of the second stage; equal to ``before`` without a reranker.
        values: "before", "after" and "best" (the best order of the same candidates) -> metric ->
            shape (queries,), in the order of the evaluation's queries.
        recall: "R@k" -> shape (queries,), of the first stage.
        gains: metric -> gain from "before" to "after".
        seconds: stage -> shape (queries,).
        pairs: number of all pairs that were scored.
        without_text: number of all hits that had no text to score.
    """

    name: str
    candidates: int
    before: Run
    after: Run
    values: Mapping[str, Mapping[str, NDArray[np.float64]]]
    recall: Mapping[str, NDArray[np.float64]]
    gains: Mapping[str, Gain]
    seconds: Mapping[str, NDArray[np.float64]]
    pairs: int
    without_text: int

    def ms(self, stage: str) -> float:
        """Return the median milliseconds of a stage over all queries."""
        return float(np.median(self.seconds[stage])) * 1000


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Before and after reranking, for one or several configurations; a table in a notebook.

    Attributes:
        queries: texts of the judged queries by id, in the order of all arrays.
        unjudged: number of queries without judgments; they were not searched.
        without_relevant: number of judged queries without a relevant document; they count as 0.
        measures: names of the metrics; plots show the first.
        configurations: the configurations, in the order given.
        arguments: the arguments, as the JSON records them.
        resamples: resamples of each interval and test.
        seed: seed of each interval and test.
        ranked: whether the candidates were in an order of relevance before reranking; if not, they
            are a pool, and "before" is only the order in which it was written down.
    """

    queries: Mapping[str, str]
    unjudged: int
    without_relevant: int
    measures: tuple[str, ...]
    configurations: tuple[Configuration, ...]
    arguments: Mapping[str, Any]
    resamples: int
    seed: int
    ranked: bool = True

    def __getitem__(self, name: str) -> Configuration:
        for configuration in self.configurations:
            if configuration.name == name:
                return configuration
        raise KeyError(name)

    def difference(self, name: str, other: str, measure: str) -> Gain:
        """Return the gain from ``other`` to ``name`` after reranking, paired by query."""
        return gain_of(
            self[other].values["after"][measure],
            self[name].values["after"][measure],
            resamples=self.resamples,
            seed=self.seed,
        )

    def differences(self) -> dict[str, dict[str, Gain]]:
        """Return configuration -> metric -> gain over the first configuration, after reranking."""
        first, *others = self.configurations
        return {
            other.name: {
                measure: self.difference(other.name, first.name, measure)
                for measure in self.measures
            }
            for other in others
        }

    def corrected(self, measure: str) -> dict[tuple[str, str], float]:
        """Return the p-values of a metric's tests, corrected for their number by Holm's method.

        The tests are the gain of each configuration that reranks, and the difference of each from
        the first.

        Returns:
            (configuration, "before" or the name of the first one) -> p-value.
        """
        first = self.configurations[0].name
        tests = {(c.name, "before"): c.gains[measure].p for c in self.configurations if c.pairs > 0}
        for name, gains in self.differences().items():
            tests[name, first] = gains[measure].p
        return dict(zip(tests, holm(list(tests.values())), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; the module's docstring has the schema."""
        first = self.configurations[0].name
        corrected = {measure: self.corrected(measure) for measure in self.measures}
        return {
            "schema": 1,
            "versions": versions(),
            "arguments": {
                **self.arguments,
                "measures": list(self.measures),
                "resamples": self.resamples,
                "seed": self.seed,
            },
            "queries": {
                "judged": len(self.queries),
                "unjudged": self.unjudged,
                "without_relevant": self.without_relevant,
            },
            "ranked": self.ranked,
            "configurations": {
                c.name: self._configuration_dict(c, corrected) for c in self.configurations
            },
            "differences": {
                name: {
                    measure: asdict(gain) | {"p_holm": corrected[measure][name, first]}
                    for measure, gain in gains.items()
                }
                for name, gains in self.differences().items()
            },
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write JSON, TREC runs and a plot, each file whole or not at all.

        Returns:
            The files.

        Raises:
            InvalidInputError: ``folder`` is no path or cannot be written, or a TREC run cannot
                hold an id.
            MissingDependencyError: matplotlib is not installed; the other files are written.
        """
        from qdrant_rerank.evaluation.plots import draw_gains, save_figure

        folder = as_path("folder", folder)
        written = [folder / "evaluation.json"]
        write_json(written[0], self.to_dict())
        for configuration, stem in zip(self.configurations, self._stems(), strict=True):
            runs = (("first", configuration.before), ("reranked", configuration.after))
            for stage, run in runs:
                written.append(folder / f"{stem}.{stage}.run")
                write_run(written[-1], run, tag=stem)
        written.append(folder / "gain.png")
        measure = self.measures[0]
        shown = [each for each in self.configurations if each.pairs] or self.configurations
        scores = {
            each.name: (each.values["before"][measure], each.values["after"][measure])
            for each in shown
        }
        save_figure(draw_gains(scores, measure), written[-1])
        return written

    def table(self) -> RenderableType:
        """Return tables for a terminal; nothing from the data is read as markup."""
        return Group(*map(rich_table, self._tables()), Text(self._summary(), "dim"))

    __rich__ = table

    def _repr_html_(self) -> str:
        return html_tables(self._tables(), self._summary())

    def __repr__(self) -> str:
        names = ", ".join(repr(c.name) for c in self.configurations)
        return f"Evaluation({len(self.queries)} queries; {names})"

    def _summary(self) -> str:
        parts = [f"{len(self.queries):,} judged queries."]
        if self.unjudged:
            parts.append(f"{self.unjudged:,} without judgments were not searched.")
        if self.without_relevant:
            parts.append(f"{self.without_relevant:,} have no relevant document and count as 0.")
        if lost := {c.name: c.without_text for c in self.configurations if c.without_text}:
            parts.append(f"{max(lost.values()):,} hits had no text and were not scored.")
        if not self.ranked:
            parts.append(
                'The candidates are a pool without ranks or scores: "before" is the order in which '
                "it was written down, and no first stage."
            )
        parts.append(
            "Intervals: paired bootstrap over queries, 95 %; p: paired randomisation test;"
        )
        if self._several_tests():
            parts.append("Holm: p corrected for the number of tests of the metric;")
        parts.append("best: the best order of the same candidates.")
        return " ".join(parts)

    def _tables(self) -> list[Table]:
        found = self.configurations
        recall_at = sorted({k for c in found for k in c.recall}, key=lambda k: int(k[2:]))
        recall = [
            (c.name, *(f"{c.recall[k].mean():.4f}" if k in c.recall else "" for k in recall_at))
            for c in found
        ]
        times = [
            (
                c.name,
                *(f"{c.ms(stage):.1f}" for stage in STAGES),
                f"{c.pairs / len(self.queries):.0f}",
            )
            for c in found
        ]
        gain_columns: tuple[str, ...] = ("before", "after", "gain", "95 %", "p", "Holm", "best")
        gain_rows = self._gain_rows()
        if not self._several_tests():  # nothing is corrected; a row has its name before the columns
            at = gain_columns.index("Holm")
            gain_columns = gain_columns[:at] + gain_columns[at + 1 :]
            gain_rows = [row[: at + 1] + row[at + 2 :] for row in gain_rows]
        first_stage = "First stage" if self.ranked else "Order of the pool's file"
        return [
            Table((Column(name, narrowest=NAMES_WIDTH), *columns), rows, gap=1)
            for name, columns, rows in (
                (first_stage, recall_at, recall),
                ("Reranked", gain_columns, gain_rows),
                ("Milliseconds, median", (*STAGES, "pairs"), times),
            )
        ]

    def _several_tests(self) -> bool:
        return any(len(self.corrected(measure)) > 1 for measure in self.measures)

    def _gain_rows(self) -> list[tuple[str, ...]]:
        first, *others = self.configurations
        gains = self.differences()
        rows: list[tuple[str, ...]] = []
        for metric in self.measures:
            corrected = self.corrected(metric)
            rows += [(metric,), _gain_row(first, metric, corrected)]
            for other in others:
                against = gain_cells(
                    gains[other.name][metric], corrected.get((other.name, first.name))
                )
                rows += [
                    _gain_row(other, metric, corrected),
                    (f"  against {first.name}", "", "", *against),
                ]
        return rows

    def _configuration_dict(
        self, configuration: Configuration, corrected: Mapping[str, Mapping[tuple[str, str], float]]
    ) -> dict[str, Any]:
        stages = ("before", "after", "best")
        return {
            "candidates": configuration.candidates,
            "pairs": configuration.pairs,
            "without_text": configuration.without_text,
            "recall": {name: float(v.mean()) for name, v in configuration.recall.items()},
            "measures": {
                measure: {s: float(configuration.values[s][measure].mean()) for s in stages}
                | {"gain": gain.mean, "low": gain.low, "high": gain.high, "p": gain.p}
                | {"p_holm": corrected[measure].get((configuration.name, "before"))}
                for measure, gain in configuration.gains.items()
            },
            "ms": {stage: configuration.ms(stage) for stage in STAGES},
            "by_query": {
                query: {
                    measure: [float(configuration.values[s][measure][row]) for s in stages]
                    for measure in self.measures
                }
                for row, query in enumerate(self.queries)
            },
        }

    def _stems(self) -> list[str]:
        """Return a file name per configuration; equal ones get a number."""
        stems: list[str] = []
        for number, configuration in enumerate(self.configurations, start=1):
            stem = "".join(letter if letter in SAFE else "_" for letter in configuration.name)[:80]
            stems.append(stem if stem and stem not in stems else f"{stem}_{number}")
        return stems


def require_names(names: Sequence[Any]) -> None:
    """Raise InvalidInputError unless each is a text that can name a configuration."""
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise InvalidInputError(f"A configuration is called {name!r}; expected a name.")


def gain_cells(gain: Gain, corrected: float | None) -> tuple[str, str, str, str]:
    """Return the cells of a gain: mean, interval, p-value, and that after Holm's correction."""
    return (
        f"{gain.mean:+.4f}",
        f"{gain.low:+.3f} {gain.high:+.3f}",
        _p(gain.p),
        "" if corrected is None else _p(corrected),
    )


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _gain_row(
    configuration: Configuration, metric: str, corrected: Mapping[tuple[str, str], float]
) -> tuple[str, ...]:
    before, after, best = (
        f"{configuration.values[stage][metric].mean():.4f}" for stage in ("before", "after", "best")
    )
    own = corrected.get((configuration.name, "before"))
    gain = gain_cells(configuration.gains[metric], own)
    return configuration.name, before, after, *gain, best
