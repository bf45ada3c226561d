"""How an object of another package is called with a query and documents: by its signatures."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from qdrant_rerank.utils.signatures import argument_names, binds

__all__ = ["Call", "binds_in_order", "call_by_name", "has_limit", "request_class", "takes_pairs"]

#: (query, documents) -> the answer, or an awaitable of it.
Call = Callable[[str, list[str]], Any]

QUERIES = ("query", "question")
DOCUMENTS = ("documents", "docs", "texts", "passages")
PAIRS = frozenset({"pairs", "text_pairs", "sentence_pairs"})
#: Names of arguments that classifiers of single texts have, too: then ``rank`` must be there.
INPUTS = frozenset({"inputs", "sentences"})
#: Names of a limit of results.
TOP = ("top_n", "top_k")


def binds_in_order(function: Callable[..., Any]) -> bool:
    """Return whether a function can be called with query and documents, in this order."""
    first, second, *_ = *argument_names(function), "", ""
    swapped = first in DOCUMENTS or (second in QUERIES and first not in QUERIES)
    return not swapped and binds(function, "", [])


def has_limit(function: Callable[..., Any]) -> bool:
    """Return whether a function has a limit of results, which may hide documents."""
    return not {*TOP}.isdisjoint(argument_names(function))


def call_by_name(
    function: Callable[..., Any], given: Mapping[str, Any], *, one_name: bool = False
) -> Call | None:
    """Return a call by the names of the arguments; None if there are no such names.

    A limit of results is set to the number of documents, since many have a default.

    Args:
        function: the function.
        given: further arguments of each call.
        one_name: whether one of the two names is enough, where the two arguments come first.
    """
    names = argument_names(function)
    query = next((name for name in QUERIES if name in names), None)
    documents = next((name for name in DOCUMENTS if name in names), None)
    if one_name and binds(function, "", []) and not binds(function, ""):  # both are required
        other = {names[0]: names[1], names[1]: names[0]} if len(names) > 1 else {}
        documents = documents or other.get(str(query))
        query = query or other.get(str(documents))
    if query is None or documents is None:
        return None
    top = next((name for name in TOP if name in names and name not in given), None)
    numbered = "doc_ids" in names
    if not binds(function, **{query: "", documents: [], **given}):
        return None

    def call(text: str, texts: list[str]) -> Any:
        arguments = {query: text, documents: texts, **given}
        if top is not None:
            arguments[top] = len(texts)
        if numbered:
            arguments["doc_ids"] = list(range(len(texts)))
        return function(**arguments)

    return call


def takes_pairs(function: Callable[..., Any], *, ranks: bool) -> bool:
    """Return whether a function scores a list of (query, document) pairs.

    Args:
        function: the function.
        ranks: whether its object also ranks documents.
    """
    [first, *_] = *argument_names(function), ""
    return (first in PAIRS or (first in INPUTS and ranks)) and binds(function, None)


def request_class(function: Callable[..., Any]) -> Any:
    """Return the class of the only argument, if that holds a query and passages; else None."""
    try:
        [only] = inspect.signature(function, eval_str=True).parameters.values()
    except (TypeError, ValueError, NameError):
        return None
    kind = only.annotation
    if not inspect.isclass(kind) or kind is inspect.Parameter.empty:
        return None
    return kind if {"query", "passages"} <= set(argument_names(kind)) else None
