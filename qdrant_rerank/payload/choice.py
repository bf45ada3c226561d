"""Chooses where the texts of a collection are, from payloads: ``text="auto"``.

The rule, in this order:

1. Fields at the top of the payload with a name of ``TEXT_FIELDS``, and the JSON nodes of
   LlamaIndex, if they have natural language: the longest.
2. ``text`` or ``page_content`` at the top, whatever text it has.
3. Fields of these names deeper inside, such as ``chunks[].text``: the longest.
4. Any other field with natural language, if there is only one.
5. The fields of 1 and 3 whatever text they have, such as single words: the longest.

Natural language is a text of at least ``WORDS`` words, or ``KNOWN_WORDS`` in a field of such a
name; JSON is none. A field has natural language if at least half of its texts have. The longest
field is the one with the most characters. It must have ``CLEARLY`` times as many as each other one,
and text wherever the other one has; or the other one's texts are parts of its own.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from qdrant_rerank.errors import MissingTextError
from qdrant_rerank.payload.paths import SEPARATOR, Step, parse_path, path_of
from qdrant_rerank.payload.text import ID_FIELDS, SUGGESTED, Payload, PayloadText, TextSource
from qdrant_rerank.payload.writers import (
    AUTO,
    LLAMA_INDEX,
    NODE_FIELD,
    TEXT_FIELDS,
    nearest_preset,
    node_text,
)
from qdrant_rerank.utils.fork import ForkLock

__all__ = ["SAMPLE", "TextChoice", "choose_text"]

SAMPLE = 32  # payloads that are looked at
DEEPEST = 4  # keys of a path
READ = 2000  # characters of a text that are looked at for words
WORDS = 4  # fewer may be a name or a title
KNOWN_WORDS = 2  # in a field whose name says that it has text; one may be a file or an id
CERTAIN = ("text", "page_content")  # hold nothing else
CLEARLY = 1.25
#: A letter of a script without spaces: Chinese, Japanese, Thai, Lao, Khmer, Burmese.
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
LETTERS = 2  # of such a script, that count as a word
#: A word of at least two letters. Python counts the vowel signs of India's scripts as no letters.
WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|[\u0900-\u0dff])")


@dataclass(slots=True)
class _Field:
    """The texts of one field in a sample of payloads.

    Attributes:
        source: the text source that reads it.
        name: its last key.
        depth: keys and lists on the way to it.
        texts: payload's place in the sample -> text.
        natural: how many of the texts are natural language.
    """

    source: str
    name: str
    depth: int
    texts: dict[int, str] = field(default_factory=dict)
    natural: int = 0

    @property
    def known(self) -> bool:
        return self.name in TEXT_FIELDS or self.source == LLAMA_INDEX

    @property
    def is_natural(self) -> bool:
        return 2 * self.natural >= len(self.texts)

    @property
    def characters(self) -> int:
        return sum(map(len, self.texts.values()))

    def holds(self, other: "_Field") -> bool:
        """Whether each text of the other field is within this one's."""
        return all(text in self.texts.get(place, "") for place, text in other.texts.items())


def choose_text(
    payloads: Iterable[Payload | None], preferred: str | None = None, default: str | None = None
) -> str:
    """Choose the text source for payloads like these.

    Args:
        payloads: of hits; the first ``SAMPLE`` that are not empty are looked at.
        preferred: a field that is chosen if it has text at all.
        default: the field that is chosen if none has text; None for an error.

    Returns:
        A payload field or path, or "llama-index".

    Raises:
        MissingTextError: no field has text, or several may be meant; the message lists them.

    >>> choose_text([{"page_content": "Iron melts at 1538 degrees.", "metadata": {"page": 3}}])
    'page_content'
    """
    sample = _sample(payloads)
    fields = _fields(sample)
    if any(one.source == preferred for one in fields):
        return str(preferred)
    known = [one for one in fields if one.known]
    natural = [one for one in fields if one.is_natural]
    for some in (
        [one for one in natural if one.known and one.depth == 1],
        [one for one in fields if one.source in CERTAIN],
        [one for one in natural if one.known],
    ):
        if some:
            return _longest(some, sample)
    if natural:
        if len(natural) > 1:
            raise _ambiguous(natural, sample)
        return natural[0].source
    for some in ([one for one in known if one.depth == 1], known):
        if some:
            return _longest(some, sample)
    if default is None:
        raise _missing(fields, sample)
    return default


class TextChoice:
    """The text source of a searcher: as it was given, or chosen once from payloads.

    Threads may share it: the first choice stays.

    Args:
        source: see ``payload.text``.

    Attributes:
        text: reads the texts; of "auto" before the choice, each payload by what it has itself.
        preferred: a field that is chosen if it has text at all; None for no such field.
    """

    def __init__(self, source: TextSource) -> None:
        self.given = source
        is_auto = isinstance(source, str) and source == AUTO
        self.text = AutoText() if is_auto else PayloadText(source)
        self.preferred: str | None = None
        self._lock = ForkLock()

    @property
    def settled(self) -> bool:
        """Whether nothing is left to choose."""
        return not isinstance(self.text, AutoText)

    def settle(self, source: TextSource) -> None:
        """Take a source that is known otherwise, unless one is chosen already."""
        text = PayloadText(source)
        with self._lock:
            if not self.settled:
                self.text = text

    def choose(self, payloads: Iterable[Payload | None], default: str | None = None) -> PayloadText:
        """Choose from whole payloads, if nothing is chosen yet, and return what reads them.

        Args:
            payloads: of hits, or of points.
            default: the field that is chosen if none has text; None for an error.

        Raises:
            MissingTextError: no field has text, or several may be meant.
        """
        if not self.settled:
            self.settle(choose_text(payloads, self.preferred, default))
        return self.text

    def look(self, payloads: Iterable[Payload | None]) -> None:
        """Choose from whole payloads, if nothing is chosen yet and they allow a choice."""
        with suppress(MissingTextError):
            self.choose(payloads)


class AutoText(PayloadText):
    """Reads each payload by what it has itself: "auto" before anything is chosen."""

    def __init__(self) -> None:
        super().__init__(_choose_and_read)
        self.source = AUTO

    def missing(self, payload: Payload | None, what: str) -> MissingTextError:
        """Explain why no text can be read."""
        try:
            choose_text([payload])
        except MissingTextError as error:
            return MissingTextError(f"{what}: {error.reason}", error.fields)
        return super().missing(payload, what)


def _choose_and_read(payload: dict[str, Any]) -> str | None:
    try:
        return PayloadText(choose_text([payload]))(payload)
    except MissingTextError:
        return None


def _sample(payloads: Iterable[Payload | None]) -> list[Payload]:
    sample: list[Payload] = []
    for payload in payloads:
        if payload:
            sample.append(payload)
        if len(sample) == SAMPLE:
            break
    return sample


def _fields(sample: Sequence[Payload]) -> list[_Field]:
    """Return the fields that have text, in the order in which they are first met."""
    found: dict[str, _Field] = {}
    for place, payload in enumerate(sample):
        texts: dict[tuple[Step, ...], list[str]] = {}
        _collect(payload, (), texts)
        for steps, items in texts.items():
            path = _source(steps)
            if path is None:
                continue
            name = next((step for step in reversed(steps) if isinstance(step, str)), "")
            one = found.setdefault(path, _Field(path, name, len(steps)))
            one.texts[place] = SEPARATOR.join(items)
            words = KNOWN_WORDS if one.known else WORDS
            one.natural += 2 * sum(_words(item) >= words for item in items) > len(items)
        text = _node_text(payload)
        if text is not None:
            one = found.setdefault(LLAMA_INDEX, _Field(LLAMA_INDEX, NODE_FIELD, 1))
            one.texts[place] = text
            one.natural += _words(text) >= KNOWN_WORDS
    return list(found.values())


def _source(steps: tuple[Step, ...]) -> str | None:
    """Write steps as a text source; a field that is called like a preset is quoted."""
    name = steps[0]
    if len(steps) > 1 or not isinstance(name, str) or parse_path(name) != (name,):
        return path_of(steps)
    return f'"{name}"' if name == AUTO or nearest_preset(name) else name


def _collect(value: Any, steps: tuple[Step, ...], texts: dict[tuple[Step, ...], list[str]]) -> None:
    """Note each text by its path. The items of a list of texts are those of one text."""
    if isinstance(value, str):
        if value.strip() and steps[-1] not in {*ID_FIELDS, NODE_FIELD}:
            texts.setdefault(steps, []).append(value)
    elif sum(isinstance(step, str) for step in steps) >= DEEPEST:
        return
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _collect(inner, (*steps, str(key)), texts)
    elif isinstance(value, list) and steps:
        for inner in value:
            # A path reads the texts of a list without brackets, too.
            _collect(inner, steps if isinstance(inner, str) else (*steps, None), texts)


def _node_text(payload: Payload) -> str | None:
    try:
        return node_text(payload) if NODE_FIELD in payload else None
    except ValueError:
        return None


def _words(text: str) -> int:
    """Return how many words a text begins with; 0 for JSON."""
    start = text[:READ].strip()
    if (start[:1], text.rstrip()[-1:]) in {("{", "}"), ("[", "]")}:
        return 0
    spaced = sum(bool(WORD.search(word)) for word in start.split())
    return max(spaced, len(UNSPACED.findall(start)) // LETTERS)


def _longest(fields: Sequence[_Field], sample: Sequence[Payload]) -> str:
    order = {name: place for place, name in enumerate(TEXT_FIELDS)}
    ranked = sorted(fields, key=lambda one: (-one.characters, order.get(one.name, -1), one.source))
    first = ranked[0]
    for other in ranked[1:]:
        if first.holds(other):
            continue
        everywhere = other.texts.keys() <= first.texts.keys()
        if not everywhere or first.characters < CLEARLY * other.characters:
            raise _ambiguous(ranked, sample)
    return first.source


def _ambiguous(fields: Sequence[_Field], sample: Sequence[Payload]) -> MissingTextError:
    shown = sorted(fields, key=lambda one: -one.characters)[:SUGGESTED]
    seen = ", ".join(
        f"{one.source!r} in {len(one.texts)} with {one.characters // len(one.texts):,} characters "
        "on average"
        for one in shown
    )
    return MissingTextError(
        f"text='auto' cannot choose among several fields with text. Of {len(sample)} payloads: "
        f"{seen}. A list of fields reads them together.",
        [one.source for one in shown],
    )


def _missing(fields: Sequence[_Field], sample: Sequence[Payload]) -> MissingTextError:
    if not sample:
        return MissingTextError(
            "text='auto' found no text: the points have no payload. Store the texts in the "
            "payload, or pass reranker=None."
        )
    names = sorted({str(name) for payload in sample for name in payload})
    broken = f" {NODE_FIELD!r} is no LlamaIndex node with a text." if NODE_FIELD in names else ""
    return MissingTextError(
        f"text='auto' found no text in {len(sample)} payloads, which have {names}; expected one of "
        f"{', '.join(map(repr, TEXT_FIELDS))}, or one field with sentences.{broken}",
        [one.source for one in sorted(fields, key=lambda one: -one.characters)[:SUGGESTED]],
    )
