"""Documents longer than the max length: overlapping passages, each paired with the query.

A passage is a piece of the document's own text, cut between words if possible. So a passage that is
scored alone gets the same score. Passages share ``overlap`` tokens with their neighbours, and
together they hold the whole document.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from qdrant_rerank.cross_encoder.prompts import PromptTokenizer
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.inference.batching import TokenizedPair
from qdrant_rerank.inference.tokenization import MOST_CHARACTERS_PER_TOKEN, PairTokenizer
from qdrant_rerank.inference.tokenizer_files import tokenizer_errors
from qdrant_rerank.utils.validation import require_choice, require_count, require_positive, shown

__all__ = [
    "Aggregate",
    "LongDocuments",
    "PairReader",
    "Reading",
    "Splitter",
    "Windows",
    "aggregate",
    "as_windows",
]

#: How a document's score is made of those of its passages: the highest, their mean, the first, or
#: the sum of the best few.
Aggregate = Literal["max", "mean", "first", "sum"]
Span = tuple[int, int]

# Characters tokenised at once for each token of a passage; real text has 4 to 6 per token.
CHARACTERS_PER_TOKEN = 8
# Pairs tokenised at once. The library takes 100 bytes per token, also for tokens that it cuts off:
# 1,000 documents of 16,000 characters took 746 MB at once, and no less time.
TOKENIZED_AT_ONCE = 16
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Windows:
    """Options for reading a document that is longer than the max length in passages.

    Attributes:
        overlap: tokens that a passage shares with the one before; None for an eighth of the max
            length.
        aggregate: "max", "mean", "first", or "sum" of the ``best`` highest scores. Sums need scores
            of 0 or more (an activation of 0 to 1): logits may be negative, and then each further
            passage would lower a document's score.
        best: number of passages that "sum" adds up.

    Raises:
        InvalidInputError: a value out of range.
    """

    overlap: int | None = None
    aggregate: Aggregate = "max"
    best: int = 3

    def __post_init__(self) -> None:
        if self.overlap is not None:
            require_count("overlap", self.overlap)
        require_choice("aggregate", self.aggregate, Aggregate)
        require_positive("best", self.best)


#: "truncate" cuts a document at the max length; "windows" reads all of it, in passages.
LongDocuments = Literal["truncate", "windows"] | Windows


def as_windows(long_documents: LongDocuments) -> Windows | None:
    """Return the options for reading in passages, or None for truncation.

    Raises:
        InvalidInputError: the value is neither.
    """
    if isinstance(long_documents, Windows):
        return long_documents
    choices = get_args(get_args(LongDocuments)[0])
    if not isinstance(long_documents, str) or long_documents not in choices:
        raise InvalidInputError(
            f"long_documents is {shown(long_documents)}; expected 'truncate', 'windows', or "
            "Windows(overlap=..., aggregate=...)."
        )
    return Windows() if long_documents == "windows" else None


@dataclass(frozen=True, slots=True)
class Reading:
    """Pairs as the model reads them.

    Attributes:
        rows: tokenised pairs; the passages of one document follow each other.
        counts: number of rows of each pair, 1 or more.
        spans: for each row, start and end character of its passage in the document.
    """

    rows: list[TokenizedPair]
    counts: list[int]
    spans: list[Span]


class PairReader:
    """Tokenises pairs, and splits long documents into passages if told to.

    Args:
        tokenizer: the model's tokenizer.
        windows: how to read documents longer than the max length; None to truncate them.

    Attributes:
        tokenizer: as given.
        windows: as given.
    """

    def __init__(
        self, tokenizer: PairTokenizer | PromptTokenizer, windows: Windows | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.windows = windows
        self._splitter = None if windows is None else Splitter(tokenizer, windows.overlap)

    @functools.cached_property
    def _untruncated(self) -> Tokenizer:
        return self.tokenizer.without_truncation()

    def cut(self, text: str, tokens: int) -> str:
        """Cut a text after so many tokens."""
        opening = text[: tokens * MOST_CHARACTERS_PER_TOKEN]
        with tokenizer_errors("The tokenizer failed on a text"):
            found = self._untruncated.encode(
                LONE_SURROGATE.sub("\ufffd", opening), add_special_tokens=False
            )
        return opening if len(found) <= tokens else opening[: found.offsets[tokens - 1][1]]

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> Reading:
        """Tokenise (query, document) pairs, in order."""
        rows: list[TokenizedPair] = []
        counts: list[int] = []
        spans: list[Span] = []
        tokenized = (
            row
            for start in range(0, len(pairs), TOKENIZED_AT_ONCE)
            for row in self.tokenizer(pairs[start : start + TOKENIZED_AT_ONCE])
        )
        for (query, document), row in zip(pairs, tokenized, strict=True):
            passages = [(0, len(document))]
            if self._splitter is None or not row.truncated:
                rows.append(row)
            else:
                passages = self._splitter(query, document)
                rows += self.tokenizer([(query, document[start:end]) for start, end in passages])
            counts.append(len(passages))
            spans += passages
        return Reading(rows, counts, spans)


def aggregate(
    scores: NDArray[np.floating[Any]],
    counts: Sequence[int],
    windows: Windows,
    order: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Compute the score of each document, and find its best passage.

    Args:
        scores: shape (rows,); the passages of one document follow each other.
        counts: passages of each document, 1 or more.
        windows: how to aggregate.
        order: shape (rows,), chooses among windows with equal scores; None for the first of them.

    Returns:
        ``(scores, rows)``, both of shape (documents,): the aggregated scores, float64, and the row
        of the passage with the highest score (for "first", of the first).

    >>> aggregate(np.array([1, 3, 2], dtype=np.float32), [2, 1], Windows(aggregate="mean"))
    (array([2., 2.]), array([1, 2]))
    """
    values = np.empty(len(counts), dtype=np.float64)
    rows = np.empty(len(counts), dtype=np.intp)
    start = 0
    for document, count in enumerate(counts):
        own = scores[start : start + count]
        best = 0 if windows.aggregate == "first" else int(own.argmax())
        if order is not None and windows.aggregate != "first":
            tied = np.flatnonzero(own == own[best])
            best = int(tied[order[start + tied].argmax()])
        rows[document] = start + best
        if windows.aggregate == "mean":
            values[document] = own.mean()
        elif windows.aggregate == "sum":
            values[document] = np.sort(own)[::-1][: windows.best].sum()
        else:
            values[document] = own[best]
        start += count
    return values, rows


class Splitter:
    """Splits documents into passages. Safe to call from many threads.

    Args:
        tokenizer: the model's tokenizer.
        overlap: tokens; None for an eighth of the max length.

    Raises:
        InvalidInputError: the overlap is more than half of what a long query leaves.
    """

    def __init__(self, tokenizer: PairTokenizer | PromptTokenizer, overlap: int | None) -> None:
        self._whole = tokenizer.without_truncation()
        self._capacity = tokenizer.max_length - tokenizer.specials
        # A query takes at most half of the room, so that some is left for the document.
        least = self._capacity // 2
        if overlap is None:
            overlap = min(tokenizer.max_length // 8, least // 2)
        if overlap > least // 2:
            raise InvalidInputError(
                f"overlap is {overlap} tokens, but with max_length {tokenizer.max_length} a long "
                f"query leaves {least} tokens to the document. Pass an overlap of at most "
                f"{least // 2}, or a longer max_length."
            )
        self._overlap = overlap

    def __call__(self, query: str, document: str) -> list[Span]:
        """Return spans of characters, in order, that hold all of the document except blanks.

        A query longer than half of the room is cut to that half, as in a pair that fits.
        """
        text = LONE_SURROGATE.sub("\ufffd", document)
        room = self._room(query)
        spans: list[Span] = []
        start = _skip_blanks(text, 0)
        while start < len(text):
            end, start_of_next = self._passage(text, start, room)
            spans.append((start, start + len(text[start:end].rstrip())))
            start = _skip_blanks(text, start_of_next)
        return spans or [(0, len(document))]

    def _room(self, query: str) -> int:
        """Return the number of tokens that the query leaves to a document."""
        return self._capacity - min(
            len(self._encode(LONE_SURROGATE.sub("\ufffd", query[: self._capacity * 1024]))),
            self._capacity - self._capacity // 2,
        )

    def _passage(self, text: str, start: int, room: int) -> tuple[int, int]:
        """Return where the passage that starts here ends, and where the next one starts."""
        reach = room * CHARACTERS_PER_TOKEN
        while True:
            piece = text[start : start + reach]
            encoding = self._encode(piece)
            if len(encoding) > room or start + reach >= len(text):
                break
            reach *= 4
        if len(encoding) <= room:
            return len(text), len(text)
        starts = [offset for offset, _ in encoding.offsets]
        cut = _between_words(piece, starts, room, self._overlap // 2)
        # Cut off from what followed, the last word may make more tokens than it did.
        while cut > 1 and len(self._encode(piece[: starts[cut]].rstrip())) > room:
            cut -= 1
        end = max(starts[cut], 1)
        following = _between_words(piece, starts, max(cut - self._overlap, 0), self._overlap // 2)
        step = starts[following] if 0 < starts[following] <= end else end
        return start + end, start + step

    def _encode(self, text: str) -> Encoding:
        with tokenizer_errors("The tokenizer failed on a text"):
            return self._whole.encode(text, add_special_tokens=False)


def _between_words(text: str, starts: Sequence[int], token: int, reach: int) -> int:
    """Return the nearest token at or before this one that starts a word; else this one."""
    for candidate in range(token, max(token - reach, 0), -1):
        at = starts[candidate]
        if at == 0 or text[at].isspace() or text[at - 1].isspace():
            return candidate
    return token


def _skip_blanks(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start
