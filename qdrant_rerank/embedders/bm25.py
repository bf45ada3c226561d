"""BM25 as sparse vectors: the same numbers as fastembed's ``Qdrant/bm25`` for English.

A document's vector holds the term-frequency part of BM25, a query's vector holds ones, and
Qdrant multiplies by the inverse document frequency (``Modifier.IDF``). So this encoder can search
a collection that fastembed or the server's own BM25 has filled, and the reverse. (The server also
splits at underscores and keeps words of more than 40 characters; fastembed and this encoder do
neither.)
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import mmh3
from py_rust_stemmers import SnowballStemmer

from qdrant_rerank.errors import InvalidInputError

if TYPE_CHECKING:
    from qdrant_client.models import SparseVector

__all__ = ["Bm25Encoder"]

# NLTK's English list, which fastembed and the Qdrant server use, without its contractions. The
# tokenizer splits at apostrophes, so contractions never match.
STOP_WORDS = frozenset(
    """
    i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she
    her hers herself it its itself they them their theirs themselves what which who whom this that
    these those am is are was were be been being have has had having do does did doing a an the and
    but if or because as until while of at by for with about against between into through during
    before after above below to from up down in out on off over under again further then once here
    there when where why how all any both each few more most other some such no nor not only own
    same so than too very s t can will just don should now d ll m o re ve y ain aren couldn didn
    doesn hadn hasn haven isn ma mightn mustn needn shan shouldn wasn weren won wouldn
    """.split()
)
LONGEST_TOKEN = 40  # characters; longer tokens are noise, such as base64
_SEPARATOR = re.compile(r"[^\w]")


class Bm25Encoder:
    """Encodes English text for BM25 scoring in Qdrant. Safe to call from many threads.

    The weight of a term that occurs f times in a document of n terms is (Robertson and Zaragoza
    2009; the average document length is a constant, as in fastembed)::

        f * (k + 1) / (f + k * (1 - b + b * n / avg_len))

    Args:
        k: saturation of the term frequency, 0 or more.
        b: weight of the document length, 0 to 1.
        avg_len: assumed average document length in terms.

    Raises:
        InvalidInputError: a parameter is out of range.

    Examples:
        >>> vector = Bm25Encoder().embed_query("the running dogs")
        >>> len(vector.indices), vector.values
        (2, [1.0, 1.0])
    """

    #: fastembed's and the server's name for these vectors.
    name = "Qdrant/bm25"

    def __init__(self, k: float = 1.2, b: float = 0.75, avg_len: float = 256.0) -> None:
        if k < 0 or not 0 <= b <= 1 or avg_len <= 0:
            raise InvalidInputError(
                f"k={k}, b={b}, avg_len={avg_len}; expected k >= 0, 0 <= b <= 1, avg_len > 0."
            )
        self.k = k
        self.b = b
        self.avg_len = avg_len
        self._stem = SnowballStemmer("english").stem_word

    def embed_documents(self, texts: Sequence[str]) -> "list[SparseVector]":
        """Return the term weights of documents; a text without terms gives an empty vector.

        Returns:
            One vector per text: ``indices`` are hashes of terms (0 to 2**31), ``values`` are
            above 0.
        """
        return [self._document_vector(self._terms(text)) for text in texts]

    def embed_query(self, text: str) -> "SparseVector":
        """Return the terms of a query, each once with weight 1.0."""
        from qdrant_client.models import SparseVector

        indices = sorted({_term_id(term) for term in self._terms(text)})
        return SparseVector(indices=indices, values=[1.0] * len(indices))

    def _document_vector(self, terms: list[str]) -> "SparseVector":
        from qdrant_client.models import SparseVector

        norm = self.k * (1 - self.b + self.b * len(terms) / self.avg_len)
        # If two terms have the same hash, the later one wins, as in fastembed.
        weights = {
            _term_id(term): count * (self.k + 1) / (count + norm)
            for term, count in Counter(terms).items()
        }
        return SparseVector(indices=list(weights), values=list(weights.values()))

    def _terms(self, text: str) -> list[str]:
        stems = (
            self._stem(token)
            # Lone surrogates become spaces, because the stemmer takes only valid UTF-8.
            for token in _SEPARATOR.sub(" ", text.lower()).split()
            if token not in STOP_WORDS and token != "_" and len(token) <= LONGEST_TOKEN
        )
        return [stem for stem in stems if stem]

    def __repr__(self) -> str:
        return f"Bm25Encoder(k={self.k}, b={self.b}, avg_len={self.avg_len})"


def _term_id(term: str) -> int:
    return abs(int(mmh3.hash(term)))
