"""Models in workers: they add scores to tables, and to lines of JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
from qdrant_rerank.distributed.output import Output
from qdrant_rerank.distributed.partitions import JsonPartition, Partition, TablePartition
from qdrant_rerank.distributed.sources import require_free, require_text
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.atomic_files import atomic_binary
from qdrant_rerank.utils.validation import a_type, shown

__all__ = ["BatchScorer", "FileScorer", "make_encoder"]


def make_encoder(options: dict[str, Any], threads: int, *, lazy_load: bool) -> TextCrossEncoder:
    """Make the model; lazily, to see whether there is such a model."""
    given = {name: value for name, value in options.items() if name != "model"}
    if lazy_load:
        given["device"] = None  # the machine that starts the job may have no GPU
    return TextCrossEncoder(options["model"], threads=threads, lazy_load=lazy_load, **given)


class _Scorer:
    """A model in a worker."""

    def __init__(
        self,
        options: dict[str, Any],
        threads: int,
        batch_size: int | None,
        columns: dict[str, str],
    ) -> None:
        self._encoder = make_encoder(options, threads, lazy_load=False)
        self._batch_size = batch_size
        self._query = columns["query"]
        self._document = columns["document"]
        self._score = columns["score"]

    def scores(self, queries: Sequence[Any], documents: Sequence[Any]) -> list[float | None]:
        """Score pairs; None for those that lack a text."""
        pairs = list(zip(queries, documents, strict=True))
        rows = [row for row, pair in enumerate(pairs) if None not in pair]
        found = self._encoder.score_pairs([pairs[row] for row in rows], self._batch_size)
        scores: list[float | None] = [None] * len(pairs)
        for row, one in zip(rows, found.scores.tolist(), strict=True):
            scores[row] = one
        return scores

    def table(self, table: pa.Table) -> pa.Table:
        """Add the score column to a table."""
        scores = self.scores(*(table[name].to_pylist() for name in (self._query, self._document)))
        return table.append_column(self._score, pa.array(scores, pa.float64()))


class BatchScorer(_Scorer):
    """Scores batches of a Ray dataset."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the rows with their scores."""
        return self.table(table)


class FileScorer(_Scorer):
    """Scores partitions into files."""

    def __init__(self, output: Output, **scorer: Any) -> None:
        super().__init__(**scorer)
        self._output = output

    def __call__(self, partition: Partition) -> int:
        """Write the results of a partition; returns the number of rows."""
        file = self._output.file(partition)
        if self._output.done(partition):  # by a worker that died before it could say so
            return self._output.rows(partition)
        if isinstance(partition, JsonPartition):
            return self._lines(partition, file)
        if not isinstance(partition, TablePartition):
            raise InvalidInputError(f"A partition is {a_type(partition)}; expected a table.")
        table = self.table(partition.table())
        with atomic_binary(file) as opened:
            pq.write_table(table, opened)
        return len(table)

    def _lines(self, partition: JsonPartition, file: Path) -> int:
        objects = partition.objects()
        for line, row in objects:
            where = f"{partition.name}, the line {shown(line)}"
            for name in (self._query, self._document):
                require_text(row, name, where)
            require_free(self._score, list(row), "score", where)
        rows = [row for _, row in objects]
        scores = self.scores(*([row[key] for row in rows] for key in (self._query, self._document)))
        key = json.dumps(self._score)
        with atomic_binary(file) as opened:
            for (line, _), one in zip(objects, scores, strict=True):
                # The line stays as it is: numbers, escapes and the order of its fields.
                opened.write(f"{line[:-1].rstrip()}, {key}: {json.dumps(one)}}}\n".encode())
        return len(rows)
