"""Payload fields as the Query API writes them: JSON paths. Pure: no I/O.

A text source names a field as it is, or by a dotted path. Qdrant's paths quote every name that is
not made of letters, digits, ``_`` and ``-``, and what is to be returned cannot be told by an index.
"""

import re
from collections.abc import Iterable
from typing import Any

from qdrant_rerank.errors import InvalidInputError

__all__ = ["field_paths", "require_path", "whole_field"]

PLAIN = re.compile(r"[A-Za-z0-9_-]+")
UNSPEAKABLE = re.compile(r'["\\]')  # not even in quotes


def field_paths(fields: Iterable[str]) -> list[str] | None:
    """The paths that bring these fields along; None where only the whole payload does.

    >>> field_paths(["title", "meta.year", "full text"])
    ['title', 'meta.year', '"meta.year"', '"full text"']
    """
    paths = []
    for field in fields:
        keys = field.split(".")
        if not all(keys) or UNSPEAKABLE.search(field):
            return None
        paths.append(".".join(key if PLAIN.fullmatch(key) else f'"{key}"' for key in keys))
        if len(keys) > 1:
            paths.append(f'"{field}"')  # a field whose own name holds the dots
    return paths


def whole_field(path: str) -> str:
    """A path up to its first index, which brings all that the path can reach.

    >>> whole_field("meta.parts[0].title")
    'meta.parts'
    """
    found = re.match(r'(?:"[^"]*"|[^["])*', path)
    return found[0] if found else path


def require_path(name: str, value: Any) -> None:
    """Raise InvalidInputError unless it is a payload path such as Qdrant reads."""
    from qdrant_client.local.json_path_parser import parse_json_path

    try:
        if not isinstance(value, str):
            raise TypeError
        parse_json_path(value)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{name} is {value!r:.80}; expected a payload field, or a path such as 'meta.id' or "
            "'tags[]'. A name with other signs than letters, digits, _ and - stands in double "
            "quotes."
        ) from error
