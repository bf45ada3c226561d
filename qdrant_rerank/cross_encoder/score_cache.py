"""A cache of a model's logits for pairs, in bounded memory.

It keeps logits and not scores, so that any activation can use it. A key is a digest of the model,
the query and the document; the texts themselves are not kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import MissingDependencyError
from qdrant_rerank.utils.fork import ForkLock
from qdrant_rerank.utils.validation import require_positive

__all__ = [
    "PairOutput",
    "ScoreCache",
    "as_score_cache",
    "import_lru_cache",
    "model_fingerprint",
    "pair_key",
]

DIGEST_BYTES = 20  # among 10^12 pairs, two collide with a probability of 1e-24
# Memory of an entry without its logits and spans: key, value, and entries in the library's three
# dictionaries. Measured with tracemalloc at 200 to 33,000 entries in a full cache: 515 to 680
# bytes, and 144 to 175 per span.
ENTRY_BYTES = 704
SPAN_BYTES = 192


@dataclass(frozen=True, slots=True)
class PairOutput:
    """A model's output for one pair.

    Attributes:
        logits: shape (rows, labels), float32; one row for each passage of a long document.
        truncated: whether the pair was longer than the max length and was cut.
        spans: for each row, start and end character of its passage; may be empty if documents are
            not read in passages.
    """

    logits: NDArray[np.float32]
    truncated: bool
    spans: tuple[tuple[int, int], ...] = ()

    @property
    def size(self) -> int:
        """Bytes that it takes in a cache."""
        return ENTRY_BYTES + self.logits.nbytes + SPAN_BYTES * len(self.spans)


class ScoreCache:
    """A cache of scores, which drops the pairs that were not used for the longest time.

    Several encoders may share it: each pair is kept by its model. It is safe to use from many
    threads. A pickled copy is empty.

    Args:
        max_bytes: memory that it may take; about 700 bytes per pair.

    Attributes:
        max_bytes: as given.
        hits: number of pairs found so far.
        misses: number of pairs not found so far.

    Raises:
        InvalidInputError: ``max_bytes`` is not a whole number of 1 or more.
        MissingDependencyError: cachetools is not installed.

    Examples:
        >>> from qdrant_rerank import DEFAULT_RERANKER, ScoreCache, TextCrossEncoder
        >>> cache = ScoreCache(64_000_000)
        >>> encoder = TextCrossEncoder(DEFAULT_RERANKER, score_cache=cache)
        >>> first = encoder.rerank("melting point of iron", ["Iron melts at 1538 C."])
        >>> encoder.rerank("melting point of iron", ["Iron melts at 1538 C."]) == first
        True
        >>> cache.hits, len(cache)
        (1, 1)
    """

    def __init__(self, max_bytes: int) -> None:
        require_positive("max_bytes", max_bytes, optional=False)
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self._lock = ForkLock()
        self._kept = import_lru_cache()(max_bytes, getsizeof=lambda output: output.size)

    @property
    def used_bytes(self) -> int:
        """Memory in use, at most ``max_bytes``."""
        with self._lock:
            return int(self._kept.currsize)

    @property
    def hit_rate(self) -> float:
        """Share of pairs that were found, 0 to 1; 0 before the first pair."""
        with self._lock:
            asked = self.hits + self.misses
            return self.hits / asked if asked else 0.0

    def get(self, keys: Sequence[bytes]) -> list[PairOutput | None]:
        """Return the output kept under each key, or None."""
        with self._lock:
            found = [self._kept.get(key) for key in keys]
            hits = sum(output is not None for output in found)
            self.hits += hits
            self.misses += len(keys) - hits
        return found

    def put(self, items: Iterable[tuple[bytes, PairOutput]]) -> None:
        """Keep outputs under their keys; an output larger than the cache is not kept."""
        with self._lock:
            for key, output in items:
                if output.size <= self.max_bytes:
                    self._kept[key] = output

    def clear(self) -> None:
        """Drop all entries and reset the counts."""
        with self._lock:
            self._kept.clear()
            self.hits = self.misses = 0

    def __len__(self) -> int:
        with self._lock:
            return len(self._kept)

    def __repr__(self) -> str:
        return f"ScoreCache({self.max_bytes}, pairs={len(self)}, hit_rate={self.hit_rate:.2f})"

    def __reduce__(self) -> tuple[Any, ...]:
        return ScoreCache, (self.max_bytes,)


def import_lru_cache() -> Any:
    """Return the class of the library's cache.

    Raises:
        MissingDependencyError: cachetools is not installed.
    """
    try:
        from cachetools import LRUCache
    except ImportError as error:
        raise MissingDependencyError(
            "score_cache and document_cache need cachetools, which is not installed: "
            'pip install "qdrant-rerank[cache]". Nothing else needs it.'
        ) from error
    return LRUCache


def as_score_cache(score_cache: ScoreCache | int | None) -> ScoreCache | None:
    """Return the cache itself, or a new cache of this many bytes.

    Raises:
        InvalidInputError: the value is neither a cache nor a whole number of 1 or more.
        MissingDependencyError: cachetools is not installed.
    """
    if score_cache is None or isinstance(score_cache, ScoreCache):
        return score_cache
    require_positive("score_cache", score_cache)
    return ScoreCache(score_cache)


def model_fingerprint(files: Iterable[Path], options: Mapping[str, object]) -> bytes:
    """Compute a digest of everything that decides a pair's logits.

    Args:
        files: files of the model and its tokenizer; their names and contents count. A file that
            does not exist is skipped.
        options: everything else that changes a logit, compared by its ``repr``.

    Returns:
        32 bytes.
    """
    digest = blake2b(repr(sorted(options.items())).encode(), digest_size=32)
    for path in files:
        if path.is_file():
            with path.open("rb") as file:
                digest.update(path.name.encode() + b"\0" + file_digest(file, "sha256").digest())
    return digest.digest()


def pair_key(model: bytes, query: str, document: str) -> bytes:
    """Return the key of a pair that a model reads.

    The query's length comes first, so that no letter can move from one text to the other.

    >>> pair_key(b"model", "ab", "c") == pair_key(b"model", "a", "bc")
    False
    """
    encoded = query.encode("utf-8", "surrogatepass")
    digest = blake2b(len(encoded).to_bytes(8), digest_size=DIGEST_BYTES, key=model)
    digest.update(encoded)
    digest.update(document.encode("utf-8", "surrogatepass"))
    return digest.digest()
