r"""Payloads: the text that a reranker reads, the paths that fetch it, and the groups of a point.

A text source is one of::

    "body"                       a payload field
    "article.abstract"           a path into nested payload, as in Qdrant's filters
    ["title", "body"]            several fields or paths; their texts are joined by newlines
    "{title}\n{body}"             a template; every field in it must have text
    lambda payload: ...          a function of the payload that returns a str or None

A text counts as missing if it is not a str, if it is only white space, or if the function raises a
LookupError (such as ``payload["body"]`` where there is no body). A list of fields skips missing
texts. A template writes out numbers and booleans.
"""

import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from qdrant_client import models
from qdrant_client.local.json_path_parser import parse_json_path
from qdrant_client.local.payload_value_extractor import value_by_key

from qdrant_rerank.errors import InvalidInputError, MissingTextError
from qdrant_rerank.types import Snippet
from qdrant_rerank.utils.validation import a_type, require_call

__all__ = [
    "GroupId",
    "PayloadText",
    "TextSource",
    "field_paths",
    "group_ids",
    "lookup_ids",
    "require_path",
    "whole_field",
]

Payload = Mapping[str, Any]
TextSource = str | Sequence[str] | Callable[[dict[str, Any]], str | None]
GroupId = int | str

SEPARATOR = "\n"  # between the texts of several fields
ID_FIELDS = frozenset({"_id", "id"})  # never suggested as text
SUGGESTED = 5  # fields named in a message
PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")  # a key of a path that needs no quotes
UNQUOTABLE = re.compile(r'["\\]')  # Qdrant's paths have no escapes inside quotes


class PayloadText:
    r"""Reads the text of a payload.

    Args:
        source: where the text is; see the module's docstring.

    Attributes:
        fields: payload fields that are read; None for a function.

    Raises:
        InvalidInputError: the source is empty, not a valid template, or not a function of one
            argument.

    Examples:
        >>> PayloadText("{title}: {n}")({"title": "Moby Dick", "n": 135})
        'Moby Dick: 135'
        >>> PayloadText(["title", "meta.abstract"])({"title": "A", "meta": {"abstract": "B"}})
        'A\nB'
    """

    def __init__(self, source: TextSource) -> None:
        self.source = source
        self.fields: tuple[str, ...] | None = None
        self._joined: tuple[str, ...] | None = None  # fields whose texts are joined
        if callable(source):
            require_call("text", source, "", "payload")
            self._read: Callable[[dict[str, Any]], str | None] = source
        elif isinstance(source, str) and "{" in source:
            parts = _parse(source)
            self.fields = tuple(dict.fromkeys(path for _, path in parts if path))
            self._read = lambda payload: _fill(parts, payload)
        else:
            fields = (source,) if isinstance(source, str) else source
            if (
                not isinstance(fields, Sequence)
                or not fields
                or not all(isinstance(f, str) and f.strip() for f in fields)
            ):
                raise InvalidInputError(
                    f"text={source!r}; expected a payload field, a list of fields, a template such "
                    "as '{title}\\n{body}', or a function of the payload.",
                    command=f"--text is {source!r}; expected a payload field, or a template such "
                    "as '{title} {body}'.",
                )
            self.fields = self._joined = joined = tuple(fields)
            self._read = lambda payload: SEPARATOR.join(t for _, t in _texts(joined, payload))

    def __call__(self, payload: Payload | None) -> str | None:
        """Return the text, or None if it is missing."""
        try:
            text = self._read(_as_dict(payload))
        except LookupError:
            return None
        return text if isinstance(text, str) and text.strip() else None

    def locate(self, payload: Payload | None, start: int, end: int) -> Snippet:
        r"""Find where in the payload a part of the text is.

        Args:
            payload: the payload that the text was read from.
            start: first character of the part, in the text.
            end: the character after its last one.

        Returns:
            The field, and the place in it. If the part touches several fields, the one that holds
            most of it. For a template or a function, no field, and the place in the text.

        >>> PayloadText(["title", "body"]).locate({"title": "A", "body": "Long text."}, 0, 6)
        Snippet(text='Long', start=0, end=4, field='body')
        """
        if self._joined is None:
            text = self._read(_as_dict(payload)) or ""
            return Snippet(text[start:end], start, end)
        parts = []
        offset = 0
        for field, value in _texts(self._joined, payload or {}):
            first = min(max(start - offset, 0), len(value))
            last = min(max(end - offset, 0), len(value))
            parts.append(Snippet(value[first:last], first, last, field))
            offset += len(value) + len(SEPARATOR)
        return max(parts, key=lambda part: part.end - part.start)

    def require(self, payload: Payload | None, what: str) -> str:
        """Return the text.

        Raises:
            MissingTextError: the text is missing; the message starts with ``what``.
        """
        text = self(payload)
        if text is None:
            raise self.missing(payload, what)
        return text

    def missing(self, payload: Payload | None, what: str) -> MissingTextError:
        """Explain why the text is missing, what the payload has, and what to pass instead."""
        payload = payload or {}
        present = f"its payload has {sorted(map(str, payload))}" if payload else "it has no payload"
        if self.fields is None:
            return MissingTextError(
                f"{what} has no text: the text function returned no text; {present}."
            )
        lengths = {
            key: len(value)
            for key, value in payload.items()
            if isinstance(value, str) and value.strip() and key not in ID_FIELDS
        }
        longest = sorted(lengths, key=lambda key: -lengths[key])[:SUGGESTED]
        values = {field: _lookup(payload, field) for field in self.fields}
        seen = ", ".join(
            f"{field!r} {_state(value)}"
            for field, value in values.items()
            if not (isinstance(value, str) and value.strip())  # a template needs all its fields
        )
        return MissingTextError(f"{what} has no text: {seen}; {present}.", longest)


def _as_dict(payload: Payload | None) -> dict[str, Any]:
    """Return what a text function gets."""
    return payload if isinstance(payload, dict) else dict(payload or {})


def _parse(template: str) -> list[tuple[str, str | None]]:
    """Split a template into (literal text, path after it)."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        wrong = (
            f"{template!r} is not a valid template: {error}. Write a field as {{title}}, and "
            "a brace as {{ or }}."
        )
        raise InvalidInputError(f"text={wrong}", command=f"--text {wrong}") from error
    for _, path, spec, conversion in parsed:
        if path is not None and (not path.strip() or spec or conversion):
            wrong = (
                f"{template!r}; expected only payload fields in braces, such as {{title}} or "
                "{meta.abstract}, without formats."
            )
            raise InvalidInputError(f"text={wrong}", command=f"--text {wrong}")
    return [(literal, path) for literal, path, _, _ in parsed]


def _fill(parts: Sequence[tuple[str, str | None]], payload: Payload) -> str | None:
    """Fill in a template; None if a field of it has no text."""
    filled = []
    for literal, path in parts:
        filled.append(literal)
        if path is None:
            continue
        value = _lookup(payload, path)
        if isinstance(value, int | float):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            return None
        filled.append(value)
    return "".join(filled)


def _texts(fields: Sequence[str], payload: Payload) -> list[tuple[str, str]]:
    """Return (field, text) of each field that has text."""
    values = ((field, _lookup(payload, field)) for field in fields)
    return [(field, v) for field, v in values if isinstance(v, str) and v.strip()]


def _lookup(payload: Payload, path: str) -> Any:
    """Return the value at a path. A field whose own name has the dots comes first."""
    if path in payload:
        return payload[path]
    value: Any = payload
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def _state(value: Any) -> str:
    if value is None:
        return "is missing"
    return "is empty" if isinstance(value, str) else f"is {a_type(value)}, not a str"


def field_paths(fields: Iterable[str]) -> list[str] | None:
    """Return the payload paths to ask Qdrant for, so that these fields can be read.

    Returns:
        The paths; None if no path can name one of the fields, so the whole payload is needed.

    >>> field_paths(["title", "meta.year", "full text"])
    ['title', 'meta.year', '"meta.year"', '"full text"']
    """
    paths = []
    for field in fields:
        keys = field.split(".")
        if not all(keys) or UNQUOTABLE.search(field):
            return None
        paths.append(".".join(key if PLAIN_KEY.fullmatch(key) else f'"{key}"' for key in keys))
        if len(keys) > 1:
            paths.append(f'"{field}"')  # a field whose own name has the dots
    return paths


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
            f"{name} is {value!r:.80}; expected a payload field, or a path such as 'meta.id' or "
            "'tags[]'. Put a name that has other characters than letters, digits, _ and - in "
            "double quotes."
        ) from error


def group_ids(payload: Payload | None, group_by: str) -> list[GroupId]:
    """Return the groups that a point belongs to, as Qdrant groups it.

    Args:
        payload: the point's payload.
        group_by: a field or a path, such as ``document.id`` or ``tags[]``.

    Returns:
        Each value of the field once. Empty if the field is missing, or if one of its values is
        neither a whole number nor a text: Qdrant leaves out such a point.
    """
    values = value_by_key(dict(payload or {}), group_by)
    # Not isinstance: a bool is an int, but not a group.
    if not values or any(type(value) not in {int, str} for value in values):
        return []
    return list(dict.fromkeys(values))


def lookup_ids(groups: Iterable[models.PointGroup]) -> dict[GroupId, int | str]:
    """Return the point id of each group. Groups that cannot be an id are left out."""
    found: dict[GroupId, int | str] = {}
    for group in groups:
        if isinstance(group.id, int):
            if group.id >= 0:
                found[group.id] = group.id
            continue
        try:
            found[group.id] = str(UUID(group.id))
        except ValueError:
            continue
    return found
