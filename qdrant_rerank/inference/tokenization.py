"""(query, document) texts -> token ids, the way the model was trained to read them.

The pair template is the tokenizer's own (``[CLS] query [SEP] document [SEP]``,
``<s> query </s></s> document </s>``, ...). Its stored truncation and padding are reset: a
stock MiniLM file cuts at 128 tokens and pads everything to 128. A pair that is longer than the max
length is cut on its longer side: a query of up to half of the max length stays whole, and the
document is cut.

Control tokens in a text, such as ``[SEP]``, are read as plain text: only the template writes them.
Where the vocabulary itself spells them (``</s>`` of XLM-R), a blank after their first character
breaks them up.
"""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.inference.batching import TokenizedPair
from qdrant_rerank.inference.tokenizer_files import (
    DEFAULT_MAX_LENGTH,
    Side,
    TokenizerFiles,
    tokenizer_errors,
)

__all__ = ["PairTokenizer", "Side", "well_formed"]

# Characters of a text that are tokenised: first a bound that real text (4 to 6 characters per
# token) never reaches, then, for texts that are mostly blanks or one huge word, a hard one. Without
# them, 10 MB of text take 18 s to tokenise.
CHARACTERS_PER_TOKEN = 32
MOST_CHARACTERS_PER_TOKEN = 1024
_BLANK = re.compile(r"\s")


class PairTokenizer:
    """Tokenises pairs for one model. Safe to call from many threads.

    Args:
        tokenizer: a loaded tokenizer; its truncation and padding are replaced.
        max_length: tokens of a pair, special tokens included, at most.
        pad_id: id that fills up shorter pairs of a batch.
        pad_type_id: token type of the padding.
        padding_side: side on which the padding goes.
        truncation_side: end of a text that is cut.
        source: name for errors.

    Attributes:
        max_length: as given.
        specials: tokens of a pair that belong to neither text.
        no_yes: None; a language model's tokenizer has the ids of its two answers here.
    """

    no_yes: tuple[int, int] | None = None

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_length: int = DEFAULT_MAX_LENGTH,
        pad_id: int = 0,
        pad_type_id: int = 0,
        padding_side: Side = "right",
        truncation_side: Side = "right",
        source: str = "tokenizer",
    ) -> None:
        with tokenizer_errors(f"{source} is not usable"):
            specials = tokenizer.num_special_tokens_to_add(is_pair=True)
            if max_length < specials + 2:
                raise InvalidInputError(
                    f"max_length is {max_length}, but {specials} special tokens and one token of "
                    f"the query and of the document need at least {specials + 2}."
                )
            # Set once, here: changing a tokenizer while threads use it is not safe.
            tokenizer.no_padding()
            tokenizer.enable_truncation(max_length, direction=truncation_side)
            tokenizer.encode_special_tokens = True  # as plain text
            self._controls = _Controls(tokenizer)
        self._tokenizer = tokenizer
        self.specials = specials
        self.max_length = max_length
        self.pad_id = pad_id
        self.pad_type_id = pad_type_id
        self.padding_side: Side = padding_side
        self._keep_end = truncation_side == "left"
        self._source = source

    @classmethod
    def from_directory(cls, directory: Path, *, max_length: int | None = None) -> "PairTokenizer":
        """Load ``tokenizer.json``, and the configuration files beside it if there are any.

        Args:
            directory: holds ``tokenizer.json``.
            max_length: tokens of a pair, at most; None for the model's own limit.

        Raises:
            ModelFileError: there is no tokenizer, or a file cannot be read.
            InvalidInputError: ``max_length`` is more than the model's position table holds.
        """
        files = TokenizerFiles.load(directory)
        padding: dict[str, Any] = files.tokenizer.padding or {}
        truncation: dict[str, Any] = files.tokenizer.truncation or {}
        return cls(
            files.tokenizer,
            max_length=files.max_length(max_length),
            pad_id=files.pad_id(),
            pad_type_id=padding.get("pad_type_id", 0),
            padding_side=files.side("padding_side", padding.get("direction", "right")),
            truncation_side=files.side("truncation_side", truncation.get("direction", "right")),
            source=str(files.path),
        )

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[TokenizedPair]:
        """Tokenise pairs, in order.

        A pair is cut to the max length. Before that, a text is cut to 32 characters per token of
        the max length, or to 1,024 if that could change the tokens, so that time and memory stay
        bounded for a text of any size. Lone surrogates become U+FFFD.
        """
        return self._tokenize(pairs)

    def single(self, texts: Sequence[str]) -> list[TokenizedPair]:
        """Tokenise single texts, in order, as an embedding model reads them; cut as pairs are."""
        return self._tokenize([(text,) for text in texts])

    @functools.cached_property
    def _untruncated(self) -> Tokenizer:
        return self.without_truncation()

    def without_truncation(self) -> Tokenizer:
        """Return a copy of the tokenizer that cuts nothing off."""
        copy = Tokenizer.from_str(self._tokenizer.to_str())
        copy.no_truncation()
        copy.encode_special_tokens = True
        return copy

    def _tokenize(self, inputs: Sequence[tuple[str, ...]]) -> list[TokenizedPair]:
        first = self.max_length * CHARACTERS_PER_TOKEN
        encodings = self._encode(inputs, first)
        again = [
            row
            for row, texts in enumerate(inputs)
            if max(map(len, texts)) > first and not self._is_settled(encodings[row], texts, first)
        ]
        self._break_controls(inputs, encodings, first)
        kept = [first] * len(inputs)
        most = self.max_length * MOST_CHARACTERS_PER_TOKEN
        for row in again:
            texts = [self._fitting(inputs[row], most)]
            retried = self._encode(texts, most)
            self._break_controls(texts, retried, most)
            encodings[row], kept[row] = retried[0], most
        return [
            TokenizedPair(
                np.array(encoding.ids, dtype=np.int64),
                np.array(encoding.type_ids, dtype=np.int64),
                bool(encoding.overflowing)
                or any(
                    not self._clipped_off(text, keep).isspace()
                    for text in texts
                    if len(text) > keep
                ),
            )
            for encoding, texts, keep in zip(encodings, inputs, kept, strict=True)
        ]

    def _break_controls(
        self, inputs: Sequence[tuple[str, ...]], encodings: list[Encoding], keep: int
    ) -> None:
        """Encode those inputs again whose texts spell a control token."""
        for row, encoding in enumerate(encodings):
            if self._controls.beyond(encoding):
                broken = tuple(map(self._controls.break_up, inputs[row]))
                [encodings[row]] = self._encode([broken], keep)

    def _is_settled(self, encoding: Encoding, texts: tuple[str, ...], keep: int) -> bool:
        """Return whether the tokens are the same however much of the clipped texts is read.

        The shorter text of a pair stays whole up to half of the room; of two longer ones, each
        gets half, and the one with more tokens gets the odd token.
        """
        if len(encoding) < self.max_length:
            return False
        if len(texts) == 1:
            return True
        room = self.max_length - self.specials
        counts = [encoding.sequence_ids.count(number) for number in (0, 1)]
        if min(counts) >= room // 2:
            return room % 2 == 0
        return all(
            len(text) <= keep or count >= room // 2
            for text, count in zip(texts, counts, strict=True)
        )

    def _fitting(self, texts: tuple[str, ...], keep: int) -> tuple[str, ...]:
        """Cut texts to whole words, so that the pair is cut to the same tokens as before.

        The library makes a part for every combination of what it cuts off both texts of a pair, so
        two long texts would take gigabytes. The longer one stays the longer one, in tokens.
        """
        whole = [well_formed(self._clip(text, keep)) for text in texts]
        ends = [self._ends(text) for text in whole]
        longer = len(texts) - 1 if len(ends[0]) <= len(ends[-1]) else 0
        wanted = self.max_length
        fitting = list(whole)
        for number in sorted(range(len(texts)), key=lambda number: number == longer):
            fitting[number] = self._words(whole[number], ends[number], wanted)
            wanted = max(wanted, len(self._ends(fitting[number]))) + 1
        return tuple(fitting)

    def _ends(self, text: str) -> list[int]:
        """Return the character at which each token ends, from the kept end of the text."""
        with tokenizer_errors(f"{self._source} failed on a text"):
            offsets = self._untruncated.encode(text, add_special_tokens=False).offsets
        if self._keep_end:
            return [len(text) - start for start, _ in reversed(offsets)]
        return [end for _, end in offsets]

    def _words(self, text: str, ends: list[int], tokens: int) -> str:
        """Return whole words of the kept end of a text that have at least so many tokens."""
        if len(ends) <= tokens:
            return text
        read = text[::-1] if self._keep_end else text
        blank = _BLANK.search(read, ends[tokens - 1])
        # One huge word is cut inside: its parts make about the same tokens.
        end = blank.start() if blank else max(ends[tokens - 1], tokens * CHARACTERS_PER_TOKEN)
        return text[len(text) - end :] if self._keep_end else text[:end]

    def _encode(self, inputs: Sequence[tuple[str, ...]], keep: int) -> list[Encoding]:
        clipped = [tuple(self._clip(text, keep) for text in texts) for texts in inputs]
        try:
            return self._encode_batch(clipped)
        except TypeError:  # a lone surrogate has no UTF-8
            return self._encode_batch([tuple(map(well_formed, texts)) for texts in clipped])

    def _encode_batch(self, inputs: Sequence[tuple[str, ...]]) -> list[Encoding]:
        # The library takes a pair as a tuple and a single text as a str.
        with tokenizer_errors(f"{self._source} failed on a text"):
            return self._tokenizer.encode_batch_fast(
                [texts if len(texts) > 1 else texts[0] for texts in inputs]
            )

    def _clip(self, text: str, keep: int) -> str:
        """Keep so many characters, but no part of a word: it would make other tokens."""
        if len(text) <= keep:
            return text
        cut = len(text) - keep if self._keep_end else keep
        part = text[cut:] if self._keep_end else text[:cut]
        if text[cut - 1].isspace() or text[cut].isspace():
            return part
        if self._keep_end:
            whole_words = part[len(part.split(None, 1)[0]) :]
        else:
            whole_words = part[: -len(part.rsplit(None, 1)[-1])]
        return whole_words if whole_words.strip() else part

    def _clipped_off(self, text: str, keep: int) -> str:
        return text[:-keep] if self._keep_end else text[keep:]

    def __repr__(self) -> str:
        return f"PairTokenizer({self._source!r}, max_length={self.max_length})"


class _Controls:
    """The control tokens that a tokenizer makes of plain text, since its vocabulary spells them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._normalizer = tokenizer.normalizer
        added = tokenizer.get_added_tokens_decoder().items()
        special = {number: token.content for number, token in added if token.special}
        spelled = {
            number: text
            for number, text in special.items()
            if number in tokenizer.encode(text, add_special_tokens=False).ids
        }
        # What a tokenizer makes of letters that it does not know is no control token.
        unknown = tokenizer.encode("\U0010fffd", add_special_tokens=False).ids
        self._ids = [number for number in spelled if number not in unknown]
        self._pattern = re.compile("|".join(map(re.escape, spelled.values())) or "(?!)")

    def beyond(self, encoding: Encoding) -> bool:
        """Return whether a text, and not the template, made a control token."""
        return bool(self._ids) and any(
            sequence is not None and number in self._ids
            for number, sequence in zip(encoding.ids, encoding.sequence_ids, strict=True)
        )

    def break_up(self, text: str) -> str:
        """Put a blank after the first character of each control token in a text."""
        if self._normalizer is not None and not self._pattern.search(text):
            text = self._normalizer.normalize_str(text)  # such as full-width letters
        return self._pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def well_formed(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot hold, by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
