"""What a job reads: Parquet and JSON-lines files, or a Hugging Face dataset, cut into partitions.

Partitions depend on the source and on ``partition_bytes`` alone, so a job that is started again
finds those of the first time.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from qdrant_rerank.distributed.partitions import (
    JSON_SUFFIXES,
    JsonPartition,
    ParquetPartition,
    Partition,
    RowsPartition,
)
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.text_files import open_lines
from qdrant_rerank.utils.validation import a_type, require_positive, shown

__all__ = ["PARTITION_BYTES", "Source", "is_hugging_face"]

#: Bytes of a partition: about 1,000 pairs, which one core scores in some 10 seconds. A worker that
#: is killed loses the work on one partition.
PARTITION_BYTES = 1 << 20
SUFFIXES = (".parquet", *JSON_SUFFIXES)
#: Kinds of columns that hold texts, or None: in a file where all are None, the kind is null.
TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_null)
EXPECTED = (
    "a file or a directory of .parquet or .jsonl files (or .jsonl.gz), a list of them, or a "
    "Hugging Face Dataset"
)


def is_hugging_face(dataset: Any) -> bool:
    """Whether an object is a ``datasets.Dataset``, whose rows have numbers."""
    ours = type(dataset).__module__.split(".")[0] == "datasets"
    return ours and isinstance(getattr(dataset, "num_rows", None), int)  # of a DatasetDict: a dict


class Source:
    """A dataset with fixed partitions.

    Args:
        dataset: files, or a Hugging Face dataset. All machines must see the files under the same
            paths.
        partition_bytes: size of a partition; a gzipped file is one partition, whatever its size.

    Attributes:
        kind: "parquet", "jsonl" or "rows"
        partitions: all of them, in the order of the dataset.
        identity: facts that change with the source, for a job that is continued.

    Raises:
        InvalidInputError: there is no such file, files are of several kinds, one cannot be read,
            or there are no rows.
    """

    def __init__(self, dataset: Any, partition_bytes: int = PARTITION_BYTES) -> None:
        require_positive("partition_bytes", partition_bytes, optional=False)
        self.partitions: list[Partition] = []
        self.identity: dict[str, Any] = {"partition_bytes": partition_bytes}
        self._folders: list[Path] = []
        if is_hugging_face(dataset):
            self.kind = "rows"
            self._add_rows(dataset, partition_bytes)
        else:
            files = _files(dataset)
            self.kind = _kind(files)
            self._folders = [Path(one) for one in _given(dataset) if Path(one).is_dir()]
            for file in files:
                if self.kind == "parquet":
                    self._add_parquet(file, partition_bytes)
                else:
                    self._add_lines(file, partition_bytes)
            self.identity["files"] = [
                [str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files
            ]
        if not self.partitions:
            raise InvalidInputError(f"{_named(dataset)} has no rows; expected one or more.")

    def first_rows(self, count: int) -> list[dict[str, Any]]:
        """Return the first rows.

        Raises:
            InvalidInputError: they cannot be read.
        """
        rows: list[dict[str, Any]] = []
        for partition in self.partitions:
            rows += partition.rows()[: count - len(rows)]
            if len(rows) >= count:
                break
        return rows

    def require_texts(self, *names: str) -> None:
        """Check that columns are there and hold texts; of JSON lines, in the first row.

        Raises:
            InvalidInputError: one is missing, or holds something else.
        """
        if self.kind == "jsonl":
            [row] = self.first_rows(1)
            for name in names:
                require_text(row, name, f"{self.partitions[0].name}: the first row")
            return
        for where, schema in self._schemas():
            for name in names:
                if name not in schema.names:
                    raise missing(name, schema.names, where)
                kind = schema.field(name).type
                if pa.types.is_dictionary(kind):
                    kind = kind.value_type
                if not any(is_kind(kind) for is_kind in TEXTS):
                    raise InvalidInputError(
                        f"{where}: the column {name!r} holds {kind}; expected texts."
                    )

    def require_free(self, name: str, argument: str) -> None:
        """Check that no column has a name yet; of JSON lines, in the first row."""
        if self.kind == "jsonl":
            require_free(name, list(self.first_rows(1)[0]), argument, self.partitions[0].name)
            return
        for where, schema in self._schemas():
            require_free(name, schema.names, argument, where)

    def require_outside(self, output: str | Path) -> None:
        """Raise InvalidInputError if results would become a part of the dataset."""
        place = Path(output).resolve()
        for folder in self._folders:
            if place.is_relative_to(folder.resolve()):
                raise InvalidInputError(
                    f"output is {shown(output)}, inside the dataset {folder}: what is written "
                    "there would be read as the dataset. Pass a directory outside of it."
                )

    def _schemas(self) -> Iterator[tuple[str, pa.Schema]]:
        """Yield the name of the first partition, and the columns, of each Parquet file."""
        seen = set()
        for partition in self.partitions:
            file = partition.file if isinstance(partition, ParquetPartition) else None
            schema = None if file in seen else partition.schema()
            seen.add(file)
            if schema is not None:
                yield partition.name, schema

    def _add_rows(self, dataset: Any, partition_bytes: int) -> None:
        rows = dataset.num_rows
        step = _rows_per_partition(dataset.data.nbytes, len(dataset.data), partition_bytes)
        for start in range(0, rows, step):
            number = len(self.partitions)
            self.partitions.append(RowsPartition(number, start, min(rows, start + step), dataset))
        self.identity["rows"] = rows
        self.identity["fingerprint"] = getattr(dataset, "_fingerprint", None)

    def _add_parquet(self, file: Path, partition_bytes: int) -> None:
        try:
            about = pq.read_metadata(file)
        except (OSError, pa.ArrowException) as error:
            raise InvalidInputError(f"{file} is not a readable Parquet file: {error}") from error
        size = sum(about.row_group(n).total_byte_size for n in range(about.num_row_groups))
        step = _rows_per_partition(size, about.num_rows, partition_bytes)
        for start in range(0, about.num_rows, step):
            stop = min(about.num_rows, start + step)
            self.partitions.append(ParquetPartition(len(self.partitions), start, stop, str(file)))

    def _add_lines(self, file: Path, partition_bytes: int) -> None:
        with open_lines(file) as lines:
            if not any(line.strip() for line in lines):
                return
        size = file.stat().st_size
        step = size if file.suffix == ".gz" else partition_bytes
        for start in range(0, size, step):
            stop = min(size, start + step)
            self.partitions.append(JsonPartition(len(self.partitions), start, stop, str(file)))


def missing(name: str, columns: Sequence[str], where: str) -> InvalidInputError:
    """Make the error for a column that is not there."""
    return InvalidInputError(
        f"{where} has no column {name!r}; it has {', '.join(map(repr, columns)) or 'none'}. Pass "
        "the names of the columns with the query and the document, such as document='text'."
    )


def require_text(row: dict[str, Any], name: str, where: str) -> None:
    """Raise InvalidInputError unless a row has a text, or None, of that name."""
    if name not in row:
        raise missing(name, list(row), where)
    if not isinstance(row[name], str | None):
        raise InvalidInputError(
            f"{where} has {a_type(row[name])} as {name!r}: {shown(row[name])}; expected a text."
        )


def require_free(name: str, columns: Sequence[str], argument: str, where: str) -> None:
    """Raise InvalidInputError if there is a column of that name already."""
    if name in columns:
        raise InvalidInputError(
            f"{where} has a column {name!r} already. Pass another name as {argument}=."
        )


def _rows_per_partition(size: int, rows: int, partition_bytes: int) -> int:
    return max(1, partition_bytes * max(1, rows) // max(1, size))


def _named(dataset: Any) -> str:
    return "The dataset" if is_hugging_face(dataset) else shown(dataset)


def _given(dataset: Any) -> Any:
    return [dataset] if isinstance(dataset, str | os.PathLike) else dataset


def _files(dataset: Any) -> list[Path]:
    given = _given(dataset)
    if not isinstance(given, Sequence) or not all(isinstance(one, str | Path) for one in given):
        raise InvalidInputError(f"dataset is {a_type(dataset)}; expected {EXPECTED}.")
    files = [file for one in given for file in _files_at(Path(one))]
    if not files:
        raise InvalidInputError(f"dataset is {shown(dataset)}, without files; expected {EXPECTED}.")
    return files


def _files_at(path: Path) -> Iterator[Path]:
    if "://" in str(path) or ":/" in str(path):
        raise InvalidInputError(
            f"{path} is a URL; expected {EXPECTED}. Mount it, or read it with Ray's own "
            "functions, such as ray.data.read_parquet, and pass that dataset without output."
        )
    path = path.absolute()
    if path.is_dir():
        yield from sorted(
            file
            for file in path.rglob("*")
            if file.is_file()
            and file.name.endswith(SUFFIXES)
            and not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
        )
    elif not path.exists():
        raise InvalidInputError(f"There is no file {path}; expected {EXPECTED}.")
    elif not path.name.endswith(SUFFIXES):
        raise InvalidInputError(f"{path} is of an unknown kind; expected {EXPECTED}.")
    else:
        yield path


def _kind(files: Sequence[Path]) -> str:
    kinds = {"parquet" if file.suffix == ".parquet" else "jsonl" for file in files}
    if len(kinds) > 1:
        raise InvalidInputError(
            f"There are Parquet and JSON-lines files in the dataset, such as {files[0]} and "
            f"{files[-1]}; expected files of one kind."
        )
    return kinds.pop()
