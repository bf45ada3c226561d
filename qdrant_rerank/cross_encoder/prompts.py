"""Language models as rerankers: a prompt around each pair, which the model answers with yes or no.

A ``PromptTemplate`` is the question. The score is the logit of "yes" minus the logit of "no" at the
last position. Its sigmoid equals the softmax over the two, which the model card of Qwen3-Reranker
computes.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from qdrant_rerank.cross_encoder.model_config import ModelConfig
from qdrant_rerank.errors import InvalidInputError, ModelFileError
from qdrant_rerank.hub.specs import ModelSpec
from qdrant_rerank.inference.batching import TokenizedPair
from qdrant_rerank.inference.tokenization import (
    CHARACTERS_PER_TOKEN,
    MOST_CHARACTERS_PER_TOKEN,
    Side,
    well_formed,
)
from qdrant_rerank.inference.tokenizer_files import TokenizerFiles, tokenizer_errors
from qdrant_rerank.utils.validation import a_type, shown

__all__ = ["QWEN3_RERANKER", "PromptTemplate", "PromptTokenizer", "choose_prompt"]

# As in the model card's code. The decoder could read 40,960, which takes gigabytes of logits.
PROMPT_MAX_LENGTH = 8192
# Tokens that may arise where the texts meet the prompt.
JOINTS = 4


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A question to a language model about a pair.

    Attributes:
        prefix: text before the pair, special tokens included.
        body: the pair; holds {query} and {document}, and {instruction} if there is one.
        suffix: text after the pair, up to the start of the model's answer.
        instruction: what counts as relevant; a caller may replace it.
        yes: the token that answers "relevant".
        no: the token that answers "not relevant".

    Raises:
        InvalidInputError: the body lacks a field, or has an unknown one.
    """

    prefix: str
    body: str
    suffix: str
    instruction: str = ""
    yes: str = "yes"
    no: str = "no"

    def __post_init__(self) -> None:
        for name in ("prefix", "body", "suffix", "instruction", "yes", "no"):
            if not isinstance(getattr(self, name), str):
                raise InvalidInputError(f"{name} is {shown(getattr(self, name))}; expected a str.")
        try:
            fields = {field for _, field, _, _ in string.Formatter().parse(self.body) if field}
        except ValueError as error:
            raise InvalidInputError(
                f"body={self.body!r} is not a valid template: {error}."
            ) from None
        wrong = fields - {"query", "document", "instruction"} or {"query", "document"} - fields
        if wrong:
            raise InvalidInputError(
                f"body={self.body!r}: expected the fields {{query}} and {{document}}, and maybe "
                f"{{instruction}}; look at {', '.join(sorted(wrong))}."
            )


#: The prompt of Qwen3-Reranker, as its model card gives it.
QWEN3_RERANKER = PromptTemplate(
    prefix=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the "
        'Query and the Instruct provided. Note that the answer can only be "yes" or "no".'
        "<|im_end|>\n<|im_start|>user\n"
    ),
    body="<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}",
    suffix="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    instruction="Given a web search query, retrieve relevant passages that answer the query",
)


def choose_prompt(
    prompt: PromptTemplate | None, config: ModelConfig, spec: ModelSpec | None = None
) -> PromptTemplate | None:
    """Return the caller's prompt, else that of the model's family; None for plain pairs.

    Args:
        prompt: the caller's choice.
        config: the model's configuration.
        spec: the model's entry in the registry, for a model without a configuration file.

    Raises:
        InvalidInputError: the model is a language model whose prompt is not known, or the prompt
            is no template.
    """
    if not isinstance(prompt, PromptTemplate | None):
        raise InvalidInputError(f"prompt is {a_type(prompt)}; expected a PromptTemplate.")
    if prompt is not None:
        return prompt
    listed = spec is not None and spec.template == "qwen3"
    if listed or (config.causal and config.model_type == "qwen3"):
        return QWEN3_RERANKER
    if not config.causal:
        return None
    raise InvalidInputError(
        f"{config.source} describes a language model of type {config.model_type!r}, whose prompt "
        "is not known (those of 'qwen3' are). Pass prompt=PromptTemplate(...) as its model card "
        "gives it."
    )


class PromptTokenizer:
    """Tokenises pairs inside a prompt. Safe to call from many threads.

    Special tokens in a query or a document are read as plain text, so that a document cannot end
    the prompt and answer for the model.

    Args:
        tokenizer: a loaded tokenizer; its truncation and padding are reset.
        prompt: the prompt around each pair.
        instruction: replaces the prompt's own.
        max_length: tokens of a prompt with its pair.
        pad_id: id that fills up shorter rows, on their left.
        source: the tokenizer's file, named in errors.

    Attributes:
        max_length: as given.
        specials: tokens of ``max_length`` that belong to neither text.
        no_yes: ids of the two answers.
        pad_id: as given.
        pad_type_id: 0.
        padding_side: "left", because the answer is read at the last position.

    Raises:
        InvalidInputError: ``max_length`` leaves no room for a pair.
        ModelFileError: an answer is not one token.
    """

    pad_type_id = 0
    padding_side: Side = "left"

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: PromptTemplate,
        *,
        instruction: str | None = None,
        max_length: int = PROMPT_MAX_LENGTH,
        pad_id: int = 0,
        source: str = "tokenizer",
    ) -> None:
        no, yes = tokenizer.token_to_id(prompt.no), tokenizer.token_to_id(prompt.yes)
        if no is None or yes is None:
            raise ModelFileError(
                f"{source} has no single token for {prompt.no!r} or {prompt.yes!r}, by which the "
                "model would answer. Pass prompt=PromptTemplate(yes=..., no=...) as its model card "
                "gives it."
            )
        # Set once, here: changing a tokenizer while threads use it is not safe.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        with tokenizer_errors(f"{source} is not usable"):
            self._prefix = tokenizer.encode(prompt.prefix, add_special_tokens=False).ids
            self._suffix = tokenizer.encode(prompt.suffix, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._body = prompt.body
        self._instruction = prompt.instruction if instruction is None else instruction
        self._source = source
        self._frame = len(tokenizer.encode(self._fill("", ""), add_special_tokens=False).ids)
        self._room = max_length - len(self._prefix) - len(self._suffix)
        self.specials = max_length - self._room + self._frame + JOINTS
        if max_length < self.specials + 2:
            raise InvalidInputError(
                f"max_length is {max_length}, but the prompt and one token of the query and of the "
                f"document need at least {self.specials + 2}."
            )
        self.max_length = max_length
        self.no_yes: tuple[int, int] = (no, yes)
        self.pad_id = pad_id

    @classmethod
    def from_directory(
        cls,
        directory: Path,
        prompt: PromptTemplate,
        *,
        instruction: str | None = None,
        max_length: int | None = None,
    ) -> "PromptTokenizer":
        """Load ``tokenizer.json``, and the configuration files beside it if they exist.

        Args:
            directory: holds ``tokenizer.json``.
            prompt: the prompt around each pair.
            instruction: replaces the prompt's own.
            max_length: tokens of a prompt with its pair; None for the model's own limit, at most
                8,192.

        Raises:
            ModelFileError: no tokenizer, or a file that cannot be read.
            InvalidInputError: ``max_length`` is more than the model has positions for.
        """
        files = TokenizerFiles.load(directory)
        own = files.max_length(None)
        return cls(
            files.tokenizer,
            prompt,
            instruction=instruction,
            max_length=min(own, PROMPT_MAX_LENGTH)
            if max_length is None
            else files.max_length(max_length),
            pad_id=files.pad_id(),
            source=str(files.path),
        )

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[TokenizedPair]:
        """Tokenise pairs, in order, and cut a document's end if a pair does not fit.

        A query longer than half of the room is cut to what the document leaves. Texts are clipped
        before tokenising as in a :class:`PairTokenizer`.
        """
        rows = self._rows(pairs, CHARACTERS_PER_TOKEN)
        clipped = self.max_length * CHARACTERS_PER_TOKEN
        again = [
            row
            for row, pair in enumerate(pairs)
            if max(map(len, pair)) > clipped and len(rows[row]) < self.max_length
        ]
        retried = self._rows([pairs[row] for row in again], MOST_CHARACTERS_PER_TOKEN)
        for row, other in zip(again, retried, strict=True):
            rows[row] = other
        return rows

    def without_truncation(self) -> Tokenizer:
        """Return a copy of the tokenizer, which never truncates."""
        copy = Tokenizer.from_str(self._tokenizer.to_str())
        copy.encode_special_tokens = True
        return copy

    def _rows(
        self, pairs: Sequence[tuple[str, str]], characters_per_token: int
    ) -> list[TokenizedPair]:
        keep = self.max_length * characters_per_token
        texts = [(query[:keep], document[:keep]) for query, document in pairs]
        bodies = self._encode([self._fill(*pair) for pair in texts])
        rows = []
        for pair, clipped, body in zip(pairs, texts, bodies, strict=True):
            fits = len(body) <= self._room
            ids = [*self._prefix, *(body if fits else self._cut(*clipped)), *self._suffix]
            rows.append(
                TokenizedPair(
                    np.array(ids, dtype=np.int64),
                    np.zeros(len(ids), dtype=np.int64),
                    not fits or any(text[keep:].strip() for text in pair),
                )
            )
        return rows

    def _cut(self, query: str, document: str) -> list[int]:
        query, document = well_formed(query), well_formed(document)
        capacity = self._room - self._frame
        [others] = self._encode([document])
        own = self._tokenizer.encode(query, add_special_tokens=False)
        most = max(capacity // 2, capacity - len(others))
        if len(own) > most:
            query = query[: own.offsets[most][0]]
        [body] = self._encode([self._fill(query, document)])
        return body[: self._room]

    def _fill(self, query: str, document: str) -> str:
        return self._body.format(instruction=self._instruction, query=query, document=document)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        encode = self._tokenizer.encode_batch_fast
        with tokenizer_errors(f"{self._source} failed on a text"):
            try:
                encodings = encode(list(texts), add_special_tokens=False)
            except TypeError:  # a lone surrogate has no UTF-8
                encodings = encode(list(map(well_formed, texts)), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def __repr__(self) -> str:
        return f"PromptTokenizer({self._source!r}, max_length={self.max_length})"
