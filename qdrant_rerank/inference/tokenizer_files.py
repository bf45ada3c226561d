"""A model's directory -> its tokenizer, its max length and its padding."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from qdrant_rerank.errors import InvalidInputError, ModelFileError

__all__ = ["DEFAULT_MAX_LENGTH", "TOKENIZER_FILES", "TokenizerFiles", "first_position", "read_json"]

# Files of a model's directory that decide how its texts are read.
TOKENIZER_FILES = (
    "tokenizer.json",
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
DEFAULT_MAX_LENGTH = 512  # tokens, if no file of the model says otherwise
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
    config: dict[str, Any]
    tokenizer_config: dict[str, Any]

    @classmethod
    def load(cls, directory: Path) -> "TokenizerFiles":
        """Read a directory.

        Raises:
            ModelFileError: there is no ``tokenizer.json``, or a file cannot be read.
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

    def max_length(self, wanted: int | None) -> int:
        """Return the tokens of a pair that the model reads, at most what its position table holds.

        Args:
            wanted: the caller's choice; None for the least that the files declare.

        Raises:
            InvalidInputError: ``wanted`` is more than the position table holds.
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
        """Return the id that fills up shorter rows."""
        padding: dict[str, Any] = self.tokenizer.padding or {}
        token = padding.get("pad_token") or self.tokenizer_config.get("pad_token")
        if isinstance(token, dict):
            token = token.get("content")
        candidates = [
            padding.get("pad_id"),
            self.config.get("pad_token_id"),
            *(self.tokenizer.token_to_id(name) for name in (token, "[PAD]", "<pad>") if name),
        ]
        # Padding is masked out, so any id will do if no file names one.
        return next((int(value) for value in candidates if value is not None), 0)


def first_position(config: dict[str, Any]) -> int:
    """Return a model's first position by its ``config.json``; RoBERTa's is after the padding id."""
    if config.get("model_type") not in OFFSET_POSITION_TYPES:
        return 0
    padding = config.get("pad_token_id", 1)
    return padding + 1 if isinstance(padding, int) else 2


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if there is no such file.

    Raises:
        ModelFileError: the file cannot be read, or holds something else.
    """
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
