"""Documents to points: from any iterable, checked one by one.

Ids are made from the documents, so adding again does not duplicate.
"""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models
from qdrant_client.local.payload_value_extractor import value_by_key

from qdrant_rerank.embedders.checks import dense_output, require_finite, sparse_outputs
from qdrant_rerank.embedders.qdrant import QdrantInference, TextIndex
from qdrant_rerank.errors import InvalidInputError, SchemaMismatchError
from qdrant_rerank.payload import PayloadText, require_path
from qdrant_rerank.qdrant.payloads import plain_payload, storable_text
from qdrant_rerank.qdrant.recall_plan import DenseEncoder, LexicalEncoder, RecallPlan
from qdrant_rerank.qdrant.schema import STATES_FIELD, CollectionSchema, are_states
from qdrant_rerank.qdrant.stored_states import AddStates
from qdrant_rerank.types import Embedder, PointId
from qdrant_rerank.utils.finite import not_finite
from qdrant_rerank.utils.validation import a_type, shown

__all__ = ["Document", "PointBuilder"]

Document = str | Mapping[str, Any] | models.PointStruct

# Fixed, so that a text has the same id in every process: uuid5(NAMESPACE_URL, "qdrant-rerank").
NAMESPACE = uuid.UUID("22231b7c-5e2b-54c0-8efc-fa55f6089afb")
REMEMBERED = 2**20  # ids of one call, some 100 bytes each
NO_MORE: Any = object()


class PointBuilder:
    """Turns documents into points for one collection.

    Args:
        schema: schema of the collection.
        plan: the vectors that the encoders fill.
        embedder: the dense encoder; None where the plan has no dense vector.
        sparse: the sparse encoder; None where the plan has no sparse vector.
        text: where a payload's text is.
        id_field: payload field, or path, that tells documents apart; None for the text and all
            the payload.
        states: adds the states of their texts to points; None to add none.

    Attributes:
        overwritten: points so far that took the place of another document's of the same call;
            of the first ``REMEMBERED`` ids.

    Raises:
        InvalidInputError: ``id_field`` is no field or path.
    """

    def __init__(
        self,
        schema: CollectionSchema,
        plan: RecallPlan,
        embedder: DenseEncoder | None,
        sparse: LexicalEncoder | None,
        text: PayloadText,
        id_field: str | None = None,
        states: AddStates | None = None,
    ) -> None:
        self._states = states
        if id_field is not None:
            require_path("id_field", id_field)
        self.overwritten = 0
        self._id_field = id_field
        self._seen: dict[int, int] = {}  # hashes of ids to hashes of what is stored there
        self._schema = schema
        self._plan = plan
        self._embedder = embedder
        self._sparse = sparse
        self._text = text

    def check(self, documents: Iterable[Document], ids: Iterable[PointId] | None) -> None:
        """Check documents that can be read again, and keep nothing of them.

        Raises:
            InvalidInputError: not one id per document; and as :meth:`point`.
        """
        for numbered in _numbered(documents, ids):
            self._checked(*numbered)

    def points(
        self, documents: Iterable[Document], ids: Iterable[PointId] | None
    ) -> Iterator[tuple[models.PointStruct, str]]:
        """Yield checked points with their texts, one per document; each takes the next id.

        Raises:
            InvalidInputError: not one id per document; and as :meth:`point`.
        """
        for numbered in _numbered(documents, ids):
            yield self.point(*numbered)

    def point(
        self, index: int, document: Document, point_id: PointId | None
    ) -> tuple[models.PointStruct, str]:
        """Check one document.

        Args:
            index: its place among the documents, which errors name.
            document: a text, a payload, or a point.
            point_id: its id; None to make one.

        Returns:
            The point, with the vectors that the document has, and its text ("" if none is needed).

        Raises:
            InvalidInputError: not a document, or a wrong id.
            MissingTextError: it has no text, and vectors that need one.
            SchemaMismatchError: a vector that it has does not fit the collection.
        """
        payload, vectors, text, checked = self._checked(index, document, point_id)
        if checked is None:
            checked = self._made_id(text, payload, f"Document {index}")
        self._note(checked, payload)
        return models.PointStruct(id=checked, payload=payload, vector=vectors), text

    def _checked(
        self, index: int, document: Document, point_id: PointId | None
    ) -> tuple[dict[str, Any], dict[str, Any], str, int | str | None]:
        """Return the payload, the vectors, the text and the id; None if it is made of the text."""
        where = f"Document {index}"
        vectors: dict[str, Any] = {}
        if isinstance(document, models.PointStruct):
            payload: Mapping[str, Any] = document.payload or {}
            point_id = document.id if point_id is None else point_id
            vectors = self._given_vectors(document, where)
        elif isinstance(document, str):
            payload = self._payload_of(document, where)
        elif isinstance(document, Mapping):
            payload = document
        else:
            raise InvalidInputError(
                f"{where} is {a_type(document)}; expected a str, a mapping (the payload) "
                "or a PointStruct."
            )
        payload = plain_payload(payload, where)
        # States come with points that were read from a collection; they are made anew.
        if STATES_FIELD in payload and not are_states(payload.pop(STATES_FIELD)):
            raise InvalidInputError(
                f"{where} has a field {STATES_FIELD!r}, whose name is kept for states of "
                "documents. Rename it."
            )
        needed = {self._plan.dense, self._plan.sparse} - {None} - set(vectors)
        text = self._text.require(payload, where) if needed else self._text(payload) or ""
        text = storable_text(text, where)
        if point_id is not None:
            return payload, vectors, text, _checked_id(point_id, where)
        made = None if self._id_field is None else self._id_of_field(payload, where)
        return payload, vectors, text, made

    def _made_id(self, text: str, payload: dict[str, Any], where: str) -> str:
        """Return the id of a document that has none: two that differ have different ids."""
        # A text without any other field has the same id in collections of both kinds.
        bare = self._text.keys is not None
        if self._schema.ids > 1 and not (bare and payload == self._payload_of(text, where)):
            text = f"{text}\0{_canonical(payload)}"
        return str(uuid.uuid5(NAMESPACE, text))

    def _id_of_field(self, payload: dict[str, Any], where: str) -> int | str:
        field = self._id_field or ""
        values = value_by_key(payload, field) or []
        if len(values) != 1 or not isinstance(values[0], int | str | uuid.UUID) or values[0] == "":
            raise InvalidInputError(
                f"{where} has {shown(values)} in the field {field!r}, its id_field; expected one "
                "text or whole number."
            )
        [key] = values
        try:
            return _checked_id(key, where)
        except InvalidInputError:  # the id is made of it
            return str(uuid.uuid5(NAMESPACE, f"{field}\0{key}"))

    def _note(self, point_id: int | str, payload: dict[str, Any]) -> None:
        content = hash(_canonical(payload))
        before = self._seen.get(hash(point_id), content)
        self.overwritten += before != content
        if len(self._seen) < REMEMBERED:
            self._seen[hash(point_id)] = content

    def texts_to_embed(self, batch: Sequence[tuple[models.PointStruct, str]]) -> list[str]:
        """Return the texts of the points that lack a dense vector which the embedder fills."""
        dense = self._plan.dense
        return (
            [] if dense is None else [text for point, text in batch if dense not in _named(point)]
        )

    def embed(
        self,
        batch: Sequence[tuple[models.PointStruct, str]],
        vectors: NDArray[np.float32] | None = None,
    ) -> list[models.PointStruct]:
        """Fill in the vectors that the points lack.

        Args:
            batch: points with their texts.
            vectors: dense vectors of :meth:`texts_to_embed`; None to embed these now.

        Raises:
            ModelOutputError: an encoder did not return one finite vector per text.
            SchemaMismatchError: its vectors do not fit the collection.
        """
        dense, sparse = self._plan.dense, self._plan.sparse
        filled = [dict(_named(point)) for point, _ in batch]
        if dense is not None and self._embedder is not None:
            rows = [row for row, vectors in enumerate(filled) if dense not in vectors]
            made = self._embed_dense([batch[row] for row in rows], vectors)
            for row, vector in zip(rows, made, strict=True):
                filled[row][dense] = vector
        if sparse is not None:
            rows = [row for row, vectors in enumerate(filled) if sparse not in vectors]
            encoded = self._encode_sparse([batch[row] for row in rows])
            for row, entries in zip(rows, encoded, strict=True):
                filled[row][sparse] = entries
        made = [
            models.PointStruct(
                id=point.id,
                payload=point.payload,
                # A collection that has one vector, without a name, takes it without one.
                vector=vectors[""] if set(vectors) == {""} else vectors,
            )
            for (point, _), vectors in zip(batch, filled, strict=True)
        ]
        return made if self._states is None else self._states(made, [text for _, text in batch])

    def _embed_dense(
        self,
        rows: Sequence[tuple[models.PointStruct, str]],
        made: NDArray[np.float32] | None,
    ) -> list[Any]:
        if not rows or self._embedder is None:
            return []
        texts = [text for _, text in rows]
        if isinstance(self._embedder, QdrantInference):
            return [self._embedder.document(text) for text in texts]
        if made is None:
            embedder = cast("Embedder", self._embedder)
            made = dense_output(embedder.name, embedder.embed_documents(texts))
        expected = (len(texts), self._plan.dimension)
        if made.shape != expected:
            raise SchemaMismatchError(
                f"The embedder {self._embedder.name!r} returned shape {made.shape} for "
                f"{len(texts)} texts; expected {expected}."
            )
        if not np.isfinite(made).all():
            for row, vector in zip(rows, made, strict=True):
                require_finite(self._embedder.name, vector, _document(row))
        listed: list[Any] = made.tolist()
        return listed

    def _encode_sparse(self, rows: Sequence[tuple[models.PointStruct, str]]) -> Sequence[Any]:
        texts = [text for _, text in rows]
        if isinstance(self._sparse, QdrantInference):
            return [self._sparse.document(text) for text in texts]
        if self._sparse is None or isinstance(self._sparse, TextIndex):
            return []
        name = self._sparse.name
        made = sparse_outputs(name, self._sparse.embed_documents(texts), len(rows))
        for row, vector in zip(rows, made, strict=True):
            require_finite(name, vector, _document(row))
        return made

    def _payload_of(self, text: str, where: str) -> dict[str, Any]:
        if self._text.keys is None:
            raise InvalidInputError(
                f"{where} is a str, but text={self._text.source!r} is not one field that it could "
                "be stored in. Pass mappings with all their fields."
            )
        *parents, field = self._text.keys
        payload: dict[str, Any] = {field: text}
        for parent in reversed(parents):
            payload = {parent: payload}
        return payload

    def _given_vectors(self, point: models.PointStruct, where: str) -> dict[str, Any]:
        given: Any = point.vector
        if not isinstance(given, Mapping):
            given = {self._plan.dense or "": given} if given is not None else {}
        known = set(self._schema.dense) | set(self._schema.sparse)
        for name, vector in given.items():
            if name not in known:
                raise SchemaMismatchError(
                    f"{where} brings a vector {name!r}, but {self._schema.collection!r} has "
                    f"{self._schema}."
                )
            params = self._schema.dense.get(name)
            if params is not None and isinstance(vector, Sequence) and vector:
                rows = vector if isinstance(vector[0], Sequence) else [vector]
                size = next((len(row) for row in rows if len(row) != params.size), params.size)
                if size != params.size:
                    raise SchemaMismatchError(
                        f"{where} brings a vector of {size} for {name or 'the unnamed vector'!r}, "
                        f"which has {params.size} dimensions in {self._schema.collection!r}."
                    )
            if not_finite(vector) is not None:
                raise InvalidInputError(
                    f"{where} brings a vector with NaN or infinity for "
                    f"{name or 'the unnamed vector'!r}; expected finite numbers."
                )
        return dict(given)


def _numbered(
    documents: Iterable[Document], ids: Iterable[PointId] | None
) -> Iterator[tuple[int, Document, PointId | None]]:
    """Yield documents with their places, and each with the next id."""
    given = None if ids is None else iter(ids)
    index = -1
    for index, document in enumerate(documents):
        point_id = None
        if given is not None:
            point_id = next(given, NO_MORE)
            if point_id is NO_MORE:
                raise InvalidInputError(
                    f"ids ended after {index}, but there are more documents; expected one id "
                    "per document."
                )
            if point_id is None:
                raise InvalidInputError(
                    f"ids has None for document {index}; expected a whole number or a UUID. "
                    "Leave ids out to have all of them made."
                )
        yield index, document, point_id
    if given is not None and next(given, NO_MORE) is not NO_MORE:
        raise InvalidInputError(
            f"There are more ids than the {index + 1} documents; expected one id per document."
        )


def _canonical(payload: dict[str, Any]) -> str:
    """The payload as a text, the same for equal payloads in every process."""
    return json.dumps(payload, sort_keys=True, ensure_ascii=False, default=str)


def _document(row: tuple[models.PointStruct, str]) -> str:
    """A document, as errors name it."""
    point, text = row
    return f"document {point.id!r} ({text!r:.60})"


def _named(point: models.PointStruct) -> Mapping[str, Any]:
    return point.vector if isinstance(point.vector, Mapping) else {}


def _checked_id(point_id: Any, where: str) -> int | str:
    if isinstance(point_id, uuid.UUID):
        return str(point_id)
    # A duration is an integer, by numpy's types.
    if isinstance(point_id, int | np.integer) and not isinstance(point_id, bool | np.timedelta64):
        if 0 <= int(point_id) < 2**64:
            return int(point_id)
    elif isinstance(point_id, str):
        try:
            return str(uuid.UUID(point_id))
        except ValueError:
            pass
    raise InvalidInputError(
        f"{where} has the id {shown(point_id)}; Qdrant takes whole numbers from 0 and UUIDs. Keep "
        "other keys in the payload."
    )
