"""Paths into payloads, as in Qdrant's filters: ``title``, ``chunks[].text``, ``"a.b".c``.

A name of another kind, such as ``full text``, needs no quotes here. A payload field whose own name
is the whole path comes first.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from qdrant_client.local.json_path_parser import parse_json_path

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.validation import shown

__all__ = [
    "SEPARATOR",
    "Step",
    "field_paths",
    "parse_path",
    "path_of",
    "require_path",
    "strings",
    "values_at",
    "whole_field",
]

#: A key of a mapping, the index of an item of a list, or None for every item.
Step = str | int | None

SEPARATOR = "\n"  # between the texts of several fields, and of the items of a list

PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")  # a key of a path that needs no quotes
UNQUOTABLE = re.compile(r'["\\]')  # Qdrant's paths have no escapes inside quotes
KEY = re.compile(r'"([^"]*)"|([^."\[\]]+)')
INDEX = re.compile(r"\[([0-9]*)\]")
HIGHEST_INDEX = 2**64 - 1


@lru_cache(maxsize=1024)
def parse_path(path: str) -> tuple[Step, ...] | None:
    """Split a path into its steps; None if it is not one.

    >>> parse_path('chunks[].text'), parse_path('"a.b"[0]'), parse_path('a[')
    (('chunks', None, 'text'), ('a.b', 0), None)
    """
    steps: list[Step] = []
    place = 0
    while key := KEY.match(path, place):
        steps.append(key[2] if key[1] is None else key[1])
        place = key.end()
        while index := INDEX.match(path, place):
            number = int(index[1]) if index[1] else None
            if number is not None and number > HIGHEST_INDEX:
                return None
            steps.append(number)
            place = index.end()
        if place == len(path):
            return tuple(steps)
        if path[place] != ".":
            return None
        place += 1
    return None


def path_of(steps: Sequence[Step]) -> str | None:
    """Write steps as a path that Qdrant reads; None if a key cannot be quoted.

    >>> path_of(["full text", None, "a"])
    '"full text"[].a'
    """
    path = ""
    for step in steps:
        if not isinstance(step, str):
            path += "[]" if step is None else f"[{step}]"
        elif UNQUOTABLE.search(step):
            return None
        else:
            key = step if PLAIN_KEY.fullmatch(step) else f'"{step}"'
            path += f".{key}" if path else key
    return path


def values_at(payload: Mapping[str, Any], path: str) -> list[Any]:
    """Return the values that a path leads to, as Qdrant's filters see them.

    A list counts as its items. A field whose own name is the path comes first.

    >>> values_at({"chunks": [{"text": "a"}, {"text": "b"}]}, "chunks[].text")
    ['a', 'b']
    """
    if path in payload and _may_be_name(path):
        found = [payload[path]]
    else:
        steps = parse_path(path)
        if steps is None:
            return []
        found = [payload]
        for step in steps:
            found = [value for one in found for value in _inside(one, step)]
    return [item for one in found for item in (one if isinstance(one, list) else [one])]


def _inside(value: Any, step: Step) -> Sequence[Any]:
    if isinstance(step, str):
        return [value[step]] if isinstance(value, Mapping) and step in value else []
    if not isinstance(value, list):
        return []
    return value if step is None else value[step : step + 1]


def strings(values: Iterable[Any]) -> list[str]:
    """Return the values that are texts, and not blank."""
    return [value for value in values if isinstance(value, str) and value.strip()]


def field_paths(fields: Iterable[str]) -> list[str] | None:
    """Return the payload paths to ask Qdrant for, so that these fields can be read.

    A path is cut before its first index, by which Qdrant does not select.

    Returns:
        The paths; None if no path can name one of the fields, so the whole payload is needed.

    >>> field_paths(["title", "meta.year", "full text", "chunks[].text"])
    ['title', 'meta.year', '"meta.year"', '"full text"', 'chunks', '"chunks[].text"']
    """
    paths = []
    for field in fields:
        steps = parse_path(field)
        if steps is None:
            return None
        keys = []
        for step in steps:
            if not isinstance(step, str):
                break
            keys.append(step)
        path = path_of(keys)
        if path is None or not all(keys):
            return None
        paths.append(path)
        if steps != (field,) and _may_be_name(field):
            paths.append(f'"{field}"')
    return list(dict.fromkeys(paths))


def _may_be_name(path: str) -> bool:
    """Whether a path may be the name of a field, too: quotes say that it is a path."""
    return '"' not in path or parse_path(path) is None


def whole_field(path: str) -> str:
    """Cut a path before its first index, so that it fetches all that the path can reach.

    >>> whole_field("meta.parts[0].title")
    'meta.parts'
    """
    found = re.match(r'(?:"[^"]*"|[^["])*', path)
    return found[0] if found else path


def require_path(name: str, value: Any) -> None:
    """Raise InvalidInputError unless a value is a payload path that Qdrant can read."""
    try:
        if not isinstance(value, str):
            raise TypeError
        parse_json_path(value)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{name} is {shown(value)}; expected a payload field, or a path such as 'meta.id' or "
            "'tags[]'. Put a name that has other characters than letters, digits, _ and - in "
            "double quotes."
        ) from error
