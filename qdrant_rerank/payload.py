r"""Payload -> the text that a reranker reads (and that ``add`` embeds).

A source is one of::

    "body"                       a payload field
    "article.abstract"           a path into nested payload, as in Qdrant's filters
    ["title", "body"]            several fields or paths; those that have text, one a line
    "{title}\n{body}"             a template; every field in it must have text
    lambda payload: ...          a function of the payload, returning a str or None

A text that is not a str, or holds nothing but white space, counts as missing, and so does one
whose function raises a LookupError (``payload["body"]`` where there is none). In a template
numbers and booleans are written out.
"""

import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from qdrant_client import models

from qdrant_rerank.errors import InvalidInputError, MissingTextError
from qdrant_rerank.types import Snippet
from qdrant_rerank.utils.validation import a_type

__all__ = [
    "PLAIN",
    "UNSPEAKABLE",
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
SEPARATOR = "\n"  # between the texts of several fields
IDS = frozenset({"_id", "id"})  # fields that are not suggested as text
SUGGESTED = 5  # fields named in a message
TextSource = str | Sequence[str] | Callable[[Payload], str | None]

GroupId = int | str

PLAIN = re.compile(r"[A-Za-z0-9_-]+")

UNSPEAKABLE = re.compile(r'["\\]')  # not even in quotes


class PayloadText:
    r"""Reads texts as a source says.

    Args:
        source: see the module's docstring.

    Attributes:
        fields: payload fields that are read; None if only the function knows.

    Raises:
        InvalidInputError: the source is empty or not a valid template.

    Examples:
        >>> PayloadText("{title}: {n}")({"title": "Moby Dick", "n": 135})
        'Moby Dick: 135'
        >>> PayloadText(["title", "meta.abstract"])({"title": "A", "meta": {"abstract": "B"}})
        'A\nB'
    """

    def __init__(self, source: TextSource) -> None:
        self.source = source
        self.fields: tuple[str, ...] | None
        self._joined: tuple[str, ...] | None  # fields that are the text, one a line
        if callable(source):
            self.fields = None
            self._joined = None
            self._read: Callable[[Payload], str | None] = source
        elif isinstance(source, str) and "{" in source:
            parts = _parse(source)
            self._joined = None
            self.fields = tuple(dict.fromkeys(path for _, path in parts if path))
            self._read = lambda payload: _fill(parts, payload)
        else:
            fields: tuple[str, ...] = ()
            if isinstance(source, str):
                fields = (source,)
            elif isinstance(source, Sequence):
                fields = tuple(source)
            if not fields or not all(isinstance(f, str) and f.strip() for f in fields):
                raise InvalidInputError(
                    f"text={source!r}; expected a payload field, a list of fields, a template such "
                    "as '{title}\\n{body}', or a function of the payload."
                )
            self.fields = self._joined = fields
            self._read = lambda payload: _join(fields, payload)

    def __call__(self, payload: Payload | None) -> str | None:
        """The text, or None if it is missing, empty or not a str."""
        try:
            text = self._read(payload or {})
        except LookupError:
            return None
        return text if isinstance(text, str) and text.strip() else None

    def locate(self, payload: Payload | None, start: int, end: int) -> Snippet:
        r"""Where in the payload a part of the text is.

        Args:
            payload: whose text it is.
            start: first character of the part, in the text.
            end: the character after its last.

        Returns:
            The field and the place in it; of several fields that the part touches, the one that
            holds the most of it. Of a template or a function no field, and the place in the text.

        >>> PayloadText(["title", "body"]).locate({"title": "A", "body": "Long text."}, 0, 6)
        Snippet(text='Long', start=0, end=4, field='body')
        """
        if self._joined is None:
            text = self._read(payload or {}) or ""
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
        """The text.

        Raises:
            MissingTextError: there is none; the message starts with ``what``.
        """
        text = self(payload)
        if text is None:
            raise MissingTextError(self.missing(payload, what))
        return text

    def missing(self, payload: Payload | None, what: str) -> str:
        """Says why there is no text, what the payload has, and what to pass."""
        payload = payload or {}
        present = f"its payload has {sorted(map(str, payload))}" if payload else "it has no payload"
        texts = {
            key: len(value)
            for key, value in payload.items()
            if isinstance(value, str) and value.strip() and key not in IDS
        }
        longest = sorted(texts, key=lambda key: -texts[key])[:SUGGESTED]
        advice = f" Pass text={' or '.join(map(repr, longest))}." if longest else ""
        if self.fields is None:
            return f"{what} has no text: the text function returned none; {present}."
        seen = ", ".join(f"{f!r} {_state(_lookup(payload, f))}" for f in self.fields)
        return f"{what} has no text: {seen}; {present}.{advice}"


def _parse(template: str) -> list[tuple[str, str | None]]:
    """(literal text, path after it) of a template."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InvalidInputError(
            f"text={template!r} is not a valid template: {error}. Write a field as {{title}} and a "
            "brace as {{ or }}."
        ) from error
    for _, path, spec, conversion in parsed:
        if path is not None and (not path.strip() or spec or conversion):
            raise InvalidInputError(
                f"text={template!r}: expected only payload fields in braces, such as {{title}} or "
                "{meta.abstract}, without formats."
            )
    return [(literal, path) for literal, path, _, _ in parsed]


def _fill(parts: Sequence[tuple[str, str | None]], payload: Payload) -> str | None:
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


def _join(fields: Sequence[str], payload: Payload) -> str | None:
    return SEPARATOR.join(value for _, value in _texts(fields, payload)) or None


def _texts(fields: Sequence[str], payload: Payload) -> list[tuple[str, str]]:
    """(field, text) of those that have text."""
    values = ((field, _lookup(payload, field)) for field in fields)
    return [(field, v) for field, v in values if isinstance(v, str) and v.strip()]


def _lookup(payload: Payload, path: str) -> Any:
    """The value at a path; a field whose own name holds the dots comes first."""
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


def group_ids(payload: Mapping[str, Any] | None, group_by: str) -> list[GroupId]:
    """The groups that a point belongs to, as Qdrant sees it.

    Args:
        payload: of the point.
        group_by: a field or a path, such as ``document.id`` or ``tags[]``.

    Returns:
        Each value of the field once. None if the field is missing, or if any of its values is
        neither a whole number nor a text: Qdrant leaves such a point out altogether.
    """
    # Qdrant's paths have indices and wildcards; its own reader knows them. Not isinstance below: a
    # bool is an int, and no group.
    from qdrant_client.local.payload_value_extractor import value_by_key

    values = value_by_key(dict(payload or {}), group_by)
    if not values or any(type(value) not in {int, str} for value in values):
        return []
    return list(dict.fromkeys(values))


def lookup_ids(groups: Iterable[models.PointGroup]) -> dict[GroupId, int | str]:
    """The id that a point would have for each group; groups that cannot be ids are left out."""
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
