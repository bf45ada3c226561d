"""Parts of a dataset, each read by one worker at a time. They are pickled to the workers."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.text_files import open_lines

__all__ = ["JSON_SUFFIXES", "JsonPartition", "ParquetPartition", "Partition", "RowsPartition"]

JSON_SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
ROWS_PER_READ = 1024


@dataclass(frozen=True)
class Partition:
    """Rows that follow one another.

    Attributes:
        number: place in the dataset.
        start: first row, or byte of a file of lines.
        stop: the one after the last.
    """

    number: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """The place, for messages."""
        raise NotImplementedError

    def schema(self) -> pa.Schema | None:
        """Return the columns; None if each row has its own."""
        raise NotImplementedError

    def rows(self) -> list[dict[str, Any]]:
        """Read the rows.

        Raises:
            InvalidInputError: they cannot be read.
        """
        raise NotImplementedError


class TablePartition(Partition):
    """Rows of a table."""

    def table(self) -> pa.Table:
        """Read the rows as a table."""
        raise NotImplementedError

    def rows(self) -> list[dict[str, Any]]:
        """Read the rows."""
        found: list[dict[str, Any]] = self.table().to_pylist()
        return found


@dataclass(frozen=True)
class ParquetPartition(TablePartition):
    """Rows of a Parquet file."""

    file: str

    @property
    def name(self) -> str:
        """The place, for messages."""
        return f"{self.file}, rows {self.start} to {self.stop - 1}"

    def schema(self) -> pa.Schema:
        """Return the columns."""
        return pq.read_schema(self.file)

    def table(self) -> pa.Table:
        """Read the rows, of which the file's row groups hold more, in pieces."""
        try:
            with pq.ParquetFile(self.file) as opened:
                groups, first = _overlapping(opened.metadata, self.start, self.stop)
                parts = []
                for batch in opened.iter_batches(ROWS_PER_READ, row_groups=groups):
                    begin = max(0, self.start - first)
                    parts.append(batch.slice(begin, max(0, self.stop - first - begin)))
                    first += len(batch)
                    if first >= self.stop:
                        break
                return pa.Table.from_batches(parts, opened.schema_arrow)
        except (OSError, pa.ArrowException) as error:
            raise InvalidInputError(f"{self.name} cannot be read: {error}") from error


@dataclass(frozen=True)
class RowsPartition(TablePartition):
    """Rows of a Hugging Face dataset."""

    dataset: Any = field(repr=False)

    @property
    def name(self) -> str:
        """The place, for messages."""
        return f"rows {self.start} to {self.stop - 1} of the dataset"

    def schema(self) -> pa.Schema:
        """Return the columns."""
        return self.dataset.features.arrow_schema

    def table(self) -> pa.Table:
        """Read the rows."""
        return self.dataset.with_format("arrow")[self.start : self.stop]


@dataclass(frozen=True)
class JsonPartition(Partition):
    """Lines that begin within a range of bytes of a file; all lines, if it is gzipped."""

    file: str

    @property
    def name(self) -> str:
        """The place, for messages."""
        return f"{self.file}, bytes {self.start} to {self.stop - 1}"

    def schema(self) -> None:
        """Return None: each line is an object of its own."""
        return

    def rows(self) -> list[dict[str, Any]]:
        """Read the rows."""
        return [row for _, row in self.objects()]

    def objects(self) -> list[tuple[str, dict[str, Any]]]:
        """Read the lines, and the object of each.

        Raises:
            InvalidInputError: the file cannot be read, or a line is not a JSON object.
        """
        found = []
        for where, raw in self._lines():
            try:
                line = raw.decode("utf-8-sig").strip()
                value = json.loads(line) if line else {}
            except (ValueError, RecursionError) as error:
                raise InvalidInputError(
                    f"{where} is not JSON: {error}. Expected one JSON object per line."
                ) from error
            if not isinstance(value, dict):
                raise InvalidInputError(
                    f"{where} holds a {type(value).__name__}; expected a JSON object."
                )
            if line:
                found.append((line, value))
        return found

    def _lines(self) -> Iterator[tuple[str, bytes]]:
        if self.file.endswith(".gz"):
            with open_lines(self.file) as lines:
                for number, line in enumerate(lines, 1):
                    yield f"{self.file}, line {number}", line
            return
        try:
            with Path(self.file).open("rb") as opened:
                if self.start:  # the line that is under way belongs to the partition before
                    opened.seek(self.start - 1)
                    opened.readline()
                while (at := opened.tell()) < self.stop:
                    yield f"{self.file}, the line at byte {at}", opened.readline()
        except OSError as error:
            raise InvalidInputError(f"{self.file} cannot be read: {error.strerror}.") from error


def _overlapping(about: Any, start: int, stop: int) -> tuple[Sequence[int], int]:
    """Return the row groups that hold some of the rows, and the number of their first row."""
    groups: list[int] = []
    first = row = 0
    for number in range(about.num_row_groups):
        rows = about.row_group(number).num_rows
        if row < stop and row + rows > start:
            if not groups:
                first = row
            groups.append(number)
        row += rows
    return groups, first
