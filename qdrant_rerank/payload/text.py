r"""The text of a payload.

A text source is one of::

    "auto"                       chosen from the payloads; see ``payload.choice``
    "langchain"                  a preset: "langchain", "llama-index", "haystack" or "mcp"
    "body"                       a payload field
    "article.abstract"           a path into nested payload, as in Qdrant's filters
    "chunks[].text"              the same of each item of a list; "chunks[0].text" of its first
    '"a.b".c'                    a key with dots in it is quoted; so is the name of a preset
    ["title", "body"]            several fields or paths; their texts are joined by newlines
    "{title}\n{body}"             a template; a field without text is left out, with its label
    lambda payload: ...          a function of the payload that returns a str or None

A text counts as missing if it is not a str, if it is only white space, or if the function raises a
LookupError (such as ``payload["body"]`` where there is no body). The texts of a list are joined by
newlines. A list of fields skips missing texts. A template writes out numbers and booleans.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qdrant_rerank.errors import InvalidInputError, MissingTextError
from qdrant_rerank.payload.paths import SEPARATOR, parse_path, strings, values_at
from qdrant_rerank.payload.template import Template
from qdrant_rerank.payload.writers import (
    AUTO,
    LLAMA_INDEX,
    NODE_FIELD,
    NODE_TEXT,
    PRESETS,
    node_text,
    require_no_misspelling,
)
from qdrant_rerank.types import Snippet
from qdrant_rerank.utils.validation import a_type, require_call, shown

__all__ = ["Payload", "PayloadText", "TextSource"]

Payload = Mapping[str, Any]
TextSource = str | Sequence[str] | Callable[[dict[str, Any]], str | None]

ID_FIELDS = frozenset({"_id", "id"})  # never suggested as text
SUGGESTED = 5  # fields named in a message


class PayloadText:
    r"""Reads the text of a payload.

    Args:
        source: where the text is; see the module's docstring.

    Attributes:
        source: as given; for a preset of one field, that field.
        fields: payload fields that are read; None if all may be: for a function, and for "auto".

    Raises:
        InvalidInputError: the source is empty, nearly the name of a preset, not a valid template,
            or not a function of one argument.

    Examples:
        >>> PayloadText("{title}: {n}")({"title": "Moby Dick", "n": 135})
        'Moby Dick: 135'
        >>> PayloadText(["title", "meta.abstract"])({"title": "A", "meta": {"abstract": "B"}})
        'A\nB'
        >>> PayloadText("langchain")
        PayloadText('page_content')
    """

    def __init__(self, source: TextSource) -> None:
        self.fields: tuple[str, ...] | None = None
        self._joined: tuple[str, ...] | None = None  # fields whose texts are joined
        self._nodes = isinstance(source, str) and source == LLAMA_INDEX
        if isinstance(source, str) and not self._nodes:
            source = PRESETS.get(source, source)
        self.source = source
        if callable(source):
            require_call("text", source, "", "payload")
            self._read: Callable[[dict[str, Any]], str | None] = source
        elif isinstance(source, str) and source == AUTO:
            raise AssertionError("A TextChoice reads text='auto'.")
        elif self._nodes:
            self.fields = (NODE_FIELD, NODE_TEXT)
            self._read = node_text
        elif isinstance(source, str) and "{" in source:
            template = Template(source)
            self.fields = template.fields
            self._read = template.fill
        else:
            fields = (source,) if isinstance(source, str) else source
            if (
                not isinstance(fields, Sequence)
                or not fields
                or not all(isinstance(f, str) and f.strip() for f in fields)
            ):
                raise InvalidInputError(
                    f"text={shown(source)}; expected a payload field, a list of fields, a template "
                    "such as '{title}\\n{body}', a preset such as 'langchain', 'auto', or a "
                    "function of the payload.",
                    command=f"--text is {shown(source)}; expected a payload field, a preset such "
                    "as 'langchain', 'auto', or a template such as '{title} {body}'.",
                )
            if isinstance(source, str) and '"' not in source:
                require_no_misspelling(source)
            self.fields = self._joined = joined = tuple(fields)
            self._read = lambda payload: SEPARATOR.join(t for _, t in _texts(joined, payload))

    @property
    def name(self) -> str:
        """The source as one text: fields, a template, a preset, or the name of a function."""
        if callable(self.source):
            return str(getattr(self.source, "__name__", type(self.source).__name__))
        return self.source if isinstance(self.source, str) else ", ".join(self.source)

    @property
    def keys(self) -> tuple[str, ...] | None:
        """Keys of the payload that lead to the one text, outermost first; None for other sources.

        >>> PayloadText("article.body").keys
        ('article', 'body')
        """
        if self._joined is None or not isinstance(self.source, str):
            return None
        steps = parse_path(self.source) or (self.source,)
        keys = tuple(step for step in steps if isinstance(step, str))
        return keys if len(keys) == len(steps) else None

    def __repr__(self) -> str:
        source = self.name if callable(self.source) else repr(self.source)
        return f"PayloadText({source})"

    def __call__(self, payload: Payload | None) -> str | None:
        """Return the text, or None if it is missing."""
        text = self._made(payload)
        return text if isinstance(text, str) and text.strip() else None

    def _made(self, payload: Payload | None) -> Any:
        """Return what the source makes of a payload: a text, None, or what a function returned."""
        try:
            return self._read(_as_dict(payload))
        except LookupError:
            return None
        except ValueError:
            if not self._nodes:
                raise
            return None

    def _told(self, payload: Payload) -> str:
        """Say what a text function did that gave no text."""
        try:
            made = self._read(_as_dict(payload))
        except LookupError as error:
            return f"raised {error!r:.80}"
        seen = "no text" if isinstance(made, str | None) else f"{a_type(made)}, not a str"
        return f"returned {seen}"

    def read(self, payload: Payload | None, what: str) -> str | None:
        """Return the text, or None if it is missing.

        Args:
            payload: the payload to read.
            what: the point or the document that it is of, for messages.

        Raises:
            InvalidInputError: the field of a LlamaIndex node is not a node as JSON.
        """
        if self._nodes:
            try:
                return node_text(payload or {})
            except ValueError as error:
                raise InvalidInputError(
                    f"{what} has no LlamaIndex node in {NODE_FIELD!r}, which is not a JSON object: "
                    f"{error}. Store the point again, or pass the field that has the text: "
                    "text=...",
                    command=f"{what} has no LlamaIndex node in {NODE_FIELD!r}, which is not a JSON "
                    f"object: {error}. Store the point again, or pass the field that has the text: "
                    "--text ...",
                ) from error
        return self(payload)

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
                f"{what} has no text: the text function {self._told(payload)}; {present}."
            )
        lengths = {
            key: len(value)
            for key, value in payload.items()
            if isinstance(value, str) and value.strip() and key not in ID_FIELDS
        }
        longest = sorted(lengths, key=lambda key: -lengths[key])[:SUGGESTED]
        seen = ", ".join(
            f"{field!r} {_state(values)}"
            for field in self.fields
            if not strings(values := values_at(payload, field))
        )
        return MissingTextError(f"{what} has no text: {seen}; {present}.", longest)


def _as_dict(payload: Payload | None) -> dict[str, Any]:
    """Return what a text function gets."""
    return payload if isinstance(payload, dict) else dict(payload or {})


def _texts(fields: Sequence[str], payload: Payload) -> list[tuple[str, str]]:
    """Return (field, text) of each field that has text."""
    found = ((field, strings(values_at(payload, field))) for field in fields)
    return [(field, SEPARATOR.join(texts)) for field, texts in found if texts]


def _state(values: Sequence[Any]) -> str:
    value = values[0] if values else None
    if value is None:
        return "is missing"
    return "is empty" if isinstance(value, str) else f"is {a_type(value)}, not a str"
