"""BM25 as sparse vectors, which fit those of fastembed's ``Qdrant/bm25``, in its 18 languages.

A document's vector holds the term-frequency part of BM25, a query's vector holds how often each
term occurs in it, and Qdrant multiplies by the inverse document frequency (``Modifier.IDF``). So
this encoder can search a collection that fastembed or the server's own BM25 has filled, and the
reverse. (The server also splits at underscores, keeps words of more than 40 characters, and does
not split at combining vowel signs, as Tamil has them; fastembed and this encoder do the opposite.)

Two defaults differ from fastembed's. The average document length is the collection's own, which
``add`` measures, and not 256; and a query's repeated terms count as often as they occur, and not
once. With ``avg_len=256`` and ``query_counts=False`` the vectors equal fastembed's.

``stop_words.txt`` holds the lists of NLTK's stopwords corpus, which fastembed and the Qdrant server
use: one language per line. Words with an apostrophe or a space are left out, because the tokenizer
splits there, so they never match.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mmh3
from py_rust_stemmers import SnowballStemmer

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.languages import LANGUAGES
from qdrant_rerank.utils.validation import require_flag, require_number, shown

if TYPE_CHECKING:
    from qdrant_client.models import SparseVector

__all__ = ["DEFAULT_AVG_LEN", "LANGUAGES", "Bm25Encoder", "stop_words"]

#: Average document length, in terms, where none was measured: that of fastembed and the server.
DEFAULT_AVG_LEN = 256.0
#: Largest parameter; with larger ones the weights of some terms are no finite numbers.
LARGEST = 1_000_000_000
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
    2009)::

        f * (k + 1) / (f + k * (1 - b + b * n / avg_len))

    Args:
        k: saturation of the term frequency, 0 or more.
        b: weight of the document length, 0 to 1.
        avg_len: average document length in terms, stop words not counted. None takes the one that
            the collection records, which ``add`` has measured; where there is none, 256, as
            fastembed does.
        language: language of the stemmer and the stop words, such as "german"; one of arabic,
            danish, dutch, english, finnish, french, german, greek, hungarian, italian, norwegian,
            portuguese, romanian, russian, spanish, swedish, tamil and turkish.
        query_counts: whether a term that a query repeats counts as often as it occurs, as in BM25;
            False counts it once, as fastembed and the server do.

    Raises:
        InvalidInputError: a parameter is out of range, or the language is unknown.

    Examples:
        >>> vector = Bm25Encoder().embed_query("the running dogs, and other dogs")
        >>> len(vector.indices), sorted(vector.values)
        (2, [1.0, 2.0])
        >>> Bm25Encoder(language="german").describe()["language"]
        'german'
    """

    #: fastembed's and the server's name for these vectors.
    name = "Qdrant/bm25"
    #: Qdrant multiplies by the inverse document frequency: a collection needs ``Modifier.IDF``.
    needs_idf = True

    def __init__(
        self,
        k: float = 1.2,
        b: float = 0.75,
        avg_len: float | None = None,
        language: str = "english",
        *,
        query_counts: bool = True,
    ) -> None:
        if not isinstance(language, str) or language not in LANGUAGES:
            raise InvalidInputError(
                f"language is {shown(language)}; expected one of {', '.join(LANGUAGES)}."
            )
        require_flag("query_counts", query_counts)
        require_number("k", k, f"0 to {LARGEST:,}", least=0, most=LARGEST)
        require_number("b", b, "0 to 1", least=0, most=1)
        if avg_len is not None:
            expected = f"an average number of terms, above 0 and up to {LARGEST:,}, or None"
            require_number("avg_len", avg_len, expected, least=1 / LARGEST, most=LARGEST)
        self.k = k
        self.b = b
        self.avg_len = avg_len
        self.language = language
        self.query_counts = query_counts
        self._stop_words = stop_words(language)
        self._stem = SnowballStemmer(language).stem_word

    def with_avg_len(self, avg_len: float | None) -> "Bm25Encoder":
        """Return an encoder that is the same but for the average document length.

        Raises:
            InvalidInputError: the length is not above 0.
        """
        return Bm25Encoder(self.k, self.b, avg_len, self.language, query_counts=self.query_counts)

    def describe(self) -> dict[str, Any]:
        """Return what a collection records of this encoder, ready for JSON.

        ``from_description`` makes the encoder again. ``avg_len`` is None as long as it has not been
        measured. Only the language must be the same for documents and queries, so how a query's
        terms are counted is not in it.
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
        """Make the encoder that ``describe`` described.

        What is missing has fastembed's and the server's default, because they filled the collection
        then: the average length is 256.

        Raises:
            InvalidInputError: a parameter is out of range, or the language is unknown.
        """
        names = ("k", "b", "avg_len", "language")
        known = {name: description[name] for name in names if name in description}
        return cls(**{"avg_len": DEFAULT_AVG_LEN, **known})

    def average_length(self, texts: Iterable[str]) -> float | None:
        """Return the mean number of terms of the texts that have any; None if none has.

        Texts without terms do not count, as in Lucene: no search finds them.

        Args:
            texts: documents; they are read once.

        Returns:
            Terms, with three decimals; 1.0 or more.
        """
        documents = terms = 0
        for text in texts:
            length = len(self._terms(text))
            documents += length > 0
            terms += length
        return round(terms / documents, 3) if documents else None

    def embed_documents(self, texts: Sequence[str]) -> "list[SparseVector]":
        """Return the term weights of documents; a text without terms gives an empty vector.

        Returns:
            One vector per text: ``indices`` are hashes of terms (0 to 2**31), ``values`` are
            above 0.
        """
        return [self._document_vector(self._terms(text)) for text in texts]

    def embed_query(self, text: str) -> "SparseVector":
        """Return the terms of a query, each with the times that it occurs, or 1.0.

        See ``query_counts``.
        """
        from qdrant_client.models import SparseVector

        counts = Counter(map(_term_id, self._terms(text)))
        indices = sorted(counts)
        values = [float(counts[index]) if self.query_counts else 1.0 for index in indices]
        return SparseVector(indices=indices, values=values)

    def _document_vector(self, terms: list[str]) -> "SparseVector":
        from qdrant_client.models import SparseVector

        avg_len = DEFAULT_AVG_LEN if self.avg_len is None else self.avg_len
        norm = self.k * (1 - self.b + self.b * len(terms) / avg_len)
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
        once = "" if self.query_counts else ", query_counts=False"
        return f"Bm25Encoder(k={self.k}, b={self.b}, avg_len={self.avg_len}{language}{once})"


def _term_id(term: str) -> int:
    return abs(int(mmh3.hash(term)))
