"""A model's directory -> its tokenizer, its max length and its padding."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer

from qdrant_rerank.errors import InvalidInputError, ModelFileError, QdrantRerankError
from qdrant_rerank.utils.json_object import JsonObject

__all__ = [
    "DEFAULT_MAX_LENGTH",
    "TOKENIZER_FILES",
    "Side",
    "TokenizerFiles",
    "first_position",
    "read_json",
    "tokenizer_errors",
]

Side = Literal["left", "right"]

# Files of a model's directory that decide how its texts are read.
TOKENIZER_FILES = (
    "tokenizer.json",
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
DEFAULT_MAX_LENGTH = 512  # tokens, if no file of the model says otherwise
TOKEN_FLAGS = frozenset("content single_word lstrip rstrip normalized special".split())
# Models whose position table starts after the padding index: it is longer than the max length by
# pad_token_id + 1 (RoBERTa: 514 for 512).
OFFSET_POSITION_TYPES = frozenset(
    "camembert data2vec-text longformer mpnet roberta roberta-prelayernorm xlm-roberta "
    "xlm-roberta-xl xmod".split()
)


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """Contents of the files about a model's tokens.

    Attributes:
        path: of ``tokenizer.json``.
        tokenizer: read from it, with the special tokens that other files name.
        config: content of ``config.json``; empty if there is no such file.
        tokenizer_config: content of ``tokenizer_config.json``; empty if there is no such file.
    """

    path: Path
    tokenizer: Tokenizer
    config: JsonObject
    tokenizer_config: JsonObject

    @classmethod
    def load(cls, directory: Path) -> "TokenizerFiles":
        """Read a directory.

        Raises:
            ModelFileError: there is no ``tokenizer.json``, a file cannot be read, or a field has a
                wrong type.
        """
        path = directory / "tokenizer.json"
        if not path.is_file():
            raise ModelFileError(
                f"No tokenizer.json in {directory}. A cross-encoder needs the tokenizer it was "
                "trained with: put the model's own tokenizer.json there."
            )
        with tokenizer_errors(
            f"{path} ({path.stat().st_size:,} bytes) is not a readable tokenizer"
        ):
            tokenizer = Tokenizer.from_file(str(path))
        config = JsonObject.read(directory / "config.json")
        tokenizer_config = JsonObject.read(directory / "tokenizer_config.json")
        special_tokens = JsonObject.read(directory / "special_tokens_map.json")
        tokens = [
            token for name in special_tokens.fields for token in _tokens(special_tokens, name)
        ]
        with tokenizer_errors(f"{path} does not take the tokens of {special_tokens.source}"):
            tokenizer.add_special_tokens(tokens)
        return cls(path, tokenizer, config, tokenizer_config)

    def max_length(self, wanted: int | None) -> int:
        """Return the tokens of a pair that the model reads, at most what its position table holds.

        Args:
            wanted: the caller's choice; None for the model's own limit: the lesser of
                ``model_max_length`` and the size of the position table.

        Raises:
            InvalidInputError: ``wanted`` is more than the position table holds.
        """
        positions = self.config.whole("max_position_embeddings") or 0
        hard = positions - first_position(self.config)
        if wanted is not None:
            if 0 < hard < wanted:
                raise InvalidInputError(
                    f"max_length is {wanted}, but the model in {self.path.parent} has positions "
                    f"for {hard} tokens (config.json). Pass at most {hard}."
                )
            return wanted
        own = [self.tokenizer_config.number("model_max_length"), hard]
        # What the tokenizer was last cut to when it was saved: transformers writes it beside the
        # model's own limit.
        saved = [self.tokenizer_config.number("max_length")]
        for declared in (own, saved):
            # transformers writes 1e30 for "no limit".
            if usable := [int(n) for n in declared if n is not None and 0 < n < 1_000_000]:
                return min(usable)
        return DEFAULT_MAX_LENGTH

    def pad_id(self) -> int:
        """Return the id that fills up shorter rows."""
        padding: dict[str, Any] = self.tokenizer.padding or {}
        token = padding.get("pad_token") or next(
            iter(_tokens(self.tokenizer_config, "pad_token")), ""
        )
        candidates = [
            padding.get("pad_id"),
            self.config.whole("pad_token_id"),
            *(self.tokenizer.token_to_id(str(name)) for name in (token, "[PAD]", "<pad>")),
        ]
        # Padding is masked out, so any id will do if no file names one; some files say -1.
        return next((int(value) for value in candidates if value is not None and value >= 0), 0)

    def side(self, name: str, default: Side) -> Side:
        """Return a side that ``tokenizer_config.json`` names, such as "padding_side"."""
        match self.tokenizer_config.text(name) or default:
            case "left" | "right" as side:
                return side
        raise self.tokenizer_config.wrong(name, "'left' or 'right'")


def first_position(config: JsonObject) -> int:
    """Return a model's first position by its ``config.json``; RoBERTa's is after the padding id."""
    if config.text("model_type") not in OFFSET_POSITION_TYPES:
        return 0
    padding = config.whole("pad_token_id")
    return 2 if padding is None else padding + 1


@contextmanager
def tokenizer_errors(fault: str) -> Iterator[None]:
    """Raise the library's bare exceptions and its panics, which are no Exceptions, in our words.

    A TypeError passes: the library raises it for a lone surrogate.

    Raises:
        ModelFileError: the library failed.
    """
    try:
        yield
    except (TypeError, QdrantRerankError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelFileError(
            f"{fault}: {error}. tokenizer.json may be truncated or damaged; fetch it again."
        ) from error


def read_json(path: Path) -> Mapping[str, Any]:
    """Return the object in a JSON file; an empty one if there is no such file.

    Raises:
        ModelFileError: the file cannot be read, or holds something else.
    """
    return JsonObject.read(path).fields


def _tokens(source: JsonObject, name: str) -> list[str | AddedToken]:
    """Return the tokens in a field: a text, an object with flags, a list of these, or a dict."""
    expected = "a token: a string, or an object with its content"
    tokens: list[str | AddedToken] = []
    value = source.fields.get(name)
    if isinstance(value, dict) and "content" not in value:
        value = list(value.values())
    for token in value if isinstance(value, list) else [value]:
        if isinstance(token, str):
            tokens.append(token)
        elif isinstance(token, dict):
            flags = {key: flag for key, flag in token.items() if key in TOKEN_FLAGS}
            try:
                tokens.append(AddedToken(**flags))
            except TypeError:
                raise source.wrong(name, expected) from None
        elif token is not None:
            raise source.wrong(name, expected)
    return tokens
