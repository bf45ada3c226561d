"""Checks of arguments. Each error says what was seen and what was expected."""

import inspect
import math
import os
from collections.abc import AsyncIterable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from qdrant_rerank.errors import InvalidInputError

__all__ = [
    "MOST",
    "a_type",
    "as_pairs",
    "as_path",
    "as_texts",
    "clean_key",
    "further_values",
    "require_blend",
    "require_call",
    "require_choice",
    "require_count",
    "require_flag",
    "require_number",
    "require_pairs",
    "require_positive",
    "require_query",
    "require_several",
    "shown",
]

#: Largest number of things that Python itself counts.
MOST = 2**63 - 1


def shown(value: Any, length: int = 80) -> str:
    """Return a value as a message shows it, cut to ``length`` characters.

    >>> shown("iron"), shown(10**5000), shown([10**5000])
    ("'iron'", 'a whole number of 16,610 bits', 'a list that cannot be shown')
    """
    try:
        return f"{value!r:.{length}}"
    except Exception:  # Python writes no more than 4,300 digits, and a class may write none
        if isinstance(value, int):
            return f"a whole number of {value.bit_length():,} bits"
        return f"{a_type(value)} that cannot be shown"


def a_type(value: Any) -> str:
    """Return the type of a value with its article.

    >>> a_type(3), a_type([])
    ('an int', 'a list')
    """
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def as_path(name: str, value: Any) -> Path:
    """Return a path that is a str, a Path or another ``os.PathLike`` of text.

    Raises:
        InvalidInputError: it is none of these, or has a null character.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise InvalidInputError(f"{name} is {shown(value)}; expected a str or a Path.")
    if "\0" in os.fspath(value):
        raise InvalidInputError(f"{name} is {shown(value)}; no path has a null character.")
    return Path(value)


def clean_key(name: str, value: str | None) -> str | None:
    """Return an API key or a token without the white space around it; None if it is blank.

    A key that is read from a file often ends in a newline, which no HTTP header can hold.

    Raises:
        InvalidInputError: there is white space, a control character or a character that is not
            ASCII within the key. The message does not show the key.
    """
    key = (value or "").strip()
    broken = [place for place, c in enumerate(key, start=1) if not "!" <= c <= "~"]
    if broken:
        raise InvalidInputError(
            f"{name} has {len(key)} characters, and number {broken[0]} is white space, a control "
            "character or not ASCII, which no HTTP header can hold. Copy the key again."
        )
    return key or None


def require_call(name: str, value: Any, method: str, *arguments: str) -> None:
    """Raise InvalidInputError unless a method can be called with these positional arguments.

    A method whose signature Python does not know counts as one that can.

    Args:
        name: name of the argument that holds the object, for messages.
        value: the object.
        method: name of the method; "" if the object itself is called.
        arguments: names of the arguments, for messages.
    """
    call = f"{method}({', '.join(arguments)})"
    if method and inspect.isclass(value):
        raise InvalidInputError(
            f"{name} is the class {value.__name__}; expected an object. Pass {value.__name__}(...)."
        )
    function = getattr(value, method, None) if method else value
    if not callable(function):
        raise InvalidInputError(f"{name} is {a_type(value)}; expected an object with {call}.")
    found = f"{type(value).__name__}.{method}" if method else getattr(value, "__name__", name)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidInputError(
            f"{name}: {found} is async; expected a function that returns its result. Pass an "
            "object that runs it, such as with asyncio.run."
        )
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise InvalidInputError(
            f"{name}: {found}{signature} cannot be called as {call}: {error}. Pass an object "
            f"whose {method or 'call'} takes these arguments by position."
        ) from error


def require_query(query: Any) -> None:
    """Raise InvalidInputError unless the query is a str that is not blank."""
    if not isinstance(query, str):
        raise InvalidInputError(f"query is {a_type(query)}; expected a str.")
    if not query.strip():
        raise InvalidInputError("query is empty or white space; expected a text to search for.")


def require_several(name: str, values: Any) -> None:
    """Raise InvalidInputError for a single value where several are expected, and for a table."""
    if values is None:
        raise InvalidInputError(f"{name} is None; expected several, such as a list.")
    one = {"queries": "query"}.get(name, name.removesuffix("s"))
    if isinstance(values, AsyncIterable):
        raise InvalidInputError(
            f"{name} is {a_type(values)}, which only an event loop can iterate. Collect it before: "
            f"[{one} async for {one} in {name}]."
        )
    is_model = hasattr(type(values), "model_fields")  # pydantic's; iterating gives its fields
    if isinstance(values, str | bytes | Mapping) or is_model or not isinstance(values, Iterable):
        raise InvalidInputError(
            f"{name} is one {type(values).__name__}; expected several. Pass [{one}]."
        )
    if hasattr(values, "columns"):
        raise InvalidInputError(
            f"{name} is {a_type(values)}, and iterating it gives only the names of its columns. "
            f"Pass one column, such as df['text'], or its rows: {_rows(values)}."
        )


def _rows(table: Any) -> str:
    """Return the call that gives the rows of a table: of pandas, or of polars."""
    return "df.to_dicts()" if hasattr(table, "to_dicts") else "df.to_dict('records')"


def as_texts(name: str, values: Any) -> list[str]:
    """Return texts as a list.

    Raises:
        InvalidInputError: the value is a single one, or holds something else than texts.
    """
    require_several(name, values)
    texts = list(values)
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInputError(f"{name}[{place}] is {a_type(text)}; expected a str.")
    return texts


def require_positive(name: str, value: Any, *, optional: bool = True, most: int = MOST) -> None:
    """Raise InvalidInputError unless the value is an int from 1 to ``most``, or None if allowed."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InvalidInputError(f"{name} is {shown(value)}; expected a whole number of 1 or more.")
    if value < 1:
        raise InvalidInputError(f"{name} is {shown(value)}; expected 1 or more.")
    _require_countable(name, value, most)


def _require_countable(name: str, value: int | np.integer[Any], most: int = MOST) -> None:
    if value > most:
        bound = most if most <= MOST else f"{most:.0e}"
        raise InvalidInputError(f"{name} is {shown(value)}; expected no more than {bound}.")


def require_number(
    name: str, value: Any, expected: str, *, least: float = -math.inf, most: float = math.inf
) -> None:
    """Raise InvalidInputError unless the value is a number in a range that a float can hold.

    Args:
        name: name of the argument, for the message.
        value: the argument.
        expected: what is expected, for the message.
        least: smallest number that is allowed.
        most: largest number that is allowed.
    """
    is_number = isinstance(value, int | float | np.integer | np.floating)
    try:
        fits = is_number and not isinstance(value, bool) and least <= float(value) <= most
    except OverflowError:  # Python's whole numbers have no largest one
        fits = False
    if not fits:
        raise InvalidInputError(f"{name} is {shown(value)}; expected {expected}.")


def require_count(name: str, value: Any) -> None:
    """Raise InvalidInputError unless the value is an int >= 0."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise InvalidInputError(f"{name} is {shown(value)}; expected a whole number of 0 or more.")
    _require_countable(name, value)


def further_values(name: str, values: Any, own: Collection[str]) -> dict[str, Any]:
    """Return what a caller adds to each request or call, as a dict; an empty one for None.

    Args:
        name: name of the argument that holds the values.
        values: a mapping of names to values.
        own: the names that each request or call has already.

    Raises:
        InvalidInputError: they are not a mapping, or have a name that is no str or one of these.
            The message does not show the values, which may be secret.
    """
    if not isinstance(values, Mapping | None):
        raise InvalidInputError(f"{name} is {a_type(values)}; expected a dict of fields.")
    for key in values or ():
        if not isinstance(key, str) or key in own:
            raise InvalidInputError(
                f"{name} has {shown(key)}; expected further fields, by name, than those that "
                f"each request has: {', '.join(own)}."
            )
    return dict(values or {})


def require_flag(name: str, value: Any, *, optional: bool = False) -> None:
    """Raise InvalidInputError unless the value is True or False, or None if allowed."""
    if not isinstance(value, bool | np.bool_) and not (optional and value is None):
        or_none = ", or None" if optional else ""
        raise InvalidInputError(f"{name} is {shown(value)}; expected True or False{or_none}.")


def require_choice(name: str, value: Any, choices: Any) -> None:
    """Raise InvalidInputError unless the value is one of those of a ``Literal``."""
    if not isinstance(value, str) or value not in get_args(choices):
        raise InvalidInputError(
            f"{name} is {shown(value)}; expected one of {', '.join(map(repr, get_args(choices)))}."
        )


def require_blend(value: Any) -> None:
    """Raise InvalidInputError unless the value is a share of 0 to 1, or "rrf"."""
    if isinstance(value, str) and value == "rrf":
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidInputError(
            f"blend is {shown(value)}; expected the retrieval score's share, 0 to 1, or 'rrf'."
        )


def as_pairs(pairs: Any) -> Any:
    """Return (query, document) pairs as an iterable: also of one pair or of a numpy array.

    Raises:
        InvalidInputError: the value is another single value, or a table.
    """
    require_several("pairs", pairs)
    if isinstance(pairs, np.ndarray):
        pairs = pairs.tolist() if pairs.ndim > 1 else tuple(pairs.tolist())
    if isinstance(pairs, tuple) and len(pairs) == 2 and isinstance(pairs[0], str):
        return [pairs]
    return pairs


def require_pairs(pairs: Sequence[Any], first: int = 0) -> None:
    """Raise InvalidInputError unless each pair is two texts; ``first`` numbers the first one."""
    for index, pair in enumerate(pairs, first):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InvalidInputError(
                f"Pair {index} is {shown(pair)}; expected a (query, document) tuple."
            )
        for role, text in zip(("query", "document"), pair, strict=True):
            if not isinstance(text, str):
                raise InvalidInputError(
                    f"The {role} of pair {index} is {a_type(text)}; expected a str."
                )
