"""Embedders of other packages as an ``Embedder``: each is known by the calls that it takes.

A method's name alone decides nothing: its signature must take the arguments that we pass. So an
object that only happens to have an ``encode`` is refused when the searcher is made, not later.
"""

from collections.abc import Callable
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from qdrant_rerank.embedders.batched import AsyncEmbedder, BatchedEmbedder
from qdrant_rerank.embedders.checks import sparse_output, sparse_outputs
from qdrant_rerank.embedders.fastembed_adapters import FastembedDense
from qdrant_rerank.embedders.model_names import model_name, short_name
from qdrant_rerank.embedders.sentence_transformers_adapters import SentenceTransformerDense
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.types import Embedder
from qdrant_rerank.utils.fork import ForkLock
from qdrant_rerank.utils.signatures import (
    default_of,
    first_annotation,
    is_async,
    signature_of,
    takes,
    takes_anything,
)
from qdrant_rerank.utils.validation import a_type

if TYPE_CHECKING:
    from qdrant_client.models import SparseVector

__all__ = [
    "ForeignEmbedder",
    "ForeignSparse",
    "LangChainSparse",
    "adapted_embedder",
    "embeds_async",
]

TWO_LINES = (
    "To adapt it, write two lines and pass embedder=embed:\n"
    "    def embed(texts):  # a list of str\n"
    "        return [...]  # one vector per text, in the same order"
)
#: The calls that embedders take, for errors.
CALLS = {
    "embed_query": "embed_query(text)",
    "embed_documents": "embed_documents(texts)",
    "query_embed": "query_embed(text)",
    "passage_embed": "passage_embed(texts)",
    "encode": "encode(texts, show_progress_bar=False)",
    "get_query_embedding": "get_query_embedding(text)",
    "get_text_embedding_batch": "get_text_embedding_batch(texts)",
    "__call__": "a function of texts",
}


class Encodes(Protocol):
    """A SentenceTransformer, or a StaticModel of model2vec."""

    @property
    def encode(self) -> Callable[..., Any]:
        """Returns one vector per text."""


class EmbedsDocuments(Protocol):
    """LangChain's ``Embeddings``."""

    @property
    def embed_query(self) -> Callable[..., Any]:
        """Returns the vector of a text."""

    @property
    def embed_documents(self) -> Callable[..., Any]:
        """Returns one vector per text."""


class EmbedsPassages(Protocol):
    """fastembed's ``TextEmbedding``."""

    @property
    def query_embed(self) -> Callable[..., Any]:
        """Returns one vector per query."""

    @property
    def passage_embed(self) -> Callable[..., Any]:
        """Returns one vector per text."""


class GetsEmbeddings(Protocol):
    """An embedding model of LlamaIndex."""

    @property
    def get_query_embedding(self) -> Callable[..., Any]:
        """Returns the vector of a text."""

    @property
    def get_text_embedding_batch(self) -> Callable[..., Any]:
        """Returns one vector per text."""


#: What ``embedder=`` takes of other packages, besides names and directories.
ForeignEmbedder: TypeAlias = (
    Encodes | EmbedsDocuments | EmbedsPassages | GetsEmbeddings | Callable[[list[str]], Any]
)
#: What ``sparse=`` takes of other packages, besides names and directories.
ForeignSparse: TypeAlias = Encodes | EmbedsPassages | EmbedsDocuments


class StaticModelDense(BatchedEmbedder):
    """A ``StaticModel`` of model2vec, which has no prompts.

    Args:
        model: the loaded model.
    """

    def __init__(self, model: Any) -> None:
        # It knows the model that it was made of, and not its own name.
        base = getattr(model, "base_model_name", None)
        own = model_name(model)
        super().__init__(f"{own} of {short_name(base)}" if base else own, model.dim)
        self._model = model
        self._lock = ForkLock()  # it sets its tokenizer's max length at every call

    def _queries(self, texts: list[str]) -> Any:
        with self._lock:
            return self._model.encode(texts, show_progress_bar=False)

    _documents = _queries


class LangChainDense(BatchedEmbedder):
    """An ``Embeddings`` of LangChain.

    Args:
        model: the object.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model_name(model, "model_name", "model", "model_id"))
        self._model = model

    def _queries(self, texts: list[str]) -> Any:
        return [self._model.embed_query(text) for text in texts]

    def _documents(self, texts: list[str]) -> Any:
        return self._model.embed_documents(texts)


class LangChainSparse:
    """langchain-qdrant's ``SparseEmbeddings`` as a ``SparseEncoder``.

    Args:
        model: the object.

    Attributes:
        name: name of the model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.name = model_name(model, "model_name", "_model_name")

    def embed_query(self, text: str) -> "SparseVector":
        """Return the vector of a query."""
        return sparse_output(self.name, self._model.embed_query(text))

    def embed_documents(self, texts: list[str]) -> "list[SparseVector]":
        """Return one vector per text, in input order."""
        return sparse_outputs(self.name, self._model.embed_documents(texts), len(texts))


class LlamaIndexDense(BatchedEmbedder):
    """An embedding model of LlamaIndex.

    Args:
        model: the object.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model_name(model, "model_name"))
        self._model = model

    def _queries(self, texts: list[str]) -> Any:
        return [self._model.get_query_embedding(text) for text in texts]

    def _documents(self, texts: list[str]) -> Any:
        return self._model.get_text_embedding_batch(texts)


class FunctionDense(BatchedEmbedder):
    """A function that returns one vector per text, for queries and documents alike.

    Args:
        function: takes a list of texts.
    """

    def __init__(self, function: Callable[[list[str]], Any]) -> None:
        super().__init__(model_name(function))
        self._function = function

    def _queries(self, texts: list[str]) -> Any:
        return self._function(texts)

    _documents = _queries


class AsyncFunctionDense(AsyncEmbedder):
    """A coroutine function that returns one vector per text, for queries and documents alike.

    Args:
        function: takes a list of texts.
    """

    def __init__(self, function: Callable[[list[str]], Any]) -> None:
        super().__init__(model_name(function))
        self._function = function

    async def _aqueries(self, texts: list[str]) -> Any:
        return await self._function(texts)

    _adocuments = _aqueries


class AsyncObjectDense(AsyncEmbedder):
    """An object whose ``embed_query`` or ``embed_documents``, or both, are coroutine methods.

    Args:
        model: the object; its ``name`` and ``dimension`` are used if it has them.
    """

    def __init__(self, model: Any) -> None:
        dimension = getattr(model, "dimension", None)
        super().__init__(
            model_name(model, "name", "model_name", "model"),
            dimension if isinstance(dimension, int) else None,
        )
        self._model = model

    async def _aqueries(self, texts: list[str]) -> Any:
        return [await _awaited(self._model.embed_query(text)) for text in texts]

    async def _adocuments(self, texts: list[str]) -> Any:
        return await _awaited(self._model.embed_documents(texts))


def adapted_embedder(model: Any, *, in_event_loop: bool) -> Embedder | AsyncEmbedder:
    """Return an object of another package as an embedder.

    Args:
        model: what the caller passed as ``embedder=``: no name, no path, and no ``Embedder``.
        in_event_loop: whether its calls can be awaited.

    Raises:
        InvalidInputError: it cannot be used; the message says why, and what would adapt it.
    """
    _refuse_other_kinds(model)
    if embeds_async(model):
        if not in_event_loop:
            raise InvalidInputError(
                f"embedder: {_async_call(model)} is async, and HybridSearcher has no event loop to "
                "await it in. Use AsyncHybridSearcher, or pass a function that returns the "
                "vectors themselves."
            )
        by_method = takes(model, "embed_query", "") and takes(model, "embed_documents", [""])
        return AsyncObjectDense(model) if by_method else AsyncFunctionDense(_of_lists(model))
    if takes(model, "query_embed", "") and takes(model, "passage_embed", [""]):
        return FastembedDense(model)
    if takes(model, "embed_query", "") and takes(model, "embed_documents", [""]):
        return LangChainDense(model)
    if takes(model, "encode", [""], keywords=("show_progress_bar", "convert_to_numpy")):
        return SentenceTransformerDense(model)
    if takes(model, "encode", [""], keywords=("show_progress_bar",)) and isinstance(
        getattr(model, "dim", None), int
    ):
        return StaticModelDense(model)
    if takes(model, "get_query_embedding", "") and takes(model, "get_text_embedding_batch", [""]):
        return LlamaIndexDense(model)
    if callable(model):
        return FunctionDense(_of_lists(model))
    raise _not_an_embedder(model)


async def _awaited(made: Any) -> Any:
    """Return a result, awaited if it has to be: one of the two methods may be none to await."""
    return await made if isawaitable(made) else made


def embeds_async(model: Any) -> bool:
    """Return whether an object, or a function, embeds by coroutines."""
    return _async_call(model) is not None


def _async_call(model: Any) -> str | None:
    """Return the name of the coroutine function that embeds; None if there is none."""
    methods = ("embed_query", "embed_documents")
    if all(callable(getattr(model, method, None)) for method in methods):
        found = [method for method in methods if is_async(model, method)]
        return f"{type(model).__name__}.{found[-1]}" if found else None
    return model_name(model) if is_async(model) else None


def _of_lists(function: Callable[[list[str]], Any]) -> Callable[[list[str]], Any]:
    """Return a function, unless it takes something else than a list of texts."""
    # A torch module takes any arguments, and texts are not among those that it can read.
    if not takes(function, "", [""]) or takes_anything(function):
        raise _not_an_embedder(function)
    if first_annotation(function) in {str, "str"}:
        raise InvalidInputError(
            f"embedder is the function {model_name(function)!r} of one text; expected one that "
            "takes a list of texts and returns one vector per text. Pass "
            "embedder=lambda texts: [your_function(text) for text in texts]."
        )
    return function


def _refuse_other_kinds(model: Any) -> None:
    """Raise InvalidInputError for models that are known and do not make one vector per text."""
    if isinstance(model, type):
        raise InvalidInputError(
            f"embedder is the class {model.__name__}; expected an object. Pass "
            f"{model.__name__}(...)."
        )
    reason = None
    if takes(model, "encode", [""], keywords=("convert_to_sparse_tensor",)):
        reason = "a sparse encoder. Pass it as sparse="
    elif takes(model, "predict", [("", "")], keywords=("convert_to_numpy",)):
        reason = "a cross-encoder, which scores pairs. Pass it as reranker="
    elif default_of(model, "encode", "output_value") == "token_embeddings" or _is_colbert(model):
        reason = (
            "a late-interaction model, which returns one vector per token. Retrieve by an embedder "
            "of one vector per text; multivectors are for the second stage"
        )
    elif takes(model, "embed", keywords=("images",)) or takes(model, "embed_image", [""]):
        reason = "a model of images. Pass one of texts"
    if reason is not None:
        raise InvalidInputError(f"embedder is {a_type(model)}, {reason}.")


def _is_colbert(model: Any) -> bool:
    """Whether it is of fastembed's late interaction, whose calls are those of ``TextEmbedding``."""
    bases = type(model).__mro__
    return any(base.__module__.startswith("fastembed.late_interaction") for base in bases)


def _not_an_embedder(model: Any) -> InvalidInputError:
    """Say what was seen: nothing that embeds, or a method whose signature does not fit."""
    seen = a_type(model)
    for method, call in CALLS.items():
        signature = signature_of(model, method)
        if signature is not None:
            seen += f", and its {method}{signature} cannot be called as {call}"
            break
    return InvalidInputError(
        f"embedder is {seen}; expected a model name, a directory, a SentenceTransformer, a "
        "StaticModel of model2vec, a fastembed TextEmbedding, LangChain's Embeddings, a LlamaIndex "
        "embedding model, a function of a list of texts, or an object with name, dimension, "
        f"embed_query and embed_documents. {TWO_LINES}"
    )
