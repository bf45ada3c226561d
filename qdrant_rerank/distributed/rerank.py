"""Scores of (query, document) pairs in datasets of any size."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import ray.data

from qdrant_rerank.cross_encoder.activations import activation_name
from qdrant_rerank.cross_encoder.text_cross_encoder import Activation
from qdrant_rerank.distributed.cluster import Pool, each_partition, ensure_ray
from qdrant_rerank.distributed.output import Output
from qdrant_rerank.distributed.scorers import BatchScorer, FileScorer, make_encoder
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
from qdrant_rerank.utils.validation import require_positive, shown

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
            ``output`` holds another job's results or is inside the dataset, or no machine is large
            enough for a worker.
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
    made = make_encoder(options, cpus_per_worker, lazy_load=True)  # finds the files, or raises
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
    source.require_outside(output)
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
            for outcome in each_partition(FileScorer, {"output": target, **scorer}, left, pool):
                if outcome.error is not None:
                    raise outcome.error
                rows += outcome.rows
    finally:
        target.clean()
    count = len(source.partitions)
    return RerankedFiles(target.directory, rows, count, count - len(left))


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
        BatchScorer,
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
