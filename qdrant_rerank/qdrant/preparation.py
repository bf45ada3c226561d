"""Makes a collection ready for the documents of an ``add``: it exists, and its BM25 is settled.

BM25 weighs a term by the length of its document, compared with the average. That average must be
the same for all documents of a collection, so it is measured before the first vectors are made, and
the collection records it.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any

from qdrant_client import models

from qdrant_rerank.embedders import Bm25Encoder
from qdrant_rerank.errors import (
    CollectionNotFoundError,
    InvalidInputError,
    QdrantRequestError,
    SchemaMismatchError,
)
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.payload import PayloadText, TextChoice
from qdrant_rerank.qdrant.creation import NewCollection
from qdrant_rerank.qdrant.encoders import asked_encoder, description, require_same_weights
from qdrant_rerank.qdrant.given_documents import GivenDocuments
from qdrant_rerank.qdrant.recall import FirstStage
from qdrant_rerank.qdrant.recall_plan import LexicalEncoder, RecallPlan
from qdrant_rerank.qdrant.schema import (
    SPARSE_KEY,
    SPARSE_NAME,
    CollectionSchema,
    CollectionStates,
)
from qdrant_rerank.qdrant.settings import CollectionSettings
from qdrant_rerank.qdrant.stored_states import StatesEncoder, required_encoder
from qdrant_rerank.qdrant.text_source import NEW_TEXT, settle_for_add
from qdrant_rerank.qdrant.transport.driver import Driver

__all__ = ["MEASURED", "Prepared"]

logger = logging.getLogger(__name__)

#: Documents of an iterator that the average length is measured on: the mean of so many is within
#: some 5 % of the true one, and a few times less moves no nDCG@10 by 0.001.
MEASURED = 1024
#: Waits until the nodes of a cluster have learned what is recorded. Documents that were weighed by
#: another average length than the one that turns up would have other weights than later ones.
LEARNS_IN_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


class Prepared:
    """Gets a collection ready, and is then what an ``add`` needs of it.

    Args:
        first: knows the collection and the encoders.
        given: the documents. An iterator is read ahead by ``MEASURED`` documents if the average
            length has to be measured; anything else is read twice then.
        choice: where a payload's text is; what the collection has settles it.
        language: language of BM25 in this ``add``; None for the encoder's.
        avg_len: average length of BM25 in this ``add``; None for the encoder's or the collection's.
        reranker: makes the states of documents; None if the searcher has none that could.

    Attributes:
        schema: schema of the collection.
        plan: the vectors to fill.
        encoder: the sparse encoder of documents, or None.

    Raises:
        InvalidInputError: language or length are given, and the encoder is not BM25, or they are
            out of range.
    """

    schema: CollectionSchema
    plan: RecallPlan
    encoder: LexicalEncoder | None

    def __init__(
        self,
        first: FirstStage,
        given: GivenDocuments,
        choice: TextChoice,
        language: str | None = None,
        avg_len: float | None = None,
        reranker: StatesEncoder | None = None,
    ) -> None:
        self._reranker = reranker
        self._first = first
        self._given = given
        self._choice = choice
        self._asked = (language, avg_len)
        self._new = asked_encoder(first.given_sparse, language, avg_len)
        if language is not None and first.language not in {None, language}:
            raise InvalidInputError(
                f"add(language={language!r}), but the searcher's BM25 is in {first.language!r}. "
                "Leave the language of one of them out."
            )

    async def prepare(
        self,
        driver: Driver,
        options: SearchOptions,
        settings: CollectionSettings,
        check: Callable[[CollectionSchema, RecallPlan], Awaitable[None]],
    ) -> None:
        """Read the schema, create the collection where there is none, and settle its BM25.

        Args:
            driver: asks Qdrant.
            options: names of the vectors to fill.
            settings: of a collection that has to be created.
            check: raises if the documents do not fit; called before anything is created.

        Raises:
            SchemaMismatchError: the vectors do not fit the encoders, or documents would get other
                weights than those that are stored.
            QdrantRequestError: Qdrant refused.
        """
        first = self._first
        first.forget()  # it may have been deleted, and made again with other vectors
        created: CollectionSchema | None = None
        if await self._exists(driver):
            self._require_states(settings)
        else:
            created = await self._create(driver, options, settings, check)
            self.schema = await first.schema(driver)
        await settle_for_add(driver, self._choice, self.schema)
        await first.learn_dimension(driver)
        self.plan = first.plan(self.schema, options)
        if self.schema != created:
            await check(self.schema, self.plan)
        name = self.plan.sparse
        new = self._new
        if name is not None and isinstance(new, Bm25Encoder) and self._is_unsettled(name):
            if self.schema.encoder is not None:
                new = self._fitting()
            if isinstance(new, Bm25Encoder):
                await self._record(driver, await self._measured(driver, new, name))
        self.encoder = self._fitting()
        if name is not None and self.encoder is not None:
            require_same_weights(self.schema, self.encoder)

    async def _exists(self, driver: Driver) -> bool:
        """Read the schema; return whether there is the collection."""
        try:
            self.schema = await self._first.schema(driver)
        except CollectionNotFoundError:
            return False
        return True

    async def _create(
        self,
        driver: Driver,
        options: SearchOptions,
        settings: CollectionSettings,
        check: Callable[[CollectionSchema, RecallPlan], Awaitable[None]],
    ) -> CollectionSchema:
        """Create the collection once the documents are known to fit; return its schema."""
        first = self._first
        await first.require_text_index(driver)
        self._choice.settle(NEW_TEXT)
        await first.learn_dimension(driver)
        name, text = first.collection, self._choice.text
        states = await self._states(driver, settings)
        new = NewCollection.for_encoders(name, first.embedder, self._new, settings, text, states)
        await check(new.schema, first.plan(new.schema, options))
        if isinstance(self._new, Bm25Encoder):
            measured = await self._measured(driver, self._new, SPARSE_NAME)
            new = NewCollection.for_encoders(name, first.embedder, measured, settings, text, states)
        await new.create(driver)
        return new.schema

    async def _states(
        self, driver: Driver, settings: CollectionSettings
    ) -> CollectionStates | None:
        """Return the states that a new collection will store; the model is loaded for them."""
        if settings.document_states is None:
            return None
        encoder = required_encoder(self._reranker)
        precision = settings.document_states
        await driver.compute(encoder.states, precision)
        return CollectionStates(precision, encoder.states_models[precision], encoder.model_name)

    def _require_states(self, settings: CollectionSettings) -> None:
        """Raise unless a collection that is there stores what the settings say of states."""
        asked, states, name = settings.document_states, self.schema.states, self.schema.collection
        if asked is not None and (states is None or states.precision != asked):
            raise InvalidInputError(
                f"document_states is {asked!r}, but {name!r} is there and stores "
                f"{'no states' if states is None else f'states in {states.precision}'}. Run "
                f"'qdrant-rerank states --collection {name} --precision {asked}' (or "
                "HybridSearcher.fill_states) first, or leave document_states out."
            )

    def _fitting(self) -> LexicalEncoder | None:
        """Return the encoder as the collection records it, with what this ``add`` asks for."""
        language, avg_len = self._asked
        encoder = asked_encoder(self._first.sparse, language, avg_len)
        if encoder is self._first.sparse or not isinstance(encoder, Bm25Encoder):
            return encoder
        if self.plan.sparse is None:
            raise SchemaMismatchError(
                f"A language or an average length is given to add, but {self.schema.collection!r} "
                f"has no sparse vector for BM25: {self.schema}. Leave them out."
            )
        searched = description(self._first.sparse)["language"]
        if searched != encoder.language:
            raise SchemaMismatchError(
                f"add(language={language!r}), but {self.schema.collection!r} is searched in "
                f"{searched!r}. Make the searcher with language={language!r}; if the collection "
                "records another language, index into a new one."
            )
        return encoder

    def _is_unsettled(self, name: str) -> bool:
        """Whether no documents have weights yet, and no average length is recorded."""
        schema = self.schema
        if schema.points or not schema.has_idf(name):
            return False
        return schema.encoder is None or schema.encoder.get("avg_len", 0) is None

    async def _measured(self, driver: Driver, encoder: Bm25Encoder, name: str) -> Bm25Encoder:
        """Return the encoder with the average length of the documents, if it has none."""
        if encoder.avg_len is not None:
            return encoder
        texts = _texts(await driver.compute(self._given.sample, MEASURED), self._choice.text, name)
        return encoder.with_avg_len(await driver.compute(encoder.average_length, texts))

    async def _record(self, driver: Driver, encoder: Bm25Encoder) -> None:
        """Record an encoder in a collection that has no documents yet, and read the schema."""
        name = self.schema.collection
        metadata = {SPARSE_KEY: description(encoder)}
        waits = LEARNS_IN_S if encoder.avg_len is not None else ()
        try:
            await driver.request(
                lambda client, _: client.update_collection(name, metadata=metadata)
            )
        except QdrantRequestError as error:
            # A key may allow to write points alone. What is not recorded holds for nobody.
            logger.info("The average length of %r is not recorded: %s", name, error)
            waits = ()
        for wait_s in (*waits, None):
            self._first.forget()
            self.schema = await self._first.schema(driver)
            if wait_s is None or (self.schema.encoder or {}).get("avg_len") is not None:
                return
            await driver.sleep(wait_s)


def _texts(documents: Iterable[Any], text: PayloadText, name: str) -> Iterator[str]:
    """Yield the texts that BM25 will encode; a document that is wrong is refused later."""
    for document in documents:
        if isinstance(document, str):
            yield document
            continue
        payload = document
        if isinstance(document, models.PointStruct):
            if isinstance(document.vector, Mapping) and name in document.vector:
                continue
            payload = document.payload or {}
        if not isinstance(payload, Mapping):
            continue
        try:
            found = text(payload)
        except Exception:  # of the caller's own function
            continue
        if found is not None:
            yield found
