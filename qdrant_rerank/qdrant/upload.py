"""Documents -> a collection, a round of batches at a time: read, check, embed, send.

A round holds ``parallel`` batches, sent at once, so memory is bounded whatever the number of
documents. A batch that Qdrant does not take is sent again a few times; then it is set aside and the
rest goes on, until several in a row failed: then it is not the batch.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, cast

from qdrant_client import models

from qdrant_rerank.embedders.qdrant import TextIndex
from qdrant_rerank.errors import (
    CollectionNotFoundError,
    IncompleteAddError,
    InvalidInputError,
    QdrantError,
    QdrantRequestError,
)
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.payload import PayloadText
from qdrant_rerank.qdrant.documents import Document, PointBuilder, PointId, collection_config
from qdrant_rerank.qdrant.recall import FirstStage
from qdrant_rerank.qdrant.settings import CollectionSettings
from qdrant_rerank.qdrant.transport.client import is_local
from qdrant_rerank.qdrant.transport.steps import Flow, ask, ask_many, compute
from qdrant_rerank.utils.progress import tqdm
from qdrant_rerank.utils.validation import require_several

__all__ = [
    "BATCH_RETRIES",
    "Storage",
    "Upload",
    "add_in_batches",
]

#: Times that a batch is sent again whose failure may pass, unless the options say more.
BATCH_RETRIES = 2
#: Batches that fail in a row before the rest is not tried any more.
GIVE_UP = 3
SHOWN_IDS = 3  # in a message; the error has all of them

Batch = list[models.PointStruct]


@dataclass(frozen=True, slots=True)
class Upload:
    """How documents are sent.

    Attributes:
        batch_size: documents a batch.
        parallel: batches at a time.
        resume: leave out documents whose ids the collection has already.
        progress: a progress bar on stderr; None for one if stderr is a terminal.
    """

    batch_size: int = 256
    parallel: int = 1
    resume: bool = False
    progress: bool | None = None


@dataclass(slots=True)
class _Tally:
    """What came of the batches so far, in the order of the documents."""

    stored: int = 0
    failed: list[tuple[Batch, QdrantError]] = field(default_factory=list)
    in_a_row: int = 0  # of the last batches, those that failed

    def note(self, batches: Sequence[Batch], outcomes: Sequence[Any]) -> None:
        for batch, outcome in zip(batches, outcomes, strict=True):
            if isinstance(outcome, QdrantError):
                self.failed.append((batch, outcome))
                self.in_a_row += 1
            else:
                self.stored += len(batch)
                self.in_a_row = 0

    def finish(self, failure: Exception | None) -> None:
        """Raise what there is to raise: of a document that is wrong, or of the batches."""
        unsent = self.error()
        if failure is not None and unsent is not None:
            failure.add_note(f"Besides: {unsent}")
        failure = failure or unsent
        if failure is not None:
            raise failure

    def error(self) -> QdrantError | None:
        """What to raise: the batch's own error if nothing was stored after it."""
        if not self.failed:
            return None
        if self.in_a_row == len(self.failed):
            return self.failed[0][1]
        ids = [cast("int | str", point.id) for batch, _ in self.failed for point in batch]
        first = self.failed[0][1]
        shown = ", ".join(map(repr, ids[:SHOWN_IDS])) + (", ..." if len(ids) > SHOWN_IDS else "")
        error = IncompleteAddError(
            f"{len(ids)} documents in {len(self.failed)} batches were not stored, and "
            f"{self.stored} were. The first failure: {first} The ids are in .failed_ids: {shown}. "
            "Adding all again with resume=True sends only these.",
            stored=self.stored,
            failed_ids=ids,
            causes=[cause for _, cause in self.failed],
        )
        error.__cause__ = first
        return error


def add_in_batches(
    documents: Iterable[Document],
    ids: Iterable[PointId] | None,
    *,
    builder: PointBuilder,
    store: Callable[[list[Batch]], Flow[list[Any]]],
    stored_ids: Callable[[list[Any]], Flow[set[str]]],
    upload: Upload,
) -> Flow[int]:
    """Read, check, embed and store documents.

    Args:
        documents: any iterable; read once.
        ids: as many as documents, or None to make them from the texts.
        builder: makes the points.
        store: sends batches of them; what came of each is an error or not.
        stored_ids: which of these ids the collection has.
        upload: how.

    Returns:
        The number of documents stored.

    Raises:
        QdrantRerankError: a document is wrong, or a batch failed and none after it was stored; the
            error's note has the number of documents before it.
        IncompleteAddError: batches failed, and others after them were stored.
    """
    require_several("documents", documents)
    if isinstance(documents, Mapping | models.PointStruct):
        raise InvalidInputError(
            f"documents is one {type(documents).__name__}; expected several. Pass [document]."
        )
    total = len(documents) if isinstance(documents, Sequence) else None
    if total is not None and isinstance(ids, Sequence) and len(ids) != total:
        raise InvalidInputError(
            f"{len(ids)} ids for {total} documents; expected one id a document."
        )
    points = builder.points(documents, ids)
    tally = _Tally()
    hidden = None if upload.progress is None else not upload.progress
    with tqdm(total=total, unit="doc", desc="indexing", disable=hidden) as bar:
        try:
            failure: Exception | None = None
            more = True
            while more and failure is None and tally.in_a_row < GIVE_UP:
                batches: list[Batch] = []
                while more and failure is None and len(batches) < upload.parallel:
                    rows, failure = yield from compute(
                        partial(_next_batch, points, upload.batch_size)
                    )
                    more = len(rows) == upload.batch_size
                    bar.update(len(rows))
                    if upload.resume and rows:
                        known = yield from stored_ids([point.id for point, _ in rows])
                        rows = [row for row in rows if str(row[0].id) not in known]
                    if rows:
                        batch, wrong = yield from compute(partial(_embedded, builder, rows))
                        batches += [batch] if batch else []
                        failure = wrong or failure
                if batches:
                    outcomes = yield from store(batches)
                    tally.note(batches, outcomes)
            tally.finish(failure)
            return tally.stored
        except IncompleteAddError:
            raise
        except Exception as error:
            error.add_note(
                f"{tally.stored} documents before it were added; adding them again does not "
                "duplicate them."
            )
            raise


def _next_batch(
    points: Iterator[tuple[models.PointStruct, str]], size: int
) -> tuple[list[tuple[models.PointStruct, str]], Exception | None]:
    """Points with their texts, and what failed after them: what came before it is kept."""
    batch: list[tuple[models.PointStruct, str]] = []
    try:
        for point in islice(points, size):
            batch.append(point)  # noqa: PERF402 - extend would lose what came before a failure
    except Exception as error:
        return batch, error
    return batch, None


def _embedded(
    builder: PointBuilder, rows: Sequence[tuple[models.PointStruct, str]]
) -> tuple[Batch, Exception | None]:
    """Points with their vectors; or none, and what failed: what was read before is kept."""
    try:
        return builder.embed(rows), None
    except Exception as error:
        return [], error


class Storage:
    """Stores points in the collection that a first stage searches.

    Args:
        first: knows the collection and the encoders.
    """

    def __init__(self, first: FirstStage) -> None:
        self._first = first

    def point_builder(
        self, text: PayloadText, options: SearchOptions, settings: CollectionSettings
    ) -> Flow[PointBuilder]:
        """What makes points for the collection, which is created where there is none."""
        self._first.forget()  # it may have been deleted, and made anew with other vectors
        try:
            plan = yield from self._first.plan(options)
        except CollectionNotFoundError:
            yield from self._create(settings)
            plan = yield from self._first.plan(options)
        if sum(branch.dense for branch in plan.branches) > 1 or (
            sum(not branch.dense for branch in plan.branches) > 1
        ):
            raise InvalidInputError(
                "The options name several vectors of one kind, and add embeds a text once. Add "
                "with a searcher whose options name one."
            )
        schema = yield from self._first.schema()
        return PointBuilder(schema, plan, self._first.embedder, self._first.sparse, text)

    def store(self, batches: Sequence[list[models.PointStruct]]) -> Flow[list[Any]]:
        """Upsert batches at once, and wait until their points can be found.

        Sending one again is no harm, since ids are given. What came of each is a list.
        """

        def sender(points: list[models.PointStruct]) -> Callable[[Any, int | None], Any]:
            def send(client: Any, timeout: int | None) -> Any:
                self._first.require_inference(client)
                return client.upsert(self._first.collection, points, wait=True)

            return send

        return (yield from ask_many([sender(one) for one in batches], retries=BATCH_RETRIES))

    def stored_ids(self, ids: list[Any]) -> Flow[set[str]]:
        """Which of these ids the collection has, as texts."""
        found = yield from ask(
            lambda client, timeout: client.retrieve(
                self._first.collection, ids, with_payload=False, with_vectors=False, timeout=timeout
            )
        )
        return {str(record.id) for record in found}

    def _create(self, settings: CollectionSettings) -> Flow[None]:
        config = settings.arguments(collection_config(self._first.embedder, self._first.sparse))
        try:
            yield from ask(
                lambda client, timeout: client.create_collection(self._first.collection, **config)
            )
        except QdrantRequestError as error:
            # Another process may have created it in between; then its schema decides.
            if "exist" not in str(error):
                raise
        indexes: dict[str, Any] = dict(settings.payload_indexes)
        if isinstance(self._first.sparse, TextIndex):
            indexes[self._first.sparse.field] = models.TextIndexParams(
                type=models.TextIndexType.TEXT, scoring=True
            )
        for name, kind in indexes.items():
            yield from ask(partial(self._index, name, kind))

    def _index(self, name: str, kind: Any, client: Any, timeout: int | None) -> Any:
        local_mode = is_local(client) and not getattr(client, "concurrent", False)
        if local_mode and getattr(kind, "scoring", None) is None:
            return None  # it has no other indexes, and warns
        return client.create_payload_index(self._first.collection, name, kind, wait=True)
