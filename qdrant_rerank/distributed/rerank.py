"""Scores of (query, document) pairs in datasets of any size."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from qdrant_rerank.cross_encoder.activations import activation_name
from qdrant_rerank.cross_encoder.text_cross_encoder import Activation, TextCrossEncoder
from qdrant_rerank.distributed.cluster import Pool, each_partition, ensure_ray
from qdrant_rerank.distributed.output import Output
from qdrant_rerank.distributed.partitions import JsonPartition, Partition, TablePartition
from qdrant_rerank.distributed.sources import (
    PARTITION_BYTES,
    Source,
    is_hugging_face,
    require_free,
    require_text,
)
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.precision import RunPrecision
from qdrant_rerank.hub.specs import DEFAULT_RERANKER
from qdrant_rerank.utils.atomic_files import atomic_binary
from qdrant_rerank.utils.validation import a_type, require_positive, shown

__all__ = ["RerankedFiles", "rerank_dataset"]

ROWS_PER_BATCH = 1024  # that one call of a worker gets of a Ray dataset


@dataclass(frozen=True, slots=True)
class RerankedFiles:
    """Results of a job that has ended.

    Attributes:
        directory: has one file per partition, in the order of the dataset: all columns, and the
            score.
        rows: number of rows that this call scored.
        partitions: number of all partitions.
        resumed: number of partitions that were there before.
    """

    directory: Path
    rows: int
    partitions: int
    resumed: int


@overload
def rerank_dataset(
    dataset: Any,
    query: str = ...,
    document: str = ...,
    *,
    output: None = ...,
    model: str | Path = ...,
    score: str = ...,
    concurrency: int | None = ...,
    cpus_per_worker: int = ...,
    gpus_per_worker: float = ...,
    batch_size: int | None = ...,
    partition_bytes: int = ...,
    precision: RunPrecision = ...,
    max_length: int | None = ...,
    activation: Activation = ...,
) -> ray.data.Dataset: ...
@overload
def rerank_dataset(
    dataset: Any,
    query: str = ...,
    document: str = ...,
    *,
    output: str | Path,
    model: str | Path = ...,
    score: str = ...,
    concurrency: int | None = ...,
    cpus_per_worker: int = ...,
    gpus_per_worker: float = ...,
    batch_size: int | None = ...,
    partition_bytes: int = ...,
    precision: RunPrecision = ...,
    max_length: int | None = ...,
    activation: Activation = ...,
) -> RerankedFiles: ...
def rerank_dataset(
    dataset: Any,
    query: str = "query",
    document: str = "text",
    *,
    output: str | Path | None = None,
    model: str | Path = DEFAULT_RERANKER,
    score: str = "score",
    concurrency: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float = 0,
    batch_size: int | None = 1,
    partition_bytes: int = PARTITION_BYTES,
    precision: RunPrecision = "auto",
    max_length: int | None = None,
    activation: Activation = "identity",
) -> ray.data.Dataset | RerankedFiles:
    """Score the pairs of a dataset on all machines of a Ray cluster.

    Each worker is a process with one model. A score is that of
    ``TextCrossEncoder(model).rerank(query, [document], batch_size=1)``, to the bit on CPUs of the
    same kind, whatever the number of workers. A worker that dies is replaced, and what it was doing
    is done again, once.

    Without ``output``, nothing runs yet: a Ray dataset is returned, with one more column. With
    ``output``, the job runs now, and writes one file per partition. Started again after an error or
    Ctrl-C, it does only the partitions that have no file yet.

    Args:
        dataset: a file or a directory of Parquet or JSON lines (``.jsonl``, ``.jsonl.gz``), a list
            of them, or a Hugging Face ``Dataset``; without ``output`` also a Ray ``Dataset``.
            All machines must see files under the same paths.
        query: name of the column with the queries.
        document: name of the column with the documents. A row whose query or document is None gets
            None as its score.
        output: directory for the results, which all machines see: Parquet for Parquet and Hugging
            Face datasets; JSON lines for JSON lines, as they are, with the score at the end.
        model: name, directory or ``.onnx`` file of a cross-encoder. All machines must have it, or
            be able to fetch it.
        score: name of the new column, float64.
        concurrency: number of workers; None for as many as the cluster has cores (or GPUs) for.
        cpus_per_worker: cores of a worker, each of which runs one batch at a time.
        gpus_per_worker: GPUs of a worker; 0 to run on the CPU.
        batch_size: pairs per batch of the model. 1 makes a score depend on its pair alone, to the
            bit. None lets the token budget decide: faster on GPUs, and scores in floats then agree
            to the rounding of sums.
        partition_bytes: bytes of a partition of ``output``; a gzipped file is one partition.
        precision: as for :class:`TextCrossEncoder`.
        max_length: as for :class:`TextCrossEncoder`.
        activation: as for :class:`TextCrossEncoder`.

    Returns:
        A Ray dataset, in which the rows may have another order; or what was written.

    Raises:
        InvalidInputError: before any work: a column is missing or no text, there are no rows,
            ``output`` holds another job's results, or no machine is large enough for a worker.
            During the work: a row of JSON lines is not an object with these texts.
        UnknownModelError: there is no such model.
    """
    pool = Pool(concurrency, cpus_per_worker, gpus_per_worker)
    require_positive("batch_size", batch_size)
    for name, value in (("query", query), ("document", document), ("score", score)):
        if not isinstance(value, str) or not value:
            raise InvalidInputError(f"{name} is {shown(value)}; expected the name of a column.")
    columns = {"query": query, "document": document, "score": score}
    options: dict[str, Any] = {
        "model": model if isinstance(model, str) else str(model.absolute()),
        "precision": precision,
        "max_length": max_length,
        "activation": activation,
        "device": "cuda" if gpus_per_worker else "cpu",
    }
    made = _encoder(options, cpus_per_worker, lazy_load=True)  # finds the files, or raises
    scorer: dict[str, Any] = {
        "options": options,
        "threads": cpus_per_worker,
        "batch_size": batch_size,
        "columns": columns,
    }
    if output is None:
        return _lazy(dataset, pool, scorer)
    if isinstance(dataset, ray.data.Dataset):
        raise InvalidInputError(
            "dataset is a Ray Dataset, which has no fixed partitions to go on with. Pass its files "
            "with output=, or leave output out and call write_parquet of the result."
        )
    source = Source(dataset, partition_bytes)
    source.require_texts(query, document)
    source.require_free(score, "score")
    job = {
        "source": source.identity,
        "columns": columns,
        "model": made.model_name,
        "options": {**options, "activation": activation_name(activation)},
        "batch_size": batch_size,
    }
    suffix = ".jsonl" if source.kind == "jsonl" else ".parquet"
    pool.size()  # before the directory is made
    target = Output(output, suffix, job)
    left = [partition for partition in source.partitions if not target.done(partition)]
    rows = 0
    try:
        if left:
            for outcome in each_partition(_FileScorer, {"output": target, **scorer}, left, pool):
                if outcome.error is not None:
                    raise outcome.error
                rows += outcome.rows
    finally:
        target.clean()
    count = len(source.partitions)
    return RerankedFiles(target.directory, rows, count, count - len(left))


def _encoder(options: dict[str, Any], threads: int, *, lazy_load: bool) -> TextCrossEncoder:
    given = {name: value for name, value in options.items() if name != "model"}
    if lazy_load:
        given["device"] = None  # the machine that starts the job may have no GPU
    return TextCrossEncoder(options["model"], threads=threads, lazy_load=lazy_load, **given)


def _lazy(dataset: Any, pool: Pool, scorer: dict[str, Any]) -> ray.data.Dataset:
    """Return a Ray dataset with a score column."""
    if not isinstance(dataset, ray.data.Dataset):
        dataset = _as_ray(dataset, scorer["columns"])
    schema = dataset.schema()
    if schema is None:
        raise InvalidInputError("dataset has no rows; expected one or more.")
    columns = scorer["columns"]
    for name in (columns["query"], columns["document"]):
        require_text(dict.fromkeys(schema.names), name, "dataset")
    require_free(columns["score"], schema.names, "score", "dataset")
    # One core or more is left to what reads the dataset.
    return dataset.map_batches(
        _BatchScorer,
        batch_size=ROWS_PER_BATCH,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=pool.size()),
        fn_constructor_kwargs=scorer,
        **pool.resources(),
    )


def _as_ray(dataset: Any, columns: dict[str, str]) -> ray.data.Dataset:
    source = Source(dataset)
    source.require_texts(columns["query"], columns["document"])
    ensure_ray()
    if is_hugging_face(dataset):
        return ray.data.from_huggingface(dataset)
    files = [file for file, *_ in source.identity["files"]]
    return ray.data.read_parquet(files) if source.kind == "parquet" else ray.data.read_json(files)


class _Scorer:
    """A model in a worker."""

    def __init__(
        self,
        options: dict[str, Any],
        threads: int,
        batch_size: int | None,
        columns: dict[str, str],
    ) -> None:
        self._encoder = _encoder(options, threads, lazy_load=False)
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


class _BatchScorer(_Scorer):
    """Scores batches of a Ray dataset."""

    def __call__(self, table: pa.Table) -> pa.Table:
        return self.table(table)


class _FileScorer(_Scorer):
    """Scores partitions into files."""

    def __init__(self, output: Output, **scorer: Any) -> None:
        super().__init__(**scorer)
        self._output = output

    def __call__(self, partition: Partition) -> int:
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
