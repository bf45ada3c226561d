"""Adds documents to a collection, a round of batches at a time: read, check, embed, send.

A round holds ``parallel`` batches, which are sent at once, so memory is bounded whatever the number
of documents. A batch that fails is sent again a few times; then the next ones are sent. When
several in a row have failed, the rest is not sent.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Literal, cast

from qdrant_client import models

from qdrant_rerank.embedders.batched import AsyncEmbedder
from qdrant_rerank.errors import (
    IncompleteAddError,
    InvalidInputError,
    QdrantError,
    QdrantRerankError,
)
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.payload import TextChoice
from qdrant_rerank.qdrant.documents import Document, PointBuilder
from qdrant_rerank.qdrant.given_documents import GivenDocuments
from qdrant_rerank.qdrant.lookups import retrieve_points
from qdrant_rerank.qdrant.preparation import Prepared
from qdrant_rerank.qdrant.recall import FirstStage
from qdrant_rerank.qdrant.recall_plan import RecallPlan
from qdrant_rerank.qdrant.request_sizes import cut_by_size, named_if_too_large
from qdrant_rerank.qdrant.schema import CollectionSchema
from qdrant_rerank.qdrant.settings import CollectionSettings
from qdrant_rerank.qdrant.stored_states import AddStates, StatesEncoder, with_states
from qdrant_rerank.qdrant.transport.driver import Driver
from qdrant_rerank.types import PointId
from qdrant_rerank.utils.progress import tqdm
from qdrant_rerank.utils.validation import a_type, require_flag, require_positive, require_several

__all__ = ["BATCH_RETRIES", "Added", "Upload", "add_documents"]

logger = logging.getLogger(__name__)

#: Times that a batch is sent again if its failure is transient, unless the options say more.
BATCH_RETRIES = 2
#: Batches that fail in a row before the rest is given up.
GIVE_UP = 3
SHOWN_IDS = 3  # in a message; the error has all of them
#: Advice of the error of an ``add`` that stored only a part.
NOTHING_ADDED = "No document was added."
RESUME = "Add all again with resume=True: it stores only what is missing."

Batch = list[models.PointStruct]


class Added(int):
    """The number of documents that ``add`` stored.

    Attributes:
        overwritten: those of them that took the place of another document of the same call, because
            both have the same id and different payloads.
    """

    overwritten: int

    def __new__(cls, stored: int, overwritten: int = 0) -> "Added":
        """Make the number."""
        made = super().__new__(cls, stored)
        made.overwritten = overwritten
        return made


@dataclass(frozen=True, slots=True)
class Upload:
    """Options of sending documents.

    Attributes:
        batch_size: documents per batch.
        parallel: batches at a time.
        resume: whether documents are skipped whose ids the collection has already.
        progress: whether a progress bar is shown on stderr; None shows one on a terminal.
        id_field: payload field that ids are made of; None for the text and all the payload.
        language: language of BM25; None for the searcher's.
        avg_len: average length of documents for BM25; None for the collection's.

    Raises:
        InvalidInputError: a number below 1, or a flag that is none.
    """

    batch_size: int = 256
    parallel: int = 1
    resume: bool = False
    progress: bool | None = None
    id_field: str | None = None
    language: str | None = None
    avg_len: float | None = None

    def __post_init__(self) -> None:
        require_positive("batch_size", self.batch_size, optional=False)
        require_positive("parallel", self.parallel, optional=False)
        require_flag("resume", self.resume)
        require_flag("progress", self.progress, optional=True)


@dataclass(slots=True)
class _Tally:
    """Results of the batches so far, in the order of the documents."""

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
        """Raise the error of a document or of the batches, if there is one."""
        unsent = self.error()
        if failure is not None and unsent is not None:
            told = unsent.command_message or unsent
            _add_note(failure, f"In addition: {unsent}", f"In addition: {told}")
        failure = failure or unsent
        if failure is not None:
            raise failure

    def error(self) -> QdrantError | None:
        """Return the error of the batches: a batch's own if nothing was stored after it."""
        if not self.failed:
            return None
        if self.in_a_row == len(self.failed):
            return self.failed[0][1]
        ids = [cast("int | str", point.id) for batch, _ in self.failed for point in batch]
        first = self.failed[0][1]
        shown = ", ".join(map(repr, ids[:SHOWN_IDS])) + (", ..." if len(ids) > SHOWN_IDS else "")
        state = (
            f"{len(ids)} documents in {len(self.failed)} batches were not stored, and "
            f"{self.stored} were. The first failure:"
        )
        error = IncompleteAddError(
            f"{state} {first} The ids are in .failed_ids: {shown}. {RESUME}",
            command=f"{state} {first.command_message or first} The ids: {shown}.",
            stored=self.stored,
            failed_ids=ids,
            causes=[cause for _, cause in self.failed],
        )
        error.__cause__ = first
        return error


async def add_documents(
    driver: Driver,
    first: FirstStage,
    documents: Iterable[Document],
    ids: Iterable[PointId] | None,
    *,
    choice: TextChoice,
    options: SearchOptions,
    settings: CollectionSettings | None,
    upload: Upload,
    look_at: Callable[[Sequence[str], Literal["queries", "documents"]], None],
    reranker: StatesEncoder | None = None,
) -> Added:
    """Read, check, embed and store documents; see :meth:`HybridSearcher.add`.

    Args:
        driver: asks Qdrant.
        first: knows the collection and the encoders.
        documents: any iterable. An iterator is read once; others are read more often, to check all
            documents before and as :class:`Prepared` says.
        ids: as many as documents, or None to make them from the texts.
        choice: where a payload's text is; what the collection has settles it.
        options: names of the vectors to fill.
        settings: of a collection that has to be created.
        upload: how documents are sent.
        look_at: sees the texts of each batch, and the word "documents".
        reranker: makes the states of documents, if the collection stores its states; or None.

    Returns:
        The number of documents stored, and how many took the place of others.

    Raises:
        QdrantRerankError: a document is wrong, or a batch failed and none after it was stored; the
            error has the number of documents that are stored, in a note or in its message.
        IncompleteAddError: batches failed, and others after them were stored.
    """
    if settings is not None and not isinstance(settings, CollectionSettings):
        raise InvalidInputError(f"settings is {a_type(settings)}; expected a CollectionSettings.")
    if upload.id_field is not None and ids is not None:
        raise InvalidInputError("ids and id_field are both given; expected one of them.")
    require_several("ids", () if ids is None else ids)
    require_several("documents", documents)
    if isinstance(documents, Mapping | models.PointStruct):
        raise InvalidInputError(
            f"documents is one {type(documents).__name__}; expected several. Pass [document]."
        )
    given = GivenDocuments(documents, ids)
    prepared = Prepared(first, given, choice, upload.language, upload.avg_len, reranker)
    await prepared.prepare(
        driver,
        options,
        settings or CollectionSettings(),
        partial(_check, driver, given, choice, upload),
    )
    builder = PointBuilder(
        prepared.schema,
        prepared.plan,
        first.embedder,
        prepared.encoder,
        choice.text,
        upload.id_field,
        states=await driver.compute(_states_of, prepared.schema, reranker),
    )
    points = builder.points(given.documents, given.ids)
    tally = _Tally()
    hidden = None if upload.progress is None else not upload.progress
    with tqdm(total=given.count, unit="doc", desc="indexing", disable=hidden) as bar:
        try:
            failure: Exception | None = None
            more = True
            while more and failure is None and tally.in_a_row < GIVE_UP:
                batches: list[Batch] = []
                while more and failure is None and len(batches) < upload.parallel:
                    rows, failure = await driver.compute(_next_batch, points, upload.batch_size)
                    more = len(rows) == upload.batch_size
                    bar.update(len(rows))
                    look_at([text for _, text in rows], "documents")
                    if upload.resume and rows:
                        known = await retrieve_points(
                            driver,
                            first.collection,
                            [point.id for point, _ in rows],
                            options,
                            with_payload=False,
                        )
                        rows = [row for row in rows if row[0].id not in known]
                    if rows:
                        batch, wrong = await _embedded(driver, first, builder, rows)
                        batches += [batch] if batch else []
                        failure = wrong or failure
                parts = [part for batch in batches for part in cut_by_size(batch)]
                for start in range(0, len(parts), upload.parallel):
                    some = parts[start : start + upload.parallel]
                    # Sending a batch again does no harm, since ids are given.
                    sends = [partial(_upsert, first, part) for part in some]
                    outcomes = await driver.request_many(sends, retries=BATCH_RETRIES)
                    tally.note(some, [_named(*one) for one in zip(some, outcomes, strict=True)])
            tally.finish(failure)
        except IncompleteAddError:
            raise
        except BaseException as error:
            _tell_stored(error, tally.stored)
            raise
    if builder.overwritten:
        logger.warning(
            "%d of %d documents took the place of others in %r: they have the same ids and "
            "different payloads. Pass ids= or id_field= with what tells them apart.",
            builder.overwritten,
            tally.stored,
            first.collection,
        )
    return Added(tally.stored, builder.overwritten)


def _states_of(schema: CollectionSchema, reranker: StatesEncoder | None) -> AddStates | None:
    """Return what adds states to points; None where the collection stores none of the reranker."""
    states = schema.states
    if states is None:
        return None
    if reranker is not None and reranker.states_models.get(states.precision) == states.model:
        return partial(with_states, encoder=reranker, states=states)
    logger.warning(
        "%r stores states of %s (as it was then), which is not this searcher's reranker, so "
        "documents are added without. 'qdrant-rerank states --collection %s' adds them.",
        schema.collection,
        states.name,
        schema.collection,
    )
    return None


def _tell_stored(error: BaseException, stored: int) -> None:
    """Add to an error how many documents are stored: to its message, if it is Qdrant's."""
    state = f"{stored} documents before it were added."
    if isinstance(error, QdrantRerankError):
        error.stored = stored
    if isinstance(error, QdrantError):
        told = error.command_message or str(error)
        error.command_message = f"{told.rstrip('.')}. {state}"
        error.args = (f"{str(error).rstrip('.')}. {state} {RESUME}", *error.args[1:])
    elif stored:
        _add_note(error, f"{state} {RESUME}", state)
    else:
        _add_note(error, NOTHING_ADDED, NOTHING_ADDED)


def _add_note(error: BaseException, note: str, command: str) -> None:
    """Add a note to an error; the command line prints ``command`` instead."""
    if isinstance(error, QdrantRerankError):
        error.add_note(note, command)
    else:
        error.add_note(note)


def _named(part: Batch, outcome: Any) -> Any:
    """Return the outcome of a request; an error over its size names the document."""
    if len(part) != 1 or not isinstance(outcome, QdrantError):
        return outcome
    return named_if_too_large(part[0].id, part[0], outcome)


def _next_batch(
    points: Iterator[tuple[models.PointStruct, str]], size: int
) -> tuple[list[tuple[models.PointStruct, str]], Exception | None]:
    """Return points with their texts, and the error after them.

    A batch with a wrong document is refused whole. Where the caller's iterable fails, the documents
    before the failure are not wrong, and are returned.
    """
    batch: list[tuple[models.PointStruct, str]] = []
    try:
        for point in islice(points, size):
            batch.append(point)  # noqa: PERF402 - extend would lose what came before a failure
    except QdrantRerankError as error:
        return [], error
    except Exception as error:
        return batch, error
    return batch, None


async def _embedded(
    driver: Driver,
    first: FirstStage,
    builder: PointBuilder,
    rows: Sequence[tuple[models.PointStruct, str]],
) -> tuple[Batch, Exception | None]:
    """Return points with their vectors; or none, and the error."""
    try:
        vectors = None
        if isinstance(first.embedder, AsyncEmbedder) and driver.awaits:
            vectors = await first.embedder.aembed_documents(builder.texts_to_embed(rows))
        return await driver.compute(builder.embed, rows, vectors), None
    except Exception as error:
        return [], error


async def _check(
    driver: Driver,
    given: GivenDocuments,
    choice: TextChoice,
    upload: Upload,
    schema: CollectionSchema,
    plan: RecallPlan,
) -> None:
    """Check the documents, as far as they can be looked at, before anything is stored."""
    dense = sum(branch.dense for branch in plan.branches)
    if dense > 1 or len(plan.branches) - dense > 1:
        raise InvalidInputError(
            "The options name several vectors of one kind, and add embeds a text once. Add "
            "with a searcher whose options name one."
        )
    builder = PointBuilder(schema, plan, None, None, choice.text, upload.id_field)
    try:
        await driver.compute(given.check, builder, upload.batch_size)
    except Exception as error:
        _tell_stored(error, 0)
        raise


def _upsert(first: FirstStage, batch: Batch, client: Any, timeout: int | None) -> Any:
    """Store a batch, and wait until its points can be found."""
    first.require_inference(client)
    return client.upsert(first.collection, batch, wait=True)
