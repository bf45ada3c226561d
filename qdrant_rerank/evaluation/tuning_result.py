"""The result of a sweep: the Pareto front as table, JSON and plot, and the call to paste.

``Tuning.save`` writes ``tuning.json`` and ``front.png`` into a folder::

    {"schema": 1, "versions": {package: version}, "arguments": {...},
     "queries": {"chosen_on": [ids], "reported_on": [ids], "unjudged"},
     "pairs": scored pairs, each once per model,
     "call": the constructor call of "best",
     "best": POINT, "front": [POINT], "points": [POINT]}

    POINT = {"reranker", "precision", "candidates", "blend", "fusion",
             "ms", "chosen_on", "reported_on"}         milliseconds per query; mean of the metric
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.text import Text

from qdrant_rerank.embedders import Bm25Encoder, OnnxEmbedder, StaticEmbedder, TrunkEmbedder
from qdrant_rerank.errors import redact
from qdrant_rerank.evaluation.environment import versions
from qdrant_rerank.evaluation.metrics import gain_of
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER, DEFAULT_RERANKER
from qdrant_rerank.options import Blend, Fusion, SearchOptions
from qdrant_rerank.search.searcher import HybridSearcher
from qdrant_rerank.utils.rendering import Column, Table, html_tables, rich_table, write_json
from qdrant_rerank.utils.validation import as_path

__all__ = ["Point", "Tuning", "constructor_call", "pareto_front"]


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One configuration of a sweep.

    Attributes:
        reranker: name or path; None for the order of the first stage.
        precision: precision of the reranker's file.
        candidates: hits per query that the reranker gets.
        blend: as in ``SearchOptions``.
        fusion: as in ``SearchOptions``.
        ms: milliseconds per query: the median of recall, plus the pairs at the mean time per pair.
        values: the metric, shape (queries,), in the order of the sweep's queries.
        chosen_on: its mean over the half of the queries that configurations are chosen on.
        reported_on: its mean over the other half.
    """

    reranker: str | None
    precision: str
    candidates: int
    blend: Blend
    fusion: Fusion
    ms: float
    values: NDArray[np.float64]
    chosen_on: float
    reported_on: float

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold, without the values of each query."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "values"}


def _label(point: Point, first_stage: Sequence[Point]) -> str:
    """Return the words beside a point; without a reranker, only ``first_stage`` has some."""
    if point.reranker is not None:
        return f"{point.candidates}, {point.blend}"
    return "first stage" if point in first_stage else ""


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no faster or equally fast point is better than, fastest first.

    "Better" is by the half of the queries that configurations are chosen on.
    """
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.ms, -p.chosen_on)):
        if not front or point.chosen_on > front[-1].chosen_on:
            front.append(point)
    return front


@dataclass(frozen=True, slots=True, eq=False)
class Tuning:
    """A sweep over configurations; a table in a notebook.

    Attributes:
        queries: ids of the judged queries, in the order of each point's values.
        chosen_on: rows of the half that configurations are chosen on.
        reported_on: rows of the other half.
        unjudged: number of queries without judgments; they were not searched.
        measure: name of the metric that is optimised.
        points: all configurations.
        first_stage: the point that gains are measured against: no reranker, the largest depth.
        pairs: number of pairs that were scored, each once per model.
        best: the best point of the front on the first half, of those within ``max_ms``.
        call: the constructor call that makes a searcher of ``best``.
        arguments: the arguments, as the JSON records them.
    """

    queries: tuple[str, ...]
    chosen_on: NDArray[np.intp]
    reported_on: NDArray[np.intp]
    unjudged: int
    measure: str
    points: tuple[Point, ...]
    first_stage: Point
    pairs: int
    best: Point
    call: str
    arguments: Mapping[str, Any]

    @property
    def front(self) -> list[Point]:
        """The Pareto front of quality, on the half to choose on, against milliseconds."""
        return pareto_front(self.points)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; the module's docstring has the schema."""
        return {
            "schema": 1,
            "versions": versions(),
            "arguments": dict(self.arguments),
            "queries": {
                "chosen_on": [self.queries[row] for row in self.chosen_on],
                "reported_on": [self.queries[row] for row in self.reported_on],
                "unjudged": self.unjudged,
            },
            "pairs": self.pairs,
            "call": self.call,
            "best": self.best.to_dict(),
            "front": [point.to_dict() for point in self.front],
            "points": [point.to_dict() for point in self.points],
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write JSON and a plot, each file whole or not at all.

        Raises:
            InvalidInputError: ``folder`` is no path, or cannot be written.
            MissingDependencyError: matplotlib is not installed; the JSON is written.
        """
        from qdrant_rerank.evaluation.plots import FrontPoint, draw_front, save_figure

        folder = as_path("folder", folder)
        written = [folder / "tuning.json", folder / "front.png"]
        write_json(written[0], self.to_dict())
        recall_only = [point for point in self.front if point.reranker is None][-1:]
        front = [
            FrontPoint(
                point.ms,
                point.chosen_on,
                point.reported_on,
                label=_label(point, recall_only),
                best=point is self.best,
            )
            for point in self.front
        ]
        others = [(p.ms, p.chosen_on) for p in self.points if p not in self.front]
        save_figure(draw_front(front, others, self.measure), written[1])
        return written

    def table(self) -> RenderableType:
        """Return the front and the call, for a terminal."""
        return Group(rich_table(self._table()), Text(self._summary(), "dim"), "", Text(self.call))

    __rich__ = table

    def _repr_html_(self) -> str:
        tables = html_tables([self._table()], self._summary())
        return f"{tables}<pre>{html.escape(self.call)}</pre>"

    def __repr__(self) -> str:
        return f"Tuning({len(self.points)} configurations, best {self.best.to_dict()})"

    def _table(self) -> Table:
        rows = []
        front = self.front
        for point in front:
            gain = gain_of(
                self.first_stage.values[self.reported_on], point.values[self.reported_on]
            )
            name = point.reranker or "none"
            rows.append(
                [
                    f"{point.ms:.0f}" if point.ms >= 100 else f"{point.ms:.1f}",
                    name if point.precision == "auto" else f"{name} ({point.precision})",
                    str(point.candidates),
                    str(point.blend) if point.reranker else "",
                    point.fusion,
                    f"{point.chosen_on:.4f}",
                    f"{point.reported_on:.4f}",
                    f"{gain.mean:+.4f}",
                    f"{gain.low:+.3f} {gain.high:+.3f}",
                ]
            )
        scores = ("depth", "blend", "fusion", "chosen", "other", "gain", "95 %")
        columns = ("ms", Column("reranker", narrowest=8), *scores)
        return Table(columns, rows, strong=front.index(self.best), gap=1)

    def _summary(self) -> str:
        unjudged = f" {self.unjudged:,} without judgments were not searched." * bool(self.unjudged)
        return (
            f"The front of {len(self.points)} configurations: {self.measure} against milliseconds "
            f"per query; {self.pairs:,} pairs were scored, once each. Chosen on "
            f"{len(self.chosen_on)} queries drawn at random (chosen). The figure to expect is "
            f"that of the {len(self.reported_on)} others (other), with the gain over the first "
            f"stage there and its 95 % interval.{unjudged}"
        )


def constructor_call(searcher: HybridSearcher, point: Point) -> str:
    """Write the Python that makes a searcher of a point's configuration.

    Parts that have no name are variables: ``client``, ``embedder``, ``sparse``, ``text``.
    """
    client, imports = _client_code(searcher)
    arguments = [repr(searcher.collection), f"client={client}"]
    if (embedder := _embedder_code(searcher)) is not None:
        arguments.append(f"embedder={embedder}")
    if searcher.sparse is None:
        arguments.append("sparse=None")
    elif not isinstance(searcher.sparse, Bm25Encoder):
        arguments.append("sparse=sparse")
    source = searcher.text.source
    if source != "text":
        arguments.append(f"text={'text' if callable(source) else repr(source)}")
    names = ["HybridSearcher"]
    if point.precision != "auto" and point.reranker is not None:
        names.append("TextCrossEncoder")
        arguments.append(
            f"reranker=TextCrossEncoder({point.reranker!r}, precision={point.precision!r})"
        )
    elif point.reranker != DEFAULT_RERANKER:
        arguments.append(f"reranker={point.reranker!r}")
    arguments.append(f"candidates={point.candidates}")
    options = _options_code(replace(searcher.options, fusion=point.fusion, blend=point.blend))
    if options:
        names.append("SearchOptions")
        arguments.append(f"options=SearchOptions({', '.join(options)})")
    if any("models." in option for option in options):
        imports.append("from qdrant_client import models")
    imports.append(f"from qdrant_rerank import {', '.join(sorted(names))}")
    lines = "".join(f"    {argument},\n" for argument in arguments)
    return "\n".join(imports) + f"\n\nsearcher = HybridSearcher(\n{lines})"


def _client_code(searcher: HybridSearcher) -> tuple[str, list[str]]:
    """Write the client and the imports that it needs; a key is never printed."""
    known = searcher.client.init_options
    needed = "from qdrant_client import QdrantClient"
    if known.get("path"):
        return f"QdrantClient(path={known['path']!r})", [needed]
    if known.get("url"):
        url = redact(repr(known["url"]))
        if known.get("api_key"):
            key = 'os.environ["QDRANT_API_KEY"]'
            return f"QdrantClient(url={url}, api_key={key})", ["import os", "", needed]
        return f"QdrantClient(url={url})", [needed]
    return "client", []


def _embedder_code(searcher: HybridSearcher) -> str | None:
    embedder = searcher.embedder
    if embedder is None:
        return "None"
    if embedder.name == DEFAULT_EMBEDDER:
        return None
    named = isinstance(embedder, OnnxEmbedder | StaticEmbedder | TrunkEmbedder)
    return repr(embedder.name) if named else "embedder"


def _options_code(options: SearchOptions) -> list[str]:
    """Write the options that differ from their defaults."""
    written = []
    for field in fields(SearchOptions):
        value = getattr(options, field.name)
        if value == field.default:
            continue
        if field.name == "search_params":
            given = value.model_dump(mode="json", exclude_none=True)
            written.append(f"search_params=models.SearchParams(**{given!r})")
        else:
            written.append(f"{field.name}={value!r}")
    return written
