"""SPLADE: learned sparse vectors of an ONNX masked-language model.

The weight of a vocabulary's entry is log(1 + relu(logit)), the largest over the text's tokens
(Formal et al., SPLADE v2, 2021); OpenSearch's models of version 3 take the logarithm twice (Geng et
al., 2025). The logarithm and relu grow with the logit, so that the largest logit is sought first.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from qdrant_rerank.embedders.safetensors import read_safetensors
from qdrant_rerank.embedders.splade_layout import (
    FILES,
    IDF,
    Activation,
    Pooling,
    Side,
    read_layout,
    settled,
)
from qdrant_rerank.embedders.text_batches import run_on_texts
from qdrant_rerank.errors import MissingPrecisionError, ModelFileError, ModelOutputError
from qdrant_rerank.hub.locate import ModelFiles, locate_embedder, path_of
from qdrant_rerank.inference.plan import make_plan
from qdrant_rerank.inference.request import Request
from qdrant_rerank.inference.runtime import Runtime
from qdrant_rerank.inference.tokenization import (
    MOST_CHARACTERS_PER_TOKEN,
    PairTokenizer,
    well_formed,
)
from qdrant_rerank.inference.tokenizer_files import TokenizerFiles
from qdrant_rerank.utils.json_object import JsonObject
from qdrant_rerank.utils.validation import require_choice, require_positive

if TYPE_CHECKING:
    from qdrant_client.models import SparseVector

__all__ = ["SpladeEncoder"]

TASK = "fill-mask"  # of an export whose output are the vocabulary's logits
WEIGHTS = "model.safetensors"  # of the table of an asymmetric model


class SpladeEncoder:
    """A ``SparseEncoder`` that runs a SPLADE model. Safe to call from many threads.

    Symmetric models encode queries and documents alike. Asymmetric ones, such as OpenSearch's
    ``doc`` models, look the weights of a query's tokens up in a table, in microseconds.

    Args:
        model_name: a hub repository with ``onnx/model.onnx``, which is downloaded once; or a
            directory with ``model.onnx`` or ``onnx/model.onnx`` and ``tokenizer.json``. The output
            is the vocabulary's logits for each token, or the pooled weights of each text.
        pooling: "max" or "sum"; None for what ``modules.json`` says, else "max".
        activation: "relu", or "log1p_relu" for a second logarithm; None for what ``modules.json``
            says, else "relu".
        max_active_dims: entries of a vector, at most: those of the largest weights. None for all.
        cache_dir: where downloads are kept; None for ``QDRANT_RERANK_CACHE``, or else the hub's
            own cache.
        threads: batches that run at the same time on a CPU; None for one per core.
        max_length: longest text in tokens; longer texts are cut. None for the model's own limit.
        local_files_only: whether to never use the network.

    Attributes:
        name: the hub repository, or the name of the directory.
        needs_idf: False; the weights are complete, so a collection has no IDF modifier for them.

    Raises:
        ModelFileError: a file is missing, damaged, or cannot be downloaded.
        ModelOutputError: the model returns neither logits nor weights of its vocabulary.
        InvalidInputError: an argument is wrong, or no file tells the activation.
    """

    needs_idf = False

    def __init__(
        self,
        model_name: str | Path,
        *,
        pooling: Pooling | None = None,
        activation: Activation | None = None,
        max_active_dims: int | None = None,
        cache_dir: str | Path | None = None,
        threads: int | None = None,
        max_length: int | None = None,
        local_files_only: bool = False,
    ) -> None:
        if pooling is not None:
            require_choice("pooling", pooling, Pooling)
        if activation is not None:
            require_choice("activation", activation, Activation)
        require_positive("max_active_dims", max_active_dims)
        require_positive("max_length", max_length)
        require_positive("threads", threads)
        root = path_of("model_name", model_name)
        files = None
        if not root.is_dir():
            files = locate_embedder(
                model_name,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                task=TASK,
                optional=FILES,
            )
            root = files.tokenizer
        layout = read_layout(root)
        self.name = root.resolve().name if files is None else files.name

        def opened(side: Side) -> "_Encoder":
            if side.table:
                return _Table(side, max_active_dims)
            found = _network_files(root, side) if files is None else files
            return _Network(
                settled(side, pooling, activation), found, max_active_dims, threads, max_length
            )

        self._document = opened(layout.document)
        same = layout.query == layout.document
        self._query = self._document if same else opened(layout.query)
        self._document.encode(["a"])  # shows whether it is such a model

    def embed_query(self, text: str) -> "SparseVector":
        """Return the vector of a query: the indices and values that are not zero.

        Returns:
            ``indices`` are token ids, ascending.
        """
        [vector] = self._query.encode([text])
        return vector

    def embed_documents(self, texts: Sequence[str]) -> "list[SparseVector]":
        """Return one vector per text, in input order. A text over the max length is cut."""
        return self._document.encode(texts)

    def __repr__(self) -> str:
        return f"SpladeEncoder({self.name!r})"


class _Encoder(ABC):
    """Encodes queries, or documents.

    Args:
        side: how.
        most: entries of a vector, at most; None for all.
    """

    def __init__(self, side: Side, most: int | None) -> None:
        self._side = side
        self._most = most

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> "list[SparseVector]":
        """Return one vector per text, in input order."""

    def _sparse(self, indices: NDArray[np.int64], weights: NDArray[np.float32]) -> "SparseVector":
        from qdrant_client.models import SparseVector

        if self._most is not None and len(indices) > self._most:
            kept = np.argpartition(weights, -self._most)[-self._most :]
            kept.sort()
            indices, weights = indices[kept], weights[kept]
        return SparseVector(indices=indices.tolist(), values=weights.tolist())


class _Network(_Encoder):
    """A masked-language model, whose logits are pooled."""

    def __init__(
        self,
        side: Side,
        files: ModelFiles,
        most: int | None,
        threads: int | None,
        max_length: int | None,
    ) -> None:
        super().__init__(side, most)
        own = TokenizerFiles.load(files.tokenizer)
        if max_length is None:
            config = JsonObject.read(files.tokenizer / "sentence_bert_config.json")
            limits = (config.whole("max_seq_length"), own.max_length(None))
            max_length = min(limit for limit in limits if limit is not None)
        self._tokenizer = PairTokenizer.from_directory(files.tokenizer, max_length=max_length)
        self._tokens = own.tokenizer.get_vocab_size(with_added_tokens=False)
        files.require_own_data()
        request = Request(threads=threads, engine="onnxruntime")
        self._runtime = Runtime(files.model, make_plan(request, files.precision))

    def encode(self, texts: Sequence[str]) -> "list[SparseVector]":
        """As of ``_Encoder``; batches of similar length run at the same time."""
        made: list[SparseVector | None] = [None] * len(texts)

        def take(rows: NDArray[Any], output: NDArray[np.float32], mask: NDArray[np.int64]) -> None:
            self._require_vocabulary(output, mask)
            for row, values, on_tokens in zip(rows, output, mask, strict=True):
                made[row] = self._pooled(values, on_tokens)

        prompted = [self._side.prompt + text for text in texts]
        run_on_texts(self._runtime, self._tokenizer, prompted, take, may_spread=True)
        return [vector for vector in made if vector is not None]

    def _pooled(self, values: NDArray[np.float32], on_tokens: NDArray[np.int64]) -> "SparseVector":
        """Return the vector of one text.

        Args:
            values: logits, shape (width, vocabulary), or weights, shape (vocabulary,).
            on_tokens: shape (width,); 1 on tokens and 0 on padding.
        """
        if values.ndim == 1:
            self._require_finite(values)
            indices = np.flatnonzero(values > 0)
            return self._sparse(indices, values[indices])
        places = np.flatnonzero(on_tokens)  # without a gap, on either side
        values = values[places[0] : places[-1] + 1]
        if self._side.pooling == "sum":
            weights = self._activated(np.maximum(values, 0)).sum(axis=0)
            self._require_finite(weights)
            indices = np.flatnonzero(weights)
            return self._sparse(indices, weights[indices])
        highest = values.max(axis=0)
        self._require_finite(highest)
        indices = np.flatnonzero(highest > 0)
        return self._sparse(indices, self._activated(highest[indices]))

    def _activated(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        weights: NDArray[np.float32] = np.log1p(values)
        return np.log1p(weights) if self._side.activation == "log1p_relu" else weights

    def _require_vocabulary(self, output: NDArray[np.float32], mask: NDArray[np.int64]) -> None:
        shapes = {2: (len(mask),), 3: mask.shape}
        fits = output.shape[:-1] == shapes.get(output.ndim) and output.shape[-1] >= self._tokens
        if not fits:
            raise ModelOutputError(
                f"{self._runtime.path} returned shape {output.shape} for texts of shape "
                f"{mask.shape}; a SPLADE model returns the vocabulary's logits (n, tokens, "
                f"{self._tokens}) or weights (n, {self._tokens}). Is it an embedding model or a "
                f"cross-encoder? Export it with the task {TASK}."
            )

    def _require_finite(self, highest: NDArray[np.float32]) -> None:
        if not highest.max() < np.inf:  # nor is NaN
            raise ModelOutputError(
                f"{self._runtime.path} returned NaN or infinity; expected finite logits. Check the "
                "model and its input."
            )


class _Table(_Encoder):
    """A weight per token, and no network."""

    def __init__(self, side: Side, most: int | None) -> None:
        super().__init__(side, most)
        files = TokenizerFiles.load(side.folder)
        self._tokenizer = files.tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(files.max_length(None))
        self._tokenizer.encode_special_tokens = True  # as plain text
        self._most_characters = files.max_length(None) * MOST_CHARACTERS_PER_TOKEN
        self._weights = _weights(side.folder, self._tokenizer)

    def encode(self, texts: Sequence[str]) -> "list[SparseVector]":
        """As of ``_Encoder``: each token of a text once, with its weight."""
        made = []
        for text in texts:
            read = well_formed((self._side.prompt + text)[: self._most_characters])
            ids = self._tokenizer.encode(read, add_special_tokens=False).ids
            indices = np.unique(np.array(ids, dtype=np.int64))
            weights = self._weights[indices]
            kept = weights != 0
            made.append(self._sparse(indices[kept], weights[kept]))
        return made


def _network_files(root: Path, side: Side) -> ModelFiles:
    """Find the ONNX file of a network: in its own folder, or at the top of the model."""
    try:
        return locate_embedder(side.folder, task=TASK)
    except MissingPrecisionError:
        if side.folder == root:
            raise
        try:
            found = locate_embedder(root, task=TASK)
        except MissingPrecisionError as at_the_top:
            raise at_the_top from None
        return ModelFiles(root.name, found.model, side.folder)


def _weights(folder: Path, tokenizer: Tokenizer) -> NDArray[np.float32]:
    """Read the weight of each token id; shape (tokens,).

    Raises:
        ModelFileError: the table is damaged, or does not fit the tokenizer.
    """
    tokens = tokenizer.get_vocab_size()
    if (folder / WEIGHTS).is_file():
        arrays = read_safetensors(folder / WEIGHTS)
        weights = arrays.get("weight")
        if weights is None or weights.ndim != 1 or len(weights) < tokens:
            shapes = {name: array.shape for name, array in arrays.items()}
            raise ModelFileError(
                f"{folder / WEIGHTS} has arrays of the shapes {shapes}; expected 'weight' of shape "
                f"({tokens},), one per token."
            )
        return weights.astype(np.float32)
    table = JsonObject.read(folder / IDF)
    found = np.zeros(tokens, dtype=np.float32)
    for token in table.fields:
        number = tokenizer.token_to_id(token)
        if number is not None:
            found[number] = table.number(token)
    if not found.any():
        raise ModelFileError(
            f"{folder} has no {WEIGHTS} and no {IDF} with weights of the tokenizer's tokens. Fetch "
            "the model again."
        )
    return found
