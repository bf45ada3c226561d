"""Rerankers of other packages, called as ours.

What an object can do is read from the signatures of its methods, never from a name alone:

==========================================  =======================================================
a call with these arguments                 as of
==========================================  =======================================================
``rerank(query, documents)``                fastembed, this package's own ``Reranker``
``rerank(*, query, documents)``,            the clients of Cohere and Voyage; with a model,
``rerank(documents, query)``                :class:`ClientReranker`; langchain-cohere, Xinference
``rerank(request: RerankRequest)``          FlashRank
``predict(pairs)``, ``score(text_pairs)``   sentence-transformers, LangChain's cross-encoders
``rank(query, docs)``                       rerankers, mxbai-rerank
a function of query and documents           a user's own
==========================================  =======================================================
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.reranking.answers import (
    items_of,
    scores_by_index,
    scores_by_position,
    scores_of,
)
from qdrant_rerank.utils.fork import ForkLock
from qdrant_rerank.utils.validation import a_type, named_values, require_call, shown

__all__ = ["ClientReranker", "PeerReranker", "as_reranker"]

Call = Callable[[str, list[str]], Any]
Read = Callable[[Any, int], NDArray[np.float64]]

QUERIES = ("query", "question")
DOCUMENTS = ("documents", "docs", "texts", "passages")
PAIRS = frozenset({"pairs", "text_pairs", "sentence_pairs"})
# Names that classifiers of single texts have, too: then ``rank`` must be there.
INPUTS = frozenset({"inputs", "sentences"})
TOP = ("top_n", "top_k")
ADVICE = (
    "Adapt it by a function, and pass that:\n"
    "    def scores(query, documents):\n"
    "        return [...]  # one float per document, in the order of the documents"
)


# Every adapter of a peer shares its lock, since searchers may share the peer.
_locks: "WeakKeyDictionary[Any, ForkLock]" = WeakKeyDictionary()
_locks_guard = ForkLock()


class PeerReranker:
    """A reranker of another package as a ``Reranker``.

    Args:
        peer: the object, for messages.
        call: asks it: (query, documents) -> its answer, or an awaitable of it.
        read: reads its answer: (answer, number of documents) -> scores.
        asynchronous: whether ``call`` returns an awaitable.
        in_turn: whether only one thread may call it at a time, as tokenizers need it.

    Attributes:
        asynchronous: whether it has to be awaited, so that only ``rerank_async`` works.
    """

    def __init__(
        self,
        peer: Any,
        call: Call,
        read: Read,
        *,
        asynchronous: bool = False,
        in_turn: bool = False,
    ) -> None:
        self._peer = peer
        self._call = call
        self._read = read
        self._lock = _lock_of(peer) if in_turn else None
        self.asynchronous = asynchronous

    def rerank(self, query: str, documents: Sequence[str]) -> list[float]:
        """Return one score per document, in input order; higher is more relevant.

        Raises:
            InvalidInputError: the peer has to be awaited.
            ModelOutputError: it did not return one finite score per document.
        """
        if self.asynchronous:
            raise InvalidInputError(self.awaited_only())
        texts = list(documents)
        if not texts:
            return []
        if self._lock is None:
            answer = self._call(query, texts)
        else:
            with self._lock:
                answer = self._call(query, texts)
        scores: list[float] = self._read(answer, len(texts)).tolist()
        return scores

    async def rerank_async(self, query: str, documents: Sequence[str]) -> list[float]:
        """Return what :meth:`rerank` returns, of a peer that has to be awaited.

        Raises:
            ModelOutputError: the peer did not return one finite score per document.
        """
        texts = list(documents)
        if not texts:
            return []
        answer: Awaitable[Any] = self._call(query, texts)
        scores: list[float] = self._read(await answer, len(texts)).tolist()
        return scores

    def awaited_only(self) -> str:
        """Return the message for a caller that cannot await it."""
        return (
            f"reranker: {_name(self._peer)}.rerank is async, which needs an event loop. Pass it to "
            "AsyncHybridSearcher, which awaits it, or pass the synchronous client here."
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_name(self._peer)})"


class ClientReranker(PeerReranker):
    """A client of a reranking service, and the model that it asks for.

    Args:
        client: an object with ``rerank(query=..., documents=..., model=...)``, such as
            ``cohere.ClientV2`` or ``voyageai.Client``. Their async kinds work in
            ``AsyncHybridSearcher``.
        model: name of the model.
        parameters: further arguments of each call, such as ``{"max_tokens_per_doc": 4096}``.

    Raises:
        InvalidInputError: the client has no such call.
    """

    def __init__(
        self, client: Any, model: str, *, parameters: Mapping[str, Any] | None = None
    ) -> None:
        if not isinstance(model, str) or not model:
            raise InvalidInputError(f"model is {shown(model)}; expected the name of a model.")
        _require_object(client)
        rerank = _method(client, "rerank")
        given = {"model": model, **named_values("parameters", parameters)}
        call = None if rerank is None else _by_keyword(rerank, given)
        if rerank is None or call is None:
            raise InvalidInputError(
                f"client is {a_type(client)}; expected an object with rerank(query=..., "
                f"documents=..., {', '.join(f'{name}=...' for name in given)})."
            )
        super().__init__(
            client,
            call,
            _reader(f"{_name(client)}.rerank"),
            asynchronous=_is_async(rerank),
        )
        self.model = model

    def __repr__(self) -> str:
        return f"ClientReranker({_name(self._peer)}, {self.model!r})"


def as_reranker(reranker: Any) -> Any:
    """Return an object with ``rerank(query, documents)``, or a ``PeerReranker`` around it.

    Raises:
        InvalidInputError: the object has no call that gives scores of documents for a query. The
            message says what it lacks, and how to adapt it.
    """
    _require_object(reranker)
    rerank = _method(reranker, "rerank")
    if rerank is not None and (found := _by_rerank(reranker, rerank)) is not None:
        return found
    found = _by_pairs(reranker) or _by_rank(reranker)
    if found is not None:
        return found
    if inspect.isroutine(reranker) or isinstance(reranker, functools.partial):
        return _by_function(reranker)
    if not hasattr(reranker, "rerank"):
        raise InvalidInputError(
            f"reranker is {a_type(reranker)}; expected a model name, a path, an object with "
            "rerank(query, documents), predict(pairs) or rank(query, docs), or None for the "
            f"retrieval order. {ADVICE}"
        )
    if rerank is not None and _by_keyword(rerank, {"model": ""}) is not None:
        raise InvalidInputError(
            f"reranker is {a_type(reranker)}, whose rerank needs the name of a model. Pass "
            "reranker=ClientReranker(client, model='...'), from qdrant_rerank."
        )
    _require_call(reranker, "rerank")
    return reranker


def _by_rerank(reranker: Any, rerank: Callable[..., Any]) -> Any:
    name = f"{_name(reranker)}.rerank"
    if _binds_in_order(rerank):
        if not _is_async(rerank):
            return reranker
        return PeerReranker(reranker, rerank, _reader(name), asynchronous=True)
    if (request := _request_class(rerank)) is not None:
        return PeerReranker(
            reranker,
            lambda query, documents: rerank(request(query=query, passages=_passages(documents))),
            lambda answer, count: scores_by_index(
                items_of(answer, name), count, name, index="id", ordered=True
            ),
        )
    call = _by_keyword(rerank, {})
    if call is None:
        return None
    return PeerReranker(reranker, call, _reader(name), asynchronous=_is_async(rerank))


def _by_pairs(reranker: Any) -> Any:
    """Adapt a method that scores (query, document) pairs."""
    for name in ("predict", "score"):
        method = _method(reranker, name)
        names = _names(method)
        if method is None or not names or not _binds(method, None):
            continue
        ranks = _method(reranker, "rank")
        if names[0] not in PAIRS and not (
            names[0] in INPUTS and ranks is not None and _binds_in_order(ranks)
        ):
            continue
        labels = getattr(reranker, "num_labels", 1)
        if isinstance(labels, int) and labels > 1:
            raise InvalidInputError(
                f"reranker is {a_type(reranker)} with {labels} labels, so it gives no single score "
                f"per document. {ADVICE}"
            )
        quiet = {"show_progress_bar": False} if "show_progress_bar" in names else {}
        call = functools.partial(_score_pairs, method, quiet)
        who = f"{_name(reranker)}.{name}"
        return PeerReranker(
            reranker,
            call,
            functools.partial(scores_by_position, who=who),
            asynchronous=_is_async(method),
            in_turn=not _is_async(method),
        )
    return None


def _score_pairs(
    method: Callable[..., Any], options: Mapping[str, Any], query: str, documents: list[str]
) -> Any:
    return method([(query, document) for document in documents], **options)


def _by_rank(reranker: Any) -> Any:
    """Adapt a method that orders documents."""
    rank = _method(reranker, "rank")
    if rank is None:
        return None
    numbered = "doc_ids" in _names(rank)
    call = _by_keyword(rank, {})
    if call is None:
        return None
    who = f"{_name(reranker)}.rank"

    def read(answer: Any, count: int) -> NDArray[np.float64]:
        items = items_of(answer, who)
        index = "doc_id" if numbered else "index"
        if items and isinstance(items[0], Mapping) and "corpus_id" in items[0]:
            index = "corpus_id"
        return scores_by_index(items, count, who, index=index, ordered=numbered)

    return PeerReranker(
        reranker, call, read, asynchronous=_is_async(rank), in_turn=not _is_async(rank)
    )


def _by_function(function: Callable[..., Any]) -> PeerReranker:
    call = function if _binds_in_order(function) else _by_keyword(function, {})
    if call is None:
        _require_call(function, "")
        raise InvalidInputError(f"reranker: {_name(function)} takes no documents. {ADVICE}")
    who = f"{_name(function)}()"
    return PeerReranker(function, call, _reader(who), asynchronous=_is_async(function))


def _require_call(value: Any, method: str) -> None:
    try:
        require_call("reranker", value, method, "query", "documents")
    except InvalidInputError as error:
        raise InvalidInputError(f"{error} {ADVICE}") from error


def _by_keyword(function: Callable[..., Any], given: Mapping[str, Any]) -> Call | None:
    """Return a call by the names of the arguments; None if there are no such names.

    A limit of results is set to the number of documents, since many have a default.
    """
    names = _names(function)
    query = next((name for name in QUERIES if name in names), None)
    documents = next((name for name in DOCUMENTS if name in names), None)
    if query is None or documents is None:
        return None
    top = next((name for name in TOP if name in names and name not in given), None)
    numbered = "doc_ids" in names
    sample = {query: "", documents: [], **given}
    if not _binds(function, **sample):
        return None

    def call(text: str, texts: list[str]) -> Any:
        arguments = {query: text, documents: texts, **given}
        if top is not None:
            arguments[top] = len(texts)
        if numbered:
            arguments["doc_ids"] = list(range(len(texts)))
        return function(**arguments)

    return call


def _reader(who: str) -> Read:
    return functools.partial(scores_of, who=who)


def _passages(documents: Sequence[str]) -> list[dict[str, Any]]:
    """Return FlashRank's passages: new dicts, since it writes the scores into them."""
    return [{"id": row, "text": text} for row, text in enumerate(documents)]


def _request_class(rerank: Callable[..., Any]) -> Any:
    """Return the class of the one argument, if that holds a query and passages; else None."""
    try:
        [only] = inspect.signature(rerank, eval_str=True).parameters.values()
    except (TypeError, ValueError, NameError):
        return None
    kind = only.annotation
    if not inspect.isclass(kind) or kind is inspect.Parameter.empty:
        return None
    return kind if {"query", "passages"} <= set(_names(kind)) else None


def _lock_of(peer: Any) -> ForkLock:
    try:
        with _locks_guard:
            return _locks.setdefault(peer, ForkLock())
    except TypeError:  # it has no hash, or no weak references
        return ForkLock()


def _require_object(value: Any) -> None:
    if inspect.isclass(value):
        raise InvalidInputError(
            f"reranker is the class {value.__name__}; expected an object. Pass "
            f"{value.__name__}(...)."
        )


def _method(value: Any, name: str) -> Callable[..., Any] | None:
    method = getattr(value, name, None)
    return method if callable(method) else None


def _names(function: Callable[..., Any] | None) -> list[str]:
    """Return the names of the arguments; none if Python does not know them."""
    if function is None:
        return []
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [name for name, one in parameters.items() if one.kind not in kinds]


def _binds(function: Callable[..., Any], *given: Any, **named: Any) -> bool:
    try:
        inspect.signature(function).bind(*given, **named)
    except TypeError:
        return False
    except ValueError:  # a function in C, which does not say
        return not named
    return True


def _binds_in_order(function: Callable[..., Any]) -> bool:
    """Whether it can be called with query and documents, in this order."""
    swapped = _names(function)[:2]
    if len(swapped) == 2 and swapped[0] in DOCUMENTS and swapped[1] in QUERIES:
        return False
    return _binds(function, "", [])


def _is_async(function: Callable[..., Any]) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function)


def _name(value: Any) -> str:
    return str(getattr(value, "__name__", None) or type(value).__name__)
