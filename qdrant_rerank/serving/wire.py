"""What clients send: the bodies of the calls, checked, as one kind of request.

Fields that are not known are ignored: each client sends some of its own. A message says where the
mistake is and what was expected, and shows no text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from qdrant_rerank.utils.validation import a_type

__all__ = [
    "Body",
    "BodyError",
    "CohereBody",
    "RerankRequest",
    "ScoreBody",
    "SimilarityBody",
    "TeiBody",
    "parse",
    "parse_rerank",
    "rerank_request",
    "score_pairs",
    "tei_request",
]

Model = TypeVar("Model", bound=BaseModel)


class BodyError(Exception):
    """A body cannot be used; the message says why, without the texts in it."""


def _document(value: Any) -> Any:
    if not isinstance(value, str | dict):
        raise ValueError(f"it is {a_type(value)}; expected a text or an object with one")
    return value


Document = Annotated[str | dict[str, Any], BeforeValidator(_document)]
Count = Annotated[int, Field(ge=1)]


class Body(BaseModel):
    """A body, whose values have the types that the description names: 0 is not false."""

    model_config = ConfigDict(strict=True)


class TeiBody(Body):
    """The body of text-embeddings-inference."""

    query: str
    texts: list[str]
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = Field(
        default=None, description="False refuses texts that are longer than the model reads."
    )
    truncation_direction: Literal["right", "Right", "left", "Left"] = "right"
    model: str | None = None


class CohereBody(Body):
    """The body of Cohere, Jina, vLLM, Infinity and LiteLLM."""

    query: str
    documents: list[Document]
    model: str | None = None
    top_n: Count | None = None
    top_k: Count | None = None
    return_documents: bool | None = None
    rank_fields: list[str] | None = None
    max_tokens_per_doc: Count | None = None
    raw_scores: bool = False


class Similarity(Body):
    """A text, and others to compare with it."""

    source_sentence: str
    sentences: list[str]


class SimilarityBody(Body):
    """The body of Hugging Face's task "sentence-similarity"."""

    inputs: Similarity


class ScoreBody(Body):
    """The body of vLLM's ``/score``."""

    text_1: str | list[str]
    text_2: str | list[str]
    model: str | None = None
    raw_scores: bool = False


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """A query and its documents, whatever client sent them.

    Attributes:
        model: name of the model; None for the server's first.
        query: a text.
        texts: of the documents.
        documents: as they were sent.
        top_n: documents to return; None for all.
        return_documents: whether documents are returned, too; None for the default of the call.
        raw_scores: whether scores are logits instead of 0 to 1.
        max_tokens_per_doc: tokens of a document that are read; None for the model's limit.
        truncate: whether long texts are cut; False refuses them.
    """

    model: str | None
    query: str
    texts: list[str]
    documents: list[str | dict[str, Any]]
    top_n: int | None = None
    return_documents: bool | None = None
    raw_scores: bool = False
    max_tokens_per_doc: int | None = None
    truncate: bool = True


def parse(kind: type[Model], body: Any) -> Model:
    """Check a body.

    Args:
        kind: the model of the body.
        body: parsed JSON.

    Raises:
        BodyError: it does not fit.
    """
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise BodyError(_told(error)) from None


def parse_rerank(body: Any) -> TeiBody | CohereBody:
    """Check a body of TEI, which has ``texts``, or of Cohere and the others: ``documents``.

    Raises:
        BodyError: it does not fit.
    """
    if isinstance(body, Mapping) and "documents" not in body:
        if "texts" in body:
            return parse(TeiBody, body)
        if "query" in body:
            raise BodyError("documents: Field required; or texts, as text-embeddings-inference has")
    return parse(CohereBody, body)


def tei_request(body: TeiBody) -> RerankRequest:
    """Return what a body of TEI asks for.

    Raises:
        BodyError: it asks for texts to be cut at their start.
    """
    if body.truncate is not False and body.truncation_direction.lower() == "left":
        raise BodyError(
            "truncation_direction is left; expected right: this server cuts the end of a text."
        )
    return RerankRequest(
        body.model,
        body.query,
        body.texts,
        list(body.texts),
        return_documents=body.return_text,
        raw_scores=body.raw_scores,
        truncate=body.truncate is not False,
    )


def rerank_request(body: CohereBody) -> RerankRequest:
    """Return what a body of Cohere or Jina asks for.

    Raises:
        BodyError: a document has no text.
    """
    limits = [limit for limit in (body.top_n, body.top_k) if limit is not None]
    return RerankRequest(
        body.model,
        body.query,
        [_text(one, row, body.rank_fields) for row, one in enumerate(body.documents)],
        body.documents,
        top_n=min(limits, default=None),
        return_documents=body.return_documents,
        raw_scores=body.raw_scores,
        max_tokens_per_doc=body.max_tokens_per_doc,
    )


def score_pairs(body: ScoreBody) -> list[tuple[str, str]]:
    """Return the pairs of a ``/score`` request: one text with each, or the two lists in step.

    Raises:
        BodyError: the lists have different lengths.
    """
    first = [body.text_1] if isinstance(body.text_1, str) else body.text_1
    second = [body.text_2] if isinstance(body.text_2, str) else body.text_2
    if len(first) == 1:
        first = first * len(second)
    if len(first) != len(second):
        raise BodyError(
            f"text_1 has {len(first)} texts and text_2 has {len(second)}; expected one text_1 for "
            "all, or as many of each."
        )
    return list(zip(first, second, strict=True))


def _text(document: str | dict[str, Any], row: int, rank_fields: list[str] | None) -> str:
    """Return the text of a document: a str, its field "text", or several fields.

    An object without "text" is read as its fields one per line, "name: value", as Cohere does.
    """
    if isinstance(document, str):
        return document
    if rank_fields is None and isinstance(document.get("text"), str):
        return str(document["text"])
    names = list(document) if rank_fields is None else rank_fields
    found = [
        f"{name}: {document[name]}"
        for name in names
        if isinstance(document.get(name), str | int | float)
    ]
    if not found:
        wanted = "'text' or any other field" if rank_fields is None else "a field of rank_fields"
        raise BodyError(f"documents.{row} has no text; expected a text or a number in {wanted}.")
    return "\n".join(found)


def _told(error: ValidationError) -> str:
    """Name the places of the first mistakes, and what was expected there; no value is shown."""
    mistakes = error.errors(include_url=False, include_context=False, include_input=False)
    told = []
    for one in mistakes[:3]:
        place = ".".join(str(part) for part in one["loc"]) or "the body"
        said = one["msg"].removeprefix("Value error, ")
        if one["type"] == "model_type":  # which names a class of this module
            said = "Input should be a valid dictionary (an object of JSON)"
        told.append(f"{place}: {said}")
    more = f" (and {len(mistakes) - 3} more)" if len(mistakes) > 3 else ""
    return "; ".join(told) + more
