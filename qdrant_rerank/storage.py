"""What ``add`` writes to one collection, as flows; the collection is made where there is none."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from qdrant_client import models

from qdrant_rerank.collection_settings import CollectionSettings
from qdrant_rerank.connection import is_local
from qdrant_rerank.embedders.qdrant import TextIndex
from qdrant_rerank.errors import CollectionNotFoundError, InvalidInputError, QdrantRequestError
from qdrant_rerank.first_stage import FirstStage
from qdrant_rerank.flow import Flow, ask, ask_many
from qdrant_rerank.indexing import PointBuilder, collection_config
from qdrant_rerank.options import SearchOptions
from qdrant_rerank.text import PayloadText
from qdrant_rerank.uploading import BATCH_RETRIES

__all__ = ["Storage"]


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
