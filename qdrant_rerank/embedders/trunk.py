"""Dense vectors of the transformer inside the bundled reranker: e5-small-v2, in int8.

The reranker reads query and document each alone, and its file gives the vector of the first text
besides the score. So the embedder has no files of its own, and in a process that has loaded the
reranker as well both run one session, with one copy of the weights.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers.processors import BertProcessing

from qdrant_rerank.embedders.text_batches import run_on_texts
from qdrant_rerank.hub.locate import ModelFiles, locate
from qdrant_rerank.hub.specs import DEFAULT_RERANKER, TRUNK_EMBEDDER
from qdrant_rerank.inference.plan import make_plan
from qdrant_rerank.inference.request import Request
from qdrant_rerank.inference.runtime import Runtime
from qdrant_rerank.inference.tokenization import PairTokenizer
from qdrant_rerank.inference.tokenizer_files import TokenizerFiles
from qdrant_rerank.utils.validation import require_positive, require_several

__all__ = ["TrunkEmbedder"]

OUTPUT = "vector"  # of the reranker's file: (texts, dimension), unit length
QUERY, PASSAGE = "query: ", "passage: "  # what e5 was trained to read before a text
SEP, CLS = "[SEP]", "[CLS]"


class TrunkEmbedder:
    """e5-small-v2, as it is inside the bundled reranker. Safe to call from many threads.

    A query is read as ``query: ...`` and a document as ``passage: ...``, as e5 was trained; the
    vector is the mean of the last states, scaled to unit length.

    Args:
        threads: texts that are embedded at the same time; None for one per core.
        max_length: longest text in tokens, 5 to 512; longer texts are cut. None for 512.

    Attributes:
        name: "e5-small-v2", recorded in a collection that is created with it.
        dimension: 384.

    Raises:
        ModelFileError: a file of the bundled reranker is missing or damaged.
        InvalidInputError: ``threads`` is no positive int, or ``max_length`` none from 5 to 512.
    """

    name = TRUNK_EMBEDDER

    def __init__(self, *, threads: int | None = None, max_length: int | None = None) -> None:
        require_positive("max_length", max_length)
        self._arguments = {"threads": threads, "max_length": max_length}
        files: ModelFiles = locate(DEFAULT_RERANKER)
        own = TokenizerFiles.load(files.tokenizer)
        # The reranker's template has the prefixes in it, of a pair.
        ids = own.tokenizer.get_vocab()
        own.tokenizer.post_processor = BertProcessing((SEP, ids[SEP]), (CLS, ids[CLS]))
        self._tokenizer = PairTokenizer(
            own.tokenizer,
            max_length=own.max_length(max_length),
            pad_id=own.pad_id(),
            source=str(own.path),
        )
        files.require_own_data()
        # The request that a reranker makes by name, so that both share a session.
        plan = make_plan(Request(threads=threads), files.precision)
        self._runtime = Runtime(files.model, plan, output=OUTPUT)
        self.dimension = len(self.embed_query("a"))

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a query: shape (dimension,), float32, unit length."""
        vector: NDArray[np.float32] = self._embed([QUERY + text])[0]
        return vector

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of n texts: shape (n, dimension), float32, unit length, input order.

        A text that exceeds the max length is cut.

        Raises:
            InvalidInputError: ``texts`` is one text.
        """
        require_several("texts", texts)
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        return self._embed([PASSAGE + text for text in texts])

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        vectors: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(texts)

        def take(rows: NDArray[Any], output: NDArray[np.float32], _: NDArray[np.int64]) -> None:
            for row, vector in zip(rows, output, strict=True):
                vectors[row] = vector

        run_on_texts(self._runtime, self._tokenizer, texts, take)
        return np.stack(vectors)

    def __reduce__(self) -> tuple[Any, ...]:
        """Give the arguments to another process, which loads the model itself."""
        return partial(TrunkEmbedder, **self._arguments), ()

    def __repr__(self) -> str:
        return f"TrunkEmbedder(dimension={self.dimension})"
