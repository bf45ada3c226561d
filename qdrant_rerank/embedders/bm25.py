"""BM25 as sparse vectors: the same numbers as fastembed's ``Qdrant/bm25``, in its 18 languages.

A document's vector holds the term-frequency part of BM25, a query's vector holds ones, and
Qdrant multiplies by the inverse document frequency (``Modifier.IDF``). So this encoder can search
a collection that fastembed or the server's own BM25 has filled, and the reverse. (The server also
splits at underscores, keeps words of more than 40 characters, and does not split at combining
vowel signs, as Tamil has them; fastembed and this encoder do the opposite.)

``stop_words.txt`` holds the lists of NLTK's stopwords corpus, which fastembed and the Qdrant server
use: one language per line. Words with an apostrophe or a space are left out, because the tokenizer
splits there, so they never match.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mmh3
from py_rust_stemmers import SnowballStemmer

from qdrant_rerank.errors import InvalidInputError

if TYPE_CHECKING:
    from qdrant_client.models import SparseVector

__all__ = ["LANGUAGES", "Bm25Encoder", "stop_words"]

#: Languages that have a stemmer; Tamil has no stop words.
LANGUAGES = (
    "arabic danish dutch english finnish french german greek hungarian italian norwegian "
    "portuguese romanian russian spanish swedish tamil turkish"
).split()
LONGEST_TOKEN = 40  # characters; longer tokens are noise, such as base64
_SEPARATOR = re.compile(r"[^\w]")


@lru_cache(maxsize=len(LANGUAGES))
def stop_words(language: str) -> frozenset[str]:
    """Return the words of a language that are too frequent to search for."""
    lists = (Path(__file__).parent / "stop_words.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{language}: (.*)$", lists, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


class Bm25Encoder:
    """Encodes text for BM25 scoring in Qdrant. Safe to call from many threads.

    Documents and queries must be encoded in the same language: otherwise their words have other
    stems, and a search silently finds nothing.

    The weight of a term that occurs f times in a document of n terms is (Robertson and Zaragoza
    2009; the average document length is a constant, as in fastembed)::

        f * (k + 1) / (f + k * (1 - b + b * n / avg_len))

    Args:
        k: saturation of the term frequency, 0 or more.
        b: weight of the document length, 0 to 1.
        avg_len: assumed average document length in terms.
        language: language of the stemmer and the stop words, such as "german"; one of arabic,
            danish, dutch, english, finnish, french, german, greek, hungarian, italian, norwegian,
            portuguese, romanian, russian, spanish, swedish, tamil and turkish.

    Raises:
        InvalidInputError: a parameter is out of range, or the language is unknown.

    Examples:
        >>> vector = Bm25Encoder().embed_query("the running dogs")
        >>> len(vector.indices), vector.values
        (2, [1.0, 1.0])
        >>> Bm25Encoder(language="german").describe()["language"]
        'german'
    """

    #: fastembed's and the server's name for these vectors.
    name = "Qdrant/bm25"

    def __init__(
        self,
        k: float = 1.2,
        b: float = 0.75,
        avg_len: float = 256.0,
        language: str = "english",
    ) -> None:
        if k < 0 or not 0 <= b <= 1 or avg_len <= 0:
            raise InvalidInputError(
                f"k={k}, b={b}, avg_len={avg_len}; expected k >= 0, 0 <= b <= 1, avg_len > 0."
            )
        if language not in LANGUAGES:
            raise InvalidInputError(
                f"language is {language!r:.80}; expected one of {', '.join(LANGUAGES)}."
            )
        self.k = k
        self.b = b
        self.avg_len = avg_len
        self.language = language
        self._stop_words = stop_words(language)
        self._stem = SnowballStemmer(language).stem_word

    def describe(self) -> dict[str, Any]:
        """Return what a collection records of this encoder, ready for JSON.

        ``from_description`` makes the encoder again. Only the language must be the same for
        documents and queries.
        """
        return {
            "model": self.name,
            "language": self.language,
            "k": self.k,
            "b": self.b,
            "avg_len": self.avg_len,
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> "Bm25Encoder":
        """Make the encoder that ``describe`` described; what is missing has its default.

        Raises:
            InvalidInputError: a parameter is out of range, or the language is unknown.
        """
        names = ("k", "b", "avg_len", "language")
        return cls(**{name: description[name] for name in names if name in description})

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
            if token not in self._stop_words and token != "_" and len(token) <= LONGEST_TOKEN
        )
        return [stem for stem in stems if stem]

    def __repr__(self) -> str:
        language = "" if self.language == "english" else f", language={self.language!r}"
        return f"Bm25Encoder(k={self.k}, b={self.b}, avg_len={self.avg_len}{language})"


def _term_id(term: str) -> int:
    return abs(int(mmh3.hash(term)))
