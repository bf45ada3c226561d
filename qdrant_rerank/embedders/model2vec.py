"""A directory of model2vec, such as ``potion-base-8M``: the same vectors, without its package.

The vector of a text is the mean of its tokens' vectors, each times its weight, and scaled to unit
length if the model says so. Special tokens are not added, and the unknown token is left out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from qdrant_rerank.embedders.safetensors import read_safetensors
from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.hub.locate import locate_file
from qdrant_rerank.inference.tokenization import well_formed
from qdrant_rerank.inference.tokenizer_files import tokenizer_errors
from qdrant_rerank.utils.json_object import JsonObject, parse_json
from qdrant_rerank.utils.validation import as_path

__all__ = ["Model2VecEmbedder", "fetched_model2vec", "is_model2vec"]

WEIGHTS, CONFIG, MODULES = "model.safetensors", "config.json", "modules.json"
#: Names of the array of token vectors: of model2vec, and of sentence-transformers' StaticEmbedding.
VECTORS = ("embeddings", "embedding.weight")
MAX_LENGTH = 512  # tokens of a text, where the configuration names no other number
TEXTS_AT_ONCE = 1024  # so that memory stays flat
SHORTEST_NORM = 1e-32  # model2vec's


def is_model2vec(directory: Path) -> bool:
    """Return whether a directory holds a static model in model2vec's format.

    Only the header of its weights is read.
    """
    if not (directory / "tokenizer.json").is_file() or not (directory / WEIGHTS).is_file():
        return False
    return _describes_static(directory)


def fetched_model2vec(name: str) -> "Model2VecEmbedder | None":
    """Load a static model of the hub; None if the repository is of another kind, or not there.

    The configuration is fetched first, so that nothing large is fetched of another model.

    Raises:
        ModelFileError: a file of a static model is missing, damaged, or cannot be fetched.
    """
    try:
        config = locate_file(name, CONFIG, optional=(MODULES,))
    except ModelFileError:  # what loads other models says why
        return None
    if not _describes_static(config.parent):
        return None
    weights = locate_file(name, WEIGHTS, optional=(MODULES,))
    return Model2VecEmbedder.from_directory(weights.parent, name=name)


def _describes_static(directory: Path) -> bool:
    config = JsonObject.read(directory / CONFIG)
    kinds = {config.text("model_type"), *map(str, config.list_of("architectures", str))}
    if kinds & {"model2vec", "StaticModel"}:
        return True
    modules = _module_types(directory)
    return bool(modules) and modules[0].endswith("StaticEmbedding")


def _module_types(directory: Path) -> list[str]:
    try:
        modules = parse_json((directory / MODULES).read_text("utf-8"))
        return [str(module["type"]) for module in modules]
    except (OSError, ValueError, TypeError, KeyError):
        return []


class Model2VecEmbedder:
    """Embeds texts by the token vectors of a model2vec model. Safe to call from many threads.

    Args:
        vectors: shape (rows, dimension), of float32, float16 or int8.
        tokenizer: the tokenizer; its truncation and padding are replaced.
        name: name of the model, recorded in a collection that is created with it.
        weights: shape (tokens,), a factor per token id; None for no factors.
        mapping: shape (tokens,), the row of each token id; None where the row is the id.
        normalize: whether vectors are scaled to unit length.
        max_length: tokens of a text that are read; None for all.

    Attributes:
        name: name of the model.
        dimension: length of a vector.

    Raises:
        ModelFileError: the arrays do not fit each other or the tokenizer.
    """

    def __init__(
        self,
        vectors: NDArray[Any],
        tokenizer: Tokenizer,
        *,
        name: str,
        weights: NDArray[Any] | None = None,
        mapping: NDArray[Any] | None = None,
        normalize: bool = False,
        max_length: int | None = MAX_LENGTH,
    ) -> None:
        vocabulary = tokenizer.get_vocab()
        tokens = max(vocabulary.values(), default=-1) + 1
        rows = [
            len(array)
            for array in (vectors if mapping is None else mapping, weights)
            if array is not None
        ]
        fits = vectors.ndim == 2 and min(rows) >= tokens
        if fits and mapping is not None:
            fits = mapping.size > 0 and mapping.min() >= 0 and mapping.max() < len(vectors)
        if not fits:
            raise ModelFileError(
                f"{name}: vectors of shape {vectors.shape}, weights for {rows} tokens, and a "
                f"tokenizer of {tokens} tokens. The files are not of one model."
            )
        tokenizer.no_padding()
        if max_length is None:
            tokenizer.no_truncation()
        else:
            tokenizer.enable_truncation(max_length)
        self.name = name
        self._tokenizer = tokenizer
        self._vectors = vectors
        self._weights = weights
        self._mapping = mapping
        self._normalize = normalize
        # Characters that are read, as model2vec cuts them: the median token's times the max length.
        median = int(np.median([len(token) for token in vocabulary])) if vocabulary else 1
        self._most = None if max_length is None else max_length * median
        self._unknown = _unknown_token(tokenizer)

    @classmethod
    def from_directory(
        cls, directory: str | Path, *, name: str | None = None
    ) -> "Model2VecEmbedder":
        """Load ``model.safetensors``, ``tokenizer.json`` and ``config.json``.

        Args:
            directory: where these files are.
            name: name of the model; None for the directory's.

        Raises:
            InvalidInputError: ``directory`` is no path.
            ModelFileError: a file is missing, damaged, or does not fit the others.
        """
        directory = as_path("directory", directory)
        arrays = read_safetensors(directory / WEIGHTS)
        vectors = next((arrays[name] for name in VECTORS if name in arrays), None)
        if vectors is None:
            raise ModelFileError(
                f"{directory / WEIGHTS} has the arrays {', '.join(sorted(arrays)) or 'none'}; a "
                f"model2vec model has one of {', '.join(VECTORS)}."
            )
        with tokenizer_errors(f"{directory / 'tokenizer.json'} is not usable"):
            tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        config = JsonObject.read(directory / CONFIG)
        normalize = config.fields.get("normalize")
        if normalize is None:  # a StaticEmbedding of sentence-transformers
            normalize = any(kind.endswith("Normalize") for kind in _module_types(directory))
        max_length = MAX_LENGTH if "max_length" not in config.fields else config.whole("max_length")
        return cls(
            vectors,
            tokenizer,
            name=name or directory.resolve().name,
            weights=arrays.get("weights"),
            mapping=arrays.get("mapping"),
            normalize=bool(normalize),
            max_length=max_length,
        )

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._vectors.shape[1])

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a query: shape (dimension,), float32.

        A text without a known token gives zeros.
        """
        vector: NDArray[np.float32] = self.embed_documents([text])[0]
        return vector

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of n texts: shape (n, dimension), float32, input order.

        A text without a known token gives zeros, which Qdrant scores 0 for every query.
        """
        made = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            batch = [text[: self._most] for text in texts[start : start + TEXTS_AT_ONCE]]
            for row, ids in enumerate(self._token_ids(batch), start=start):
                if len(ids):
                    made[row] = self._mean(ids)
        if self._normalize:
            made /= np.linalg.norm(made, axis=1, keepdims=True) + SHORTEST_NORM
        return made

    def _mean(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        rows = ids if self._mapping is None else self._mapping[ids]
        vectors = self._vectors[rows].astype(np.float32)
        if self._weights is not None:
            vectors *= self._weights[ids].astype(np.float32)[:, None]
        mean: NDArray[np.float32] = vectors.mean(axis=0)
        return mean

    def _token_ids(self, texts: list[str]) -> list[NDArray[np.int64]]:
        try:
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:  # a lone surrogate has no UTF-8
            encodings = self._tokenizer.encode_batch_fast(
                [well_formed(text) for text in texts], add_special_tokens=False
            )
        found = [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
        return found if self._unknown is None else [ids[ids != self._unknown] for ids in found]

    def __repr__(self) -> str:
        return f"Model2VecEmbedder({self.name!r}, dimension={self.dimension})"


def _unknown_token(tokenizer: Tokenizer) -> int | None:
    """Return the id of what the tokenizer makes of letters that it does not know."""
    model = JsonObject.of(parse_json(tokenizer.to_str()), "tokenizer.json").object("model")
    token = model.text("unk_token")
    if token is not None:
        found: int | None = tokenizer.token_to_id(token)
        return found
    return model.whole("unk_id")
