"""Documents of any number into a Qdrant cluster."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qdrant_rerank.distributed.cluster import Outcome, Pool, each_partition
from qdrant_rerank.distributed.partitions import Partition
from qdrant_rerank.distributed.sources import PARTITION_BYTES, Source
from qdrant_rerank.embedders import ForeignEmbedder, ForeignSparse
from qdrant_rerank.errors import (
    IncompleteAddError,
    InvalidInputError,
    QdrantConnectionError,
    QdrantError,
)
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER
from qdrant_rerank.payload import TextSource
from qdrant_rerank.qdrant.preparation import MEASURED
from qdrant_rerank.qdrant.recall_plan import DenseEncoder, LexicalEncoder
from qdrant_rerank.qdrant.settings import CollectionSettings
from qdrant_rerank.qdrant.transport.client import connect
from qdrant_rerank.search.searcher import HybridSearcher
from qdrant_rerank.utils.validation import a_type, require_flag, require_positive

__all__ = ["Indexed", "index_dataset"]

PASSES = 2  # times that a partition is tried, the second one when all others are done
GIVE_UP = 20  # partitions that fail one after the other: Qdrant is down, or refuses
SHOWN = 3  # partitions and ids in a message


@dataclass(frozen=True, slots=True)
class Indexed:
    """Results of a job that has ended.

    Attributes:
        stored: number of documents that this call stored.
        partitions: number of partitions.
    """

    stored: int
    partitions: int


def index_dataset(
    dataset: Any,
    collection: str,
    *,
    url: str | Sequence[str] | None = None,
    text: TextSource = "auto",
    embedder: DenseEncoder | ForeignEmbedder | str | Path | None = DEFAULT_EMBEDDER,
    sparse: LexicalEncoder | ForeignSparse | str | Path | None = "auto",
    id_field: str | None = None,
    language: str | None = None,
    avg_len: float | None = None,
    settings: CollectionSettings | None = None,
    resume: bool = False,
    batch_size: int = 256,
    concurrency: int | None = None,
    cpus_per_worker: int = 1,
    gpus_per_worker: float = 0,
    partition_bytes: int = PARTITION_BYTES,
) -> Indexed:
    """Embed the documents of a dataset on all machines of a Ray cluster, and store them in Qdrant.

    Each row is a payload, and is stored as :meth:`HybridSearcher.add` stores it. Its id is made of
    its text and payload, or of ``id_field``, so that a row that is sent twice is there once: by a
    worker that died, by a second try, or by a second call.

    The first rows are stored by the calling process, which creates the collection, before any
    worker starts: what is wrong with them shows at once.

    Args:
        dataset: a file or a directory of Parquet or JSON lines (``.jsonl``, ``.jsonl.gz``), a list
            of them, or a Hugging Face ``Dataset``. All machines must see files under the same
            paths.
        collection: name of the collection.
        url: URL of the Qdrant server, or URLs of several nodes of one cluster: workers are spread
            over them, and go on with another one when theirs fails. None for ``QDRANT_URL``. The
            key is ``QDRANT_API_KEY`` of each machine's environment.
        text: as for :class:`HybridSearcher`.
        embedder: as for :class:`HybridSearcher`; an object is pickled to the workers.
        sparse: as for :class:`HybridSearcher`.
        id_field: as for :meth:`HybridSearcher.add`.
        language: as for :meth:`HybridSearcher.add`.
        avg_len: as for :meth:`HybridSearcher.add`; None measures it over the first 1,024 rows.
        settings: of a collection that has to be created, without ``document_states``.
        resume: skip documents that are in the collection already, without embedding them.
        batch_size: documents per request.
        concurrency: number of workers; None for as many as the cluster has cores for.
        cpus_per_worker: cores of a worker.
        gpus_per_worker: GPUs of a worker.
        partition_bytes: bytes that a worker reads at a time; a gzipped file is one partition.

    Raises:
        InvalidInputError: before any work: there are no rows, no URL, or no machine is large enough
            for a worker.
        IncompleteAddError: documents were not stored, also at a second try. The message names the
            partitions, ``failed_ids`` the documents of those batches that failed among others, and
            ``causes`` has the errors. All other documents are stored.
        QdrantRerankError: as :meth:`HybridSearcher.add`, for the first rows.
    """
    pool = Pool(concurrency, cpus_per_worker, gpus_per_worker)
    require_positive("batch_size", batch_size, optional=False)
    require_flag("resume", resume)
    urls = _urls(url)
    if settings is not None and settings.document_states is not None:
        raise InvalidInputError(
            f"document_states is {settings.document_states!r}, but workers load no reranker, so "
            f"they store no states. Leave it out, and run 'qdrant-rerank states --collection "
            f"{collection}' when the documents are stored."
        )
    source = Source(dataset, partition_bytes)
    pool.size()
    searcher = {"text": text, "embedder": embedder, "sparse": sparse, "language": language}
    adding = {"batch_size": batch_size, "resume": resume, "id_field": id_field, "progress": False}
    first = _Indexer(collection, urls, searcher, adding)
    first.add(source.first_rows(MEASURED), settings=settings, avg_len=avg_len)
    arguments = {"collection": collection, "urls": urls, "searcher": searcher, "adding": adding}
    stored = 0
    wrong: list[Outcome] = []  # whose documents are wrong: a second try would not help
    failed: list[Outcome] = []
    left: Sequence[Partition] = source.partitions
    for _ in range(PASSES):
        failed, in_a_row = [], 0
        for outcome in each_partition(_Indexer, arguments, left, pool):
            stored += outcome.rows
            in_a_row = 0 if outcome.error is None else in_a_row + 1
            if outcome.error is not None:
                (failed if isinstance(outcome.error, QdrantError) else wrong).append(outcome)
            if in_a_row == GIVE_UP:
                raise _incomplete([*wrong, *failed], stored, "The others were given up.")
        left = [outcome.partition for outcome in failed]
        if not left:
            break
    if wrong or failed:
        raise _incomplete([*wrong, *failed], stored, "All others are stored.")
    return Indexed(stored, len(source.partitions))


def _urls(url: str | Sequence[str] | None) -> list[str]:
    given = os.environ.get("QDRANT_URL") if url is None else url
    urls = [given] if isinstance(given, str) else given
    if not urls:
        raise InvalidInputError(
            "There is no Qdrant to store documents in: many machines cannot share an embedded one. "
            "Pass url=, or set QDRANT_URL."
        )
    if not isinstance(urls, Sequence) or not all(isinstance(one, str) and one for one in urls):
        raise InvalidInputError(f"url is {a_type(url)}; expected a URL, or a list of them.")
    return list(urls)


def _incomplete(failed: Sequence[Outcome], stored: int, others: str) -> IncompleteAddError:
    """Make the error that names the partitions and the documents that are not stored."""
    causes = [outcome.error for outcome in failed if outcome.error is not None]
    ids = [
        one for cause in causes if isinstance(cause, IncompleteAddError) for one in cause.failed_ids
    ]
    names = "; ".join(outcome.partition.name for outcome in failed[:SHOWN])
    more = f"; and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
    error = IncompleteAddError(
        f"{_partitions_were(len(failed))} not stored, or not whole: {names}{more}. {others} The "
        f"first failure: {causes[0]} Call again with resume=True, which stores what is missing.",
        stored=stored,
        failed_ids=ids,
        causes=causes,
    )
    error.__cause__ = causes[0]
    return error


def _partitions_were(count: int) -> str:
    return "1 partition was" if count == 1 else f"{count} partitions were"


class _Indexer:
    """A searcher in a worker, on one of several nodes."""

    def __init__(
        self,
        collection: str,
        urls: Sequence[str],
        searcher: dict[str, Any],
        adding: dict[str, Any],
    ) -> None:
        first = os.getpid() % len(urls)
        self._urls = [*urls[first:], *urls[:first]]
        self._collection = collection
        self._options = searcher
        self._adding = adding
        self._searcher: HybridSearcher | None = None

    def __call__(self, partition: Partition) -> int:
        return self.add(partition.rows())

    def add(self, rows: Sequence[dict[str, Any]], **more: Any) -> int:
        """Store rows; by another node, if the one in use cannot be reached.

        Raises:
            QdrantRerankError: as :meth:`HybridSearcher.add`.
        """
        for tried in range(1, len(self._urls) + 1):
            try:
                return int(self._searcher_of_node().add(rows, **self._adding, **more))
            except QdrantError as error:
                if not _unreachable(error) or tried == len(self._urls):
                    raise
                self._searcher = None
                self._urls = [*self._urls[1:], self._urls[0]]
        raise AssertionError("There are no URLs.")

    def _searcher_of_node(self) -> HybridSearcher:
        if self._searcher is None:
            self._searcher = HybridSearcher(
                self._collection,
                client=connect(self._urls[0]),
                reranker=None,
                **self._options,
            )
        return self._searcher


def _unreachable(error: QdrantError) -> bool:
    causes = error.causes if isinstance(error, IncompleteAddError) else [error]
    return any(isinstance(cause, QdrantConnectionError) for cause in causes)
