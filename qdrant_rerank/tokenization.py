"""(query, document) texts -> token ids, the way the model was trained to read them.

The pair template is the tokenizer's own (``[CLS] query [SEP] document [SEP]``,
``<s> query </s></s> document </s>``, ...). Its stored truncation and padding are reset: a
stock MiniLM file cuts at 128 tokens and pads everything to 128. What does not fit the window
is cut from the longer side, so a query of up to half of the window stays whole and the
document takes the cut.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import AddedToken, Encoding, Tokenizer

from qdrant_rerank.batching import TokenizedPair
from qdrant_rerank.errors import InvalidInputError, ModelFileError

__all__ = [
    "TOKENIZER_FILES",
    "PairTokenizer",
    "Side",
    "TokenizerFiles",
    "first_position",
    "read_json",
    "well_formed",
]

# What of a model's directory decides how its texts are read.
TOKENIZER_FILES = (
    "tokenizer.json",
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
DEFAULT_MAX_LENGTH = 512  # tokens, where no file of the model says otherwise
# Characters kept of a text before tokenising it: first a bound that real text (4 to 6
# characters a token) never reaches, then, for texts that are mostly blanks or one huge word,
# a hard one. 10 MB of text would otherwise take 18 s to tokenise.
CHARACTERS_PER_TOKEN = 32
MOST_CHARACTERS_PER_TOKEN = 1024

# Models whose position table starts after the padding index, so that it is longer than the
# usable window by pad_token_id + 1 (RoBERTa: 514 for 512).
OFFSET_POSITION_TYPES = frozenset(
    "camembert data2vec-text longformer mpnet roberta roberta-prelayernorm xlm-roberta "
    "xlm-roberta-xl xmod".split()
)
Side = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What a model's directory says about its tokens.

    Attributes:
        path: of ``tokenizer.json``.
        tokenizer: read from it, with the special tokens that other files name.
        config: ``config.json``, empty where there is none.
        tokenizer_config: ``tokenizer_config.json``, likewise.
    """

    path: Path
    tokenizer: Tokenizer
    config: dict[str, Any]
    tokenizer_config: dict[str, Any]

    @classmethod
    def load(cls, directory: Path) -> "TokenizerFiles":
        """Read a directory.

        Raises:
            ModelFileError: no ``tokenizer.json``, or a file that cannot be read.
        """
        path = directory / "tokenizer.json"
        if not path.is_file():
            raise ModelFileError(
                f"No tokenizer.json in {directory}. A cross-encoder needs the tokenizer it was "
                "trained with: put the model's own tokenizer.json there."
            )
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exceptions
            raise ModelFileError(
                f"{path} ({path.stat().st_size:,} bytes) is not a readable tokenizer: {error}. "
                "It may be truncated; fetch it again."
            ) from error
        config = read_json(directory / "config.json")
        tokenizer_config = read_json(directory / "tokenizer_config.json")
        _add_special_tokens(tokenizer, read_json(directory / "special_tokens_map.json"))
        return cls(path, tokenizer, config, tokenizer_config)

    def window(self, wanted: int | None) -> int:
        """Tokens that the model reads at once; at most what its position table holds.

        Args:
            wanted: a caller's choice; None for the least of what the files declare.

        Raises:
            InvalidInputError: more than there are positions for.
        """
        positions = self.config.get("max_position_embeddings")
        if isinstance(positions, int):
            positions -= first_position(self.config)
        hard = positions if isinstance(positions, int) and positions > 0 else None
        if wanted is not None:
            if hard is not None and wanted > hard:
                raise InvalidInputError(
                    f"max_length is {wanted}, but the model in {self.path.parent} has positions "
                    f"for {hard} tokens (config.json). Pass at most {hard}."
                )
            return wanted
        declared = [
            self.tokenizer_config.get("model_max_length"),
            self.tokenizer_config.get("max_length"),
            hard,
        ]
        # transformers writes 1e30 for "no limit".
        usable = [int(n) for n in declared if isinstance(n, int | float) and 0 < n < 1_000_000]
        return min(usable, default=DEFAULT_MAX_LENGTH)

    def pad_id(self) -> int:
        """The id that fills up shorter rows."""
        padding: dict[str, Any] = self.tokenizer.padding or {}
        token = padding.get("pad_token") or self.tokenizer_config.get("pad_token")
        if isinstance(token, dict):
            token = token.get("content")
        candidates = [
            padding.get("pad_id"),
            self.config.get("pad_token_id"),
            *(self.tokenizer.token_to_id(name) for name in (token, "[PAD]", "<pad>") if name),
        ]
        # Padding is masked out, so where nothing is said any id that exists serves.
        return next((int(value) for value in candidates if value is not None), 0)


class PairTokenizer:
    """Tokenises pairs for one model. Safe to call from many threads.

    Args:
        tokenizer: a loaded tokenizer; its truncation and padding are replaced.
        max_length: window in tokens, special tokens included.
        pad_id: id that fills up shorter pairs of a run.
        pad_type_id: token type of the padding.
        padding_side: where the padding goes.
        truncation_side: which end of a text is cut.
        source: named in errors.

    Attributes:
        max_length: as given.
        specials: tokens of the window that belong to neither text.
        no_yes: None; a language model's tokenizer has the ids of its answers here.
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
        specials = tokenizer.num_special_tokens_to_add(is_pair=True)
        if max_length < specials + 2:
            raise InvalidInputError(
                f"max_length is {max_length}, but {specials} special tokens and one token of the "
                f"query and of the document need at least {specials + 2}."
            )
        # Set once, here: changing a tokenizer while threads use it is not safe.
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length, direction=truncation_side)
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
        """Load ``tokenizer.json``, and the configuration files beside it where they exist.

        Args:
            directory: holds ``tokenizer.json``.
            max_length: window in tokens; None for the model's own.

        Raises:
            ModelFileError: no tokenizer, or a file that cannot be read.
            InvalidInputError: ``max_length`` is more than the model's position table holds.
        """
        files = TokenizerFiles.load(directory)
        padding: dict[str, Any] = files.tokenizer.padding or {}
        truncation: dict[str, Any] = files.tokenizer.truncation or {}
        return cls(
            files.tokenizer,
            max_length=files.window(max_length),
            pad_id=files.pad_id(),
            pad_type_id=padding.get("pad_type_id", 0),
            padding_side=files.tokenizer_config.get("padding_side")
            or padding.get("direction", "right"),
            truncation_side=files.tokenizer_config.get("truncation_side")
            or truncation.get("direction", "right"),
            source=str(files.path),
        )

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[TokenizedPair]:
        """Tokenise pairs, in order.

        A text is cut to the window; before that to 32 characters for each token of the window
        (1,024 where the first cut leaves the window unfilled), so that time and memory stay
        bounded for a text of any size. Lone surrogates become U+FFFD.
        """
        return self._tokenize(pairs)

    def single(self, texts: Sequence[str]) -> list[TokenizedPair]:
        """Tokenise texts alone, in order, as an embedding model reads them; cut likewise."""
        return self._tokenize([(text,) for text in texts])

    def without_truncation(self) -> Tokenizer:
        """A copy of the tokenizer that cuts nothing off."""
        copy = Tokenizer.from_str(self._tokenizer.to_str())
        copy.no_truncation()
        return copy

    def _tokenize(self, inputs: Sequence[tuple[str, ...]]) -> list[TokenizedPair]:
        encodings = self._encode(inputs, CHARACTERS_PER_TOKEN)
        clipped = self.max_length * CHARACTERS_PER_TOKEN
        again = [
            row
            for row, texts in enumerate(inputs)
            if max(map(len, texts)) > clipped and len(encodings[row]) < self.max_length
        ]
        if again:
            retried = self._encode([inputs[row] for row in again], MOST_CHARACTERS_PER_TOKEN)
            for row, encoding in zip(again, retried, strict=True):
                encodings[row] = encoding
        kept = [clipped] * len(inputs)
        for row in again:
            kept[row] = self.max_length * MOST_CHARACTERS_PER_TOKEN
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

    def _encode(
        self, inputs: Sequence[tuple[str, ...]], characters_per_token: int
    ) -> list[Encoding]:
        keep = self.max_length * characters_per_token
        clipped = [tuple(self._clip(text, keep) for text in texts) for texts in inputs]
        try:
            return self._encode_batch(clipped)
        except TypeError:  # a lone surrogate has no UTF-8
            return self._encode_batch([tuple(map(well_formed, texts)) for texts in clipped])

    def _encode_batch(self, inputs: Sequence[tuple[str, ...]]) -> list[Encoding]:
        # The library takes a pair as a tuple and a text alone as a str.
        return self._tokenizer.encode_batch_fast(
            [texts if len(texts) > 1 else texts[0] for texts in inputs]
        )

    def _clip(self, text: str, keep: int) -> str:
        if len(text) <= keep:
            return text
        return text[-keep:] if self._keep_end else text[:keep]

    def _clipped_off(self, text: str, keep: int) -> str:
        return text[:-keep] if self._keep_end else text[keep:]

    def __repr__(self) -> str:
        return f"PairTokenizer({self._source!r}, max_length={self.max_length})"


def first_position(config: dict[str, Any]) -> int:
    """Where a model's positions start, by its ``config.json``: RoBERTa's behind the padding id."""
    if config.get("model_type") not in OFFSET_POSITION_TYPES:
        return 0
    padding = config.get("pad_token_id", 1)
    return padding + 1 if isinstance(padding, int) else 2


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one when there is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"{path} is not readable JSON ({error}). Fetch it again, or delete it: only "
            "tokenizer.json and the ONNX file are required."
        ) from error
    if not isinstance(content, dict):
        raise ModelFileError(
            f"{path} holds a {type(content).__name__}, expected a JSON object. Fetch it again."
        )
    return content


def well_formed(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot hold, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _add_special_tokens(tokenizer: Tokenizer, special_tokens: dict[str, Any]) -> None:
    tokens: list[str | AddedToken] = []
    for value in special_tokens.values():
        for token in value if isinstance(value, list) else [value]:
            if isinstance(token, str):
                tokens.append(token)
            elif isinstance(token, dict):
                flags = {k: v for k, v in token.items() if k != "__type"}
                tokens.append(AddedToken(**flags))
    tokenizer.add_special_tokens(tokens)
