r"""Templates: ``"Title: {title}\nBody: {body}"``. What has no text is left out with its label.

A field owns the words before it, up to the field before or the start of the line, and the brackets
or quotes around it. If the field is missing, they are left out, too. A line all of whose fields are
missing is left out, and so is what stands alone on the line before it, if that is blank or ends in
a colon.
"""

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.payload.paths import SEPARATOR, strings, values_at

__all__ = ["Template"]

# Brackets and quotes; the escapes are curly quotes.
OPENING = re.compile("[(\\[{<\"'«\u201c\u2018]*$")
CLOSING = re.compile("^[)\\]}>\"'»\u201d\u2019%]*")
WORD = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class _Slot:
    """A field on a line.

    Attributes:
        label: what stands before it, after the field before.
        before: the opening brackets and quotes at it.
        path: the field.
        after: the closing ones.
    """

    label: str
    before: str
    path: str
    after: str


@dataclass(frozen=True, slots=True)
class _Line:
    slots: tuple[_Slot, ...]
    rest: str  # after the last field; the whole line if it has none


class Template:
    r"""A text with payload fields in braces.

    Args:
        template: as the caller wrote it.

    Attributes:
        fields: payload fields and paths that it reads, each once.

    Raises:
        InvalidInputError: a brace is alone, there is no field, or one is empty or has a format.

    Examples:
        >>> Template("Title: {title} ({year})\n{body}").fill({"title": "A", "body": "B"})
        'Title: A\nB'
    """

    def __init__(self, template: str) -> None:
        self._lines = list(_lines(template))
        self.fields = tuple(dict.fromkeys(slot.path for line in self._lines for slot in line.slots))
        if not self.fields:
            raise _wrong(
                f"{template!r} is a template without a field, so each text would be the same. "
                "Write a field as {title}."
            )

    def fill(self, payload: Mapping[str, Any]) -> str | None:
        """Return the text; None if no field has any, or only numbers where others are missing."""
        found: dict[str, str] = {}
        is_text = False
        for field in self.fields:
            values = values_at(payload, field)
            is_text = is_text or bool(strings(values))
            if written := SEPARATOR.join(filter(None, map(_written, values))):
                found[field] = written
        complete = len(found) == len(self.fields)
        if not (complete or is_text):
            return None
        lines: list[str] = []
        skipped = False  # whether the line below is left out
        for line in reversed(self._lines):
            if line.slots:
                skipped = not any(slot.path in found for slot in line.slots)
            else:
                skipped = skipped and (not line.rest.strip() or line.rest.rstrip().endswith(":"))
            if not skipped:
                lines.append(_filled(line, found))
        text = "\n".join(reversed(lines))
        return text if complete else text.strip("\n")


def _written(value: Any) -> str:
    """A value as a template writes it; "" if it is neither a text nor a number."""
    if isinstance(value, str):
        return value if value.strip() else ""
    return str(value) if isinstance(value, int | float) else ""


def _filled(line: _Line, found: Mapping[str, str]) -> str:
    """Write a line without the fields that are missing, and without what belongs to them."""
    text = ""
    skipped = False  # whether a field before is missing, and none was written
    written = not line.slots
    for slot in line.slots:
        written = slot.path in found
        if written:
            label = slot.label
            if skipped and not text:
                word = WORD.search(label)
                label = label[word.start() :] if word else ""
            text += label + slot.before + found[slot.path] + slot.after
        skipped = skipped or not written
    return text + line.rest if written else text


def _parse(template: str) -> list[tuple[str, str | None]]:
    """Split a template into (literal text, path after it)."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise _wrong(
            f"{template!r} is not a valid template: {error}. Write a field as {{title}}, and "
            "a brace as {{ or }}."
        ) from error
    for _, path, spec, conversion in parsed:
        if path is not None and (not path.strip() or spec or conversion):
            raise _wrong(
                f"{template!r}; expected only payload fields in braces, such as {{title}} or "
                "{meta.abstract}, without formats."
            )
    return [(literal, path) for literal, path, _, _ in parsed]


def _wrong(reason: str) -> InvalidInputError:
    return InvalidInputError(f"text={reason}", command=f"--text {reason}")


def _lines(template: str) -> Iterator[_Line]:
    """Yield the lines of a template."""
    slots: list[_Slot] = []
    label = ""  # since the last field
    for literal, path in _parse(template):
        label += literal
        *ended, label = label.split("\n")
        for rest in ended:
            yield _line(slots, rest)
            slots = []
        if path is not None:
            slots.append(_Slot(label, "", path, ""))
            label = ""
    yield _line(slots, label)


def _line(slots: Sequence[_Slot], rest: str) -> _Line:
    """Give each field the brackets at it, which are in the words around it so far."""
    labels = [slot.label for slot in slots] + [rest]
    befores, afters = [], []
    for place in range(len(slots)):
        opening = OPENING.search(labels[place])
        before = opening[0] if opening else ""
        labels[place] = labels[place].removesuffix(before)
        closing = CLOSING.search(labels[place + 1])
        after = closing[0] if closing else ""
        labels[place + 1] = labels[place + 1].removeprefix(after)
        befores.append(before)
        afters.append(after)
    return _Line(
        tuple(
            _Slot(label, before, slot.path, after)
            for label, before, slot, after in zip(labels, befores, slots, afters, strict=False)
        ),
        labels[-1],
    )
