"""Evaluations of several test sets side by side, with p-values corrected for their number."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.evaluation.evaluation_result import Evaluation, gain_cells
from qdrant_rerank.evaluation.metrics import Gain, holm
from qdrant_rerank.utils.rendering import Column, Table, rich_table

__all__ = ["EvaluatedSets"]


@dataclass(frozen=True, slots=True, eq=False)
class EvaluatedSets:
    """Evaluations of the same configurations on several test sets.

    The more sets are compared, the likelier one of them shows a difference by chance. So the
    p-values of a configuration and a metric are corrected over the sets by Holm's method.

    Attributes:
        sets: evaluations by the name of the set.

    Raises:
        InvalidInputError: there is no set, or the sets have other configurations or metrics.
    """

    sets: Mapping[str, Evaluation]

    def __post_init__(self) -> None:
        if not self.sets:
            raise InvalidInputError("There is no set; expected one evaluation or more by name.")
        first, *others = self.sets.values()
        for other in others:
            if self._shape(other) != self._shape(first):
                raise InvalidInputError(
                    f"The sets have {self._shape(first)} and {self._shape(other)}; expected the "
                    "same configurations and metrics."
                )

    @staticmethod
    def _shape(found: Evaluation) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return tuple(c.name for c in found.configurations), found.measures

    def gains(self, configuration: str, measure: str) -> dict[str, tuple[Gain, float]]:
        """Return set -> gain of reranking, and its p-value after Holm's correction over the sets.

        A configuration other than the first is compared with the first one instead.

        Raises:
            KeyError: there is no such configuration or metric.
        """
        found = {
            name: one[configuration].gains[measure]
            if configuration == one.configurations[0].name
            else one.difference(configuration, one.configurations[0].name, measure)
            for name, one in self.sets.items()
        }
        corrected = holm([gain.p for gain in found.values()])
        return {name: (gain, p) for (name, gain), p in zip(found.items(), corrected, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: the sets, and the gains with ``p_holm`` over the sets."""
        configurations, measures = self._shape(next(iter(self.sets.values())))
        return {
            "schema": 1,
            "sets": {name: one.to_dict() for name, one in self.sets.items()},
            "across_sets": {
                configuration: {
                    measure: {
                        name: asdict(gain) | {"p_holm": p}
                        for name, (gain, p) in self.gains(configuration, measure).items()
                    }
                    for measure in measures
                }
                for configuration in configurations
            },
        }

    def table(self) -> RenderableType:
        """Return one table per metric for a terminal; nothing from the data is read as markup."""
        configurations, measures = self._shape(next(iter(self.sets.values())))
        tables = [rich_table(self._table(name, m)) for m in measures for name in configurations]
        note = (
            "gain: of reranking for the first configuration, of the others over the first; Holm: p "
            f"corrected for {len(self.sets)} sets."
        )
        return Group(*tables, Text(note, "dim"))

    __rich__ = table

    def _table(self, configuration: str, measure: str) -> Table:
        rows = []
        means = []
        for name, (gain, corrected) in self.gains(configuration, measure).items():
            values = self.sets[name][configuration].values
            stages = [float(values[stage][measure].mean()) for stage in ("before", "after")]
            means.append((*stages, gain.mean))
            cells = gain_cells(gain, corrected)
            rows.append((name, *(f"{value:.4f}" for value in stages), *cells))
        before, after, gained = np.mean(means, axis=0)
        rows.append(("mean", f"{before:.4f}", f"{after:.4f}", f"{gained:+.4f}", "", "", ""))
        columns = (Column("set"), "before", "after", "gain", "95 %", "p", "Holm")
        return Table(columns, rows, gap=1, title=f"{configuration}: {measure}")
