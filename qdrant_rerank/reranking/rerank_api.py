"""The calls of reranking servers: what is sent, and where the scores are in the answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["APIS", "ApiName", "RerankApi"]

ApiName = Literal[
    "cohere", "jina", "tei", "vllm", "vllm-score", "infinity", "litellm", "voyage", "elastic"
]
Body = Callable[[str | None, str, Sequence[str]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class RerankApi:
    """How a server is asked.

    Attributes:
        path: of the call, where the URL has none; "" where the URL must have it.
        body: (model, query, documents) -> what is sent.
        batch_size: documents per request, at most, unless the caller says: the server's limit.
        needs_model: whether every server of this kind has several models.
        key: what stands before the key in the header Authorization.
    """

    path: str
    body: Body
    batch_size: int
    needs_model: bool = True
    key: str = "Bearer"

    @property
    def own_fields(self) -> list[str]:
        """Names of the fields that each request has; its options, which may be changed, are not."""
        fields = self.body("", "", [])
        return [name for name, value in fields.items() if not isinstance(value, bool)]


def _named(model: str | None) -> dict[str, Any]:
    return {} if model is None else {"model": model}


def _shape(documents: str, top: str | None = "top_n", **fixed: Any) -> Body:
    """Return what makes a body with these names of its fields.

    The limit of results is sent, since some servers have one of their own.
    """

    def body(model: str | None, query: str, texts: Sequence[str]) -> dict[str, Any]:
        limit = {} if top is None else {top: len(texts)}
        return {**_named(model), "query": query, documents: list(texts), **limit, **fixed}

    return body


def _score(model: str | None, query: str, texts: Sequence[str]) -> dict[str, Any]:
    return {**_named(model), "text_1": query, "text_2": list(texts)}


# Documents per request. TEI takes 32 texts unless it is started with --max-client-batch-size.
MANY, TEI_MANY = 1000, 32

APIS: Mapping[ApiName, RerankApi] = {
    "cohere": RerankApi("/v2/rerank", _shape("documents"), MANY),
    "jina": RerankApi("/v1/rerank", _shape("documents", return_documents=False), MANY),
    "tei": RerankApi(
        "/rerank",
        _shape("texts", None, raw_scores=False, return_text=False, truncate=True),
        TEI_MANY,
        needs_model=False,
    ),
    "vllm": RerankApi("/v1/rerank", _shape("documents"), MANY, needs_model=False),
    "vllm-score": RerankApi("/score", _score, MANY, needs_model=False),
    "infinity": RerankApi(
        "/rerank", _shape("documents", return_documents=False), MANY, needs_model=False
    ),
    "litellm": RerankApi("/rerank", _shape("documents"), MANY),
    "voyage": RerankApi("/v1/rerank", _shape("documents", "top_k", return_documents=False), MANY),
    "elastic": RerankApi("", _shape("input", None), MANY, needs_model=False, key="ApiKey"),
}
