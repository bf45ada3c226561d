"""Rerankers of other packages, called as ours.

What an object can do is read from the signatures of its methods, never from a name alone:

==========================================  =======================================================
a call with these arguments                 as of
==========================================  =======================================================
``rerank(query, documents)``                fastembed, this package's own ``Reranker``
``rerank(*, query, documents)``,            the clients of Cohere and Voyage; with a model,
``rerank(documents, query)``                :class:`ClientReranker`; langchain-cohere, Xinference
``rerank(query, documents, top_n=)``        those that would hide documents; they are asked for all
``rerank(request: RerankRequest)``          FlashRank
``predict(pairs)``, ``score(text_pairs)``   sentence-transformers, LangChain's cross-encoders
``rank(query, docs)``                       rerankers, mxbai-rerank
a function, or an object that is called     a user's own
==========================================  =======================================================
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.reranking.answers import (
    items_of,
    scores_by_index,
    scores_by_position,
    scores_of,
)
from qdrant_rerank.reranking.peer_calls import (
    DOCUMENTS,
    QUERIES,
    Call,
    binds_in_order,
    call_by_name,
    has_limit,
    request_class,
    takes_pairs,
)
from qdrant_rerank.utils.fork import ForkLock
from qdrant_rerank.utils.signatures import argument_names, is_async
from qdrant_rerank.utils.validation import a_type, further_values, require_call, shown

__all__ = ["ClientReranker", "PeerReranker", "as_reranker"]

#: (answer, number of documents, what answered) -> scores.
Read = Callable[[Any, int, str], NDArray[np.float64]]

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
        peer: the object.
        method: name of its method that is called, for messages; "" if it is called itself.
        call: calls it: (query, documents) -> its answer, or an awaitable of it.
        read: reads its answer: (answer, number of documents, what answered) -> scores.
        asynchronous: whether ``call`` returns an awaitable.
        in_turn: whether only one thread may call it at a time, as tokenizers need it.

    Attributes:
        asynchronous: whether it has to be awaited, so that only ``rerank_async`` works.
        states_encoder: the encoder that the peer runs, if it takes texts with stored states.
    """

    def __init__(
        self,
        peer: Any,
        method: str,
        call: Call,
        read: Read = scores_of,
        *,
        asynchronous: bool = False,
        in_turn: bool = False,
    ) -> None:
        self._peer = peer
        self._who = f"{_name(peer)}.{method}" if method else f"{_name(peer)}()"
        self._call = call
        self._read = read
        self._lock = _lock_of(peer) if in_turn and not asynchronous else nullcontext()
        self.asynchronous = asynchronous
        self.states_encoder: TextCrossEncoder | None = getattr(peer, "states_encoder", None)

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
        with self._lock:
            answer = self._call(query, texts)
        scores: list[float] = self._read(answer, len(texts), self._who).tolist()
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
        scores: list[float] = self._read(await answer, len(texts), self._who).tolist()
        return scores

    def awaited_only(self) -> str:
        """Return the message for a caller that cannot await it."""
        return (
            f"reranker: {self._who} is async, which needs an event loop. Pass it to "
            "AsyncHybridSearcher, which awaits it, or pass one here that is not async."
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
        InvalidInputError: the client has no such call, or the parameters have the model, the query
            or the documents.
    """

    def __init__(
        self, client: Any, model: str, *, parameters: Mapping[str, Any] | None = None
    ) -> None:
        if not isinstance(model, str) or not model:
            raise InvalidInputError(f"model is {shown(model)}; expected the name of a model.")
        _require_object(client)
        rerank = _method(client, "rerank")
        own = ("model", *QUERIES, *DOCUMENTS)
        given = {"model": model, **further_values("parameters", parameters, own)}
        call = None if rerank is None else call_by_name(rerank, given)
        if rerank is None or call is None:
            raise InvalidInputError(
                f"client is {a_type(client)}; expected an object with rerank(query=..., "
                f"documents=..., {', '.join(f'{name}=...' for name in given)})."
            )
        super().__init__(client, "rerank", call, asynchronous=is_async(rerank))
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
    found = _by_rerank(reranker) or _by_pairs(reranker) or _by_rank(reranker)
    if found is not None:
        return found
    if not hasattr(reranker, "rerank"):
        return _by_function(reranker)
    rerank = _method(reranker, "rerank")
    if rerank is not None and call_by_name(rerank, {"model": ""}) is not None:
        raise InvalidInputError(
            f"reranker is {a_type(reranker)}, whose rerank needs the name of a model. Pass "
            "reranker=ClientReranker(client, model='...'), from qdrant_rerank."
        )
    raise _cannot_be_called(reranker, "rerank")


def _by_rerank(reranker: Any) -> Any:
    """Return the object itself, if its ``rerank`` is that of a ``Reranker``; or adapt it."""
    rerank = _method(reranker, "rerank")
    if rerank is None:
        return None
    in_order = binds_in_order(rerank)
    if in_order and not has_limit(rerank) and not is_async(rerank):
        return reranker
    if not in_order and (request := request_class(rerank)) is not None:
        return PeerReranker(
            reranker,
            "rerank",
            lambda query, documents: rerank(request(query=query, passages=_passages(documents))),
            functools.partial(_scores_of_items, index="id", ordered=True),
        )
    call = call_by_name(rerank, {}, one_name=True) or (rerank if in_order else None)
    if call is None:
        return None
    return PeerReranker(reranker, "rerank", call, asynchronous=is_async(rerank))


def _by_pairs(reranker: Any) -> PeerReranker | None:
    """Adapt a method that scores (query, document) pairs."""
    rank = _method(reranker, "rank")
    ranks = rank is not None and binds_in_order(rank)
    for name in ("predict", "score"):
        method = _method(reranker, name)
        if method is None or not takes_pairs(method, ranks=ranks):
            continue
        labels = getattr(reranker, "num_labels", 1)
        if isinstance(labels, int) and labels > 1:
            raise InvalidInputError(
                f"reranker is {a_type(reranker)} with {labels} labels, so it gives no single score "
                f"per document. {ADVICE}"
            )
        quiet = "show_progress_bar" in argument_names(method)
        return PeerReranker(
            reranker,
            name,
            functools.partial(_score_pairs, method, {"show_progress_bar": False} if quiet else {}),
            scores_by_position,
            asynchronous=is_async(method),
            in_turn=True,
        )
    return None


def _score_pairs(
    method: Callable[..., Any], options: Mapping[str, Any], query: str, documents: list[str]
) -> Any:
    return method([(query, document) for document in documents], **options)


def _by_rank(reranker: Any) -> PeerReranker | None:
    """Adapt a method that orders documents."""
    rank = _method(reranker, "rank")
    call = None if rank is None else call_by_name(rank, {})
    if rank is None or call is None:
        return None
    numbered = "doc_ids" in argument_names(rank)

    def read(answer: Any, count: int, who: str) -> NDArray[np.float64]:
        index = "doc_id" if numbered else "index"
        first = next(iter(items_of(answer, who)), None)
        if isinstance(first, Mapping) and "corpus_id" in first:
            index = "corpus_id"
        return _scores_of_items(answer, count, who, index=index, ordered=numbered)

    return PeerReranker(reranker, "rank", call, read, asynchronous=is_async(rank), in_turn=True)


def _by_function(function: Any) -> PeerReranker:
    """Adapt a function, or an object that is called and names its query and its documents."""
    call = call_by_name(function, {})
    if inspect.isroutine(function) or isinstance(function, functools.partial):
        in_order = binds_in_order(function) and not has_limit(function)
        call = function if in_order else call
        if call is None:
            raise _cannot_be_called(function, "")
    elif call is None:
        raise InvalidInputError(
            f"reranker is {a_type(function)}; expected a model name, a path, a function of query "
            "and documents, an object with rerank(query, documents), predict(pairs) or rank(query, "
            f"docs), or None for the retrieval order. {ADVICE}"
        )
    return PeerReranker(function, "", call, asynchronous=is_async(function))


def _cannot_be_called(value: Any, method: str) -> InvalidInputError:
    """Say why a method, or the object itself, does not score documents for a query."""
    try:
        require_call("reranker", value, method, "query", "documents")
    except InvalidInputError as error:
        return InvalidInputError(f"{error} {ADVICE}")
    name = f"{_name(value)}.{method}" if method else _name(value)
    names = ", ".join(argument_names(getattr(value, method) if method else value))
    return InvalidInputError(
        f"reranker: {name}({names}) does not say which argument is the query, and which the "
        f"documents. {ADVICE}"
    )


def _scores_of_items(
    answer: Any, count: int, who: str, *, index: str, ordered: bool
) -> NDArray[np.float64]:
    return scores_by_index(items_of(answer, who), count, who, index=index, ordered=ordered)


def _passages(documents: Sequence[str]) -> list[dict[str, Any]]:
    """Return FlashRank's passages: new dicts, since it writes the scores into them."""
    return [{"id": row, "text": text} for row, text in enumerate(documents)]


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


def _name(value: Any) -> str:
    return str(getattr(value, "__name__", None) or type(value).__name__)
