"""Static token vectors: there is no model to run, so embedding a text takes microseconds.

The vector of a text is the mean of its tokens' vectors, scaled to unit length (as in model2vec).
The vectors were distilled from all-MiniLM-L6-v2 by ``training/static_embedder.py``, with each
token's weight in the mean folded into the length of its vector.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.hub.specs import BUNDLED_DIRECTORY, DEFAULT_EMBEDDER
from qdrant_rerank.inference.tokenization import well_formed
from qdrant_rerank.inference.tokenizer_files import read_json
from qdrant_rerank.utils.validation import as_path

__all__ = ["StaticEmbedder"]

# Characters of a text that are read (100 pages), so that a document of 10 MB stays cheap.
MOST_CHARACTERS = 200_000
TEXTS_AT_ONCE = 1024  # so that memory stays flat


class StaticEmbedder:
    """Embeds texts by averaging token vectors. Safe to call from many threads.

    Args:
        vectors: shape (tokens, dimension), int8; row i, times ``scales[i]``, is the vector of
            token id i.
        scales: shape (tokens,), float32.
        tokenizer: the tokenizer; its truncation and padding are switched off.
        name: name of the model, recorded in a collection that is created with it.

    Attributes:
        name: name of the model.
        dimension: length of a vector.

    Raises:
        ModelFileError: the arrays do not fit each other or the tokenizer.

    Examples:
        >>> embedder = StaticEmbedder.bundled()
        >>> cat, feline, bond = embedder.embed_documents(["a cat", "a kitten", "government bonds"])
        >>> bool(cat @ feline > cat @ bond)
        True
    """

    def __init__(
        self,
        vectors: NDArray[np.int8],
        scales: NDArray[np.float32],
        tokenizer: Tokenizer,
        *,
        name: str,
    ) -> None:
        tokens = tokenizer.get_vocab_size()
        if vectors.ndim != 2 or scales.shape != vectors.shape[:1] or len(vectors) < tokens:
            raise ModelFileError(
                f"{name}: vectors of shape {vectors.shape} and scales of shape {scales.shape} for "
                f"{tokens} tokens; expected (tokens, dimension) and (tokens,). The files are not "
                "of one model."
            )
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._vectors = vectors
        self._scales = scales
        self.name = name

    @classmethod
    def bundled(cls) -> "StaticEmbedder":
        """Load the embedder that is part of the package; uses no network."""
        return cls.from_directory(BUNDLED_DIRECTORY / DEFAULT_EMBEDDER)

    @classmethod
    def from_directory(cls, directory: str | Path) -> "StaticEmbedder":
        """Load ``vectors.npy``, ``scales.npy``, ``tokenizer.json`` and an optional ``config.json``.

        Raises:
            InvalidInputError: ``directory`` is no path.
            ModelFileError: a file is missing, damaged, or does not fit the others.
        """
        directory = as_path("directory", directory)
        try:
            vectors = np.load(directory / "vectors.npy", allow_pickle=False)
            scales = np.load(directory / "scales.npy", allow_pickle=False)
            tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        except Exception as error:  # the tokenizer library raises bare Exceptions
            raise ModelFileError(
                f"{directory} holds no readable static embedder ({error}). Expected vectors.npy, "
                "scales.npy and tokenizer.json. Download or build it again."
            ) from error
        name = read_json(directory / "config.json").get("name", directory.name)
        return cls(vectors, scales, tokenizer, name=name)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._vectors.shape[1])

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a query: shape (dimension,), float32, unit length.

        A text without a token gives zeros.
        """
        vector: NDArray[np.float32] = self.embed_documents([text])[0]
        return vector

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of n texts: shape (n, dimension), float32, unit length, input order.

        A text without a token gives zeros, which Qdrant scores 0 for every query. Only the first
        200,000 characters of a text are read.
        """
        made = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            batch = [text[:MOST_CHARACTERS] for text in texts[start : start + TEXTS_AT_ONCE]]
            for row, ids in enumerate(self._token_ids(batch), start=start):
                if ids:
                    total = self._scales[ids] @ self._vectors[ids].astype(np.float32)
                    made[row] = total / max(float(np.linalg.norm(total)), 1e-12)
        return made

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        try:
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:  # a lone surrogate has no UTF-8
            encodings = self._tokenizer.encode_batch_fast(
                [well_formed(text) for text in texts], add_special_tokens=False
            )
        return [encoding.ids for encoding in encodings]

    def __repr__(self) -> str:
        return f"StaticEmbedder({self.name!r}, dimension={self.dimension})"
