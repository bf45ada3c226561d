"""Encoders that Qdrant runs itself: it gets the text, and makes the vectors."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.client_models import Bm25Params, Bm25Scoring, TextQuery, TextQueryInput
from qdrant_rerank.utils.validation import require_number, shown

if TYPE_CHECKING:
    from qdrant_client import models

__all__ = ["BM25_MODEL", "QdrantInference", "TextIndex"]

#: The model that every server since 1.15.3 runs; only Qdrant Cloud runs others.
BM25_MODEL = "qdrant/bm25"


@dataclass(frozen=True, slots=True)
class QdrantInference:
    """A model that Qdrant runs; for ``embedder=`` or ``sparse=``.

    ``Qdrant/bm25`` needs Qdrant 1.15.3 or newer. Other models need Qdrant Cloud and
    ``QdrantClient(..., cloud_inference=True)``. The embedded engine runs no models.

    Attributes:
        name: name of the model, such as "Qdrant/bm25".
        dimension: length of its dense vectors; needed only when ``add`` creates a collection.
        options: options of the model, such as ``{"language": "german"}``.

    Examples:
        >>> QdrantInference("Qdrant/bm25").document("melting iron").model
        'Qdrant/bm25'
    """

    name: str
    dimension: int | None = None
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InvalidInputError(
                f"name is {shown(self.name)}; expected the name of a model of Qdrant."
            )

    @property
    def built_in(self) -> bool:
        """Whether every server runs the model, not only Qdrant Cloud."""
        return self.name.lower() == BM25_MODEL

    def describe(self) -> dict[str, Any]:
        """Return what a collection records of this model, ready for JSON."""
        language = {"language": "english"} if self.built_in else {}  # the server's default
        return {"model": self.name, **language, **(self.options or {})}

    def document(self, text: str) -> "models.Document":
        """Return the document that Qdrant makes a vector of."""
        from qdrant_client import models

        options = None if self.options is None else dict(self.options)
        return models.Document(text=text, model=self.name, options=options)


@dataclass(frozen=True, slots=True)
class TextIndex:
    """Retrieval by BM25 over the text index of a payload field; for ``sparse=``.

    The collection then needs no sparse vectors. It needs Qdrant 1.20 or newer and an index with
    ``TextIndexParams(type="text", scoring=True)``, which ``add`` makes with the collection.

    Attributes:
        field: the payload field.
        k: saturation of the term frequency, 0 or more; None for Qdrant's default, 1.2.
        b: weight of the document length, 0 to 1; None for Qdrant's default, 0.75.

    Examples:
        >>> TextIndex("body").query("melting iron").text
        'melting iron'
    """

    field: str
    k: float | None = None
    b: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.field, str) or not self.field.strip():
            raise InvalidInputError(f"field is {shown(self.field)}; expected a payload field.")
        if self.k is not None:
            expected = "0 or more, and finite, or None"
            require_number("k", self.k, expected, least=0, most=sys.float_info.max)
        if self.b is not None:
            require_number("b", self.b, "0 to 1, or None", least=0, most=1)

    @property
    def name(self) -> str:
        """Its name in error messages."""
        return f"text index of {self.field}"

    def query(self, text: str) -> "TextQuery":
        """Return the query that Qdrant ranks by."""
        if self.k is None and self.b is None:
            return TextQuery(text=text)
        scoring = Bm25Scoring(bm25=Bm25Params(k=self.k, b=self.b))
        return TextQuery(text=TextQueryInput(query=text, scoring=scoring))
