"""The directory of a job: one file per partition, written whole, and a record of what the job is.

A job that is started again with the same directory does only the partitions that have no file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from qdrant_rerank.distributed.partitions import Partition
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.atomic_files import write_whole
from qdrant_rerank.utils.validation import shown

__all__ = ["Output"]

RECORD = "_job.json"  # readers of Parquet directories leave out names that begin with _
PARTIAL = f".{'[0-9a-f]' * 16}.partial"  # of utils.atomic_files


class Output:
    """A directory for the results.

    Args:
        directory: where; it is made if it is not there.
        suffix: of the files.
        job: what decides the results, as JSON.

    Raises:
        InvalidInputError: another job's results, or other files, are there.
    """

    def __init__(self, directory: str | Path, suffix: str, job: Mapping[str, Any]) -> None:
        self.directory = Path(directory).absolute()
        self._suffix = suffix
        record = self.directory / RECORD
        wanted = json.loads(json.dumps(job))
        try:
            if record.exists():
                _require_same(self.directory, json.loads(record.read_text("utf-8")), wanted)
                return
            if self.directory.exists() and any(self.directory.iterdir()):
                raise InvalidInputError(
                    f"{self.directory} has files, and none is the record of a job. Pass an empty "
                    "directory, or a new one."
                )
            write_whole(record, json.dumps(wanted, indent=1) + "\n")
        except (OSError, ValueError) as error:
            if isinstance(error, InvalidInputError):
                raise
            raise InvalidInputError(f"{self.directory} cannot be used: {error}") from error

    def file(self, partition: Partition) -> Path:
        """Return the path of a partition's results."""
        return self.directory / f"part-{partition.number:06d}{self._suffix}"

    def done(self, partition: Partition) -> bool:
        """Whether the partition's results are there."""
        return self.file(partition).exists()

    def rows(self, partition: Partition) -> int:
        """Count the rows of a partition's results."""
        file = self.file(partition)
        if self._suffix == ".parquet":
            return int(pq.read_metadata(file).num_rows)
        with file.open("rb") as opened:
            return sum(1 for _ in opened)

    def clean(self) -> None:
        """Remove what workers that were killed have left half-written."""
        for file in self.directory.glob(PARTIAL):
            file.unlink(missing_ok=True)


def _require_same(directory: Path, found: Any, wanted: Mapping[str, Any]) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"{RECORD} is not a JSON object")
    for name in sorted(set(found) | set(wanted)):
        if found.get(name) != wanted.get(name):
            raise InvalidInputError(
                f"{directory} holds the results of another job: its {name} is "
                f"{shown(found.get(name), 200)}, and this one's {shown(wanted.get(name), 200)}. "
                "Pass another directory, or the arguments of the first time."
            )
