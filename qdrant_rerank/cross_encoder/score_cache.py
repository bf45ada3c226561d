"""What a model said of pairs seen before, kept in bounded memory.

The logits are kept, not the scores, so that the activation may be anything. A key is a digest of
the model, the query and the document; nothing is kept of the texts themselves.
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

DIGEST_BYTES = 20  # two of 10^12 pairs collide with a probability of 1e-24
# Memory of an entry beside its logits and spans: key, value, and places in the library's three
# dictionaries. Measured with tracemalloc at 200 to 33,000 entries while others make room: 515 to
# 680, and 144 to 175 a span.
ENTRY_BYTES = 704
SPAN_BYTES = 192


@dataclass(frozen=True, slots=True)
class PairOutput:
    """What a model said of one pair.

    Attributes:
        logits: shape (rows, labels), float32; more than one row where a long document was read in
            parts.
        truncated: whether the window cut something off.
        spans: of each row, start and end character of its part; empty where nothing is read in
            parts.
    """

    logits: NDArray[np.float32]
    truncated: bool
    spans: tuple[tuple[int, int], ...] = ()

    @property
    def size(self) -> int:
        """Bytes that it takes in a cache."""
        return ENTRY_BYTES + self.logits.nbytes + SPAN_BYTES * len(self.spans)


class ScoreCache:
    """Scores of pairs, the least recently used of which make room for others.

    May be shared by several encoders, since each pair is kept by its model; safe to use from many
    threads. A pickled copy is empty.

    Args:
        max_bytes: memory that it may take; about 700 bytes a pair.

    Attributes:
        max_bytes: as given.
        hits: pairs that were found, since it was made.
        misses: pairs that were not.

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
        """Memory taken, at most ``max_bytes``."""
        with self._lock:
            return int(self._kept.currsize)

    @property
    def hit_rate(self) -> float:
        """Share of the pairs asked for that were found, 0 to 1; 0 before the first."""
        with self._lock:
            asked = self.hits + self.misses
            return self.hits / asked if asked else 0.0

    def get(self, keys: Sequence[bytes]) -> list[PairOutput | None]:
        """What is kept of each key; None where nothing is."""
        with self._lock:
            found = [self._kept.get(key) for key in keys]
            hits = sum(output is not None for output in found)
            self.hits += hits
            self.misses += len(keys) - hits
        return found

    def put(self, items: Iterable[tuple[bytes, PairOutput]]) -> None:
        """Keep outputs by their keys; one that is larger than the cache is passed over."""
        with self._lock:
            for key, output in items:
                if output.size <= self.max_bytes:
                    self._kept[key] = output

    def clear(self) -> None:
        """Forget everything, the counts too."""
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
    """The library's cache, or how to install it.

    Raises:
        MissingDependencyError: cachetools is not installed.
    """
    try:
        from cachetools import LRUCache
    except ImportError as error:
        raise MissingDependencyError(
            "score_cache and document_cache need cachetools, which is not installed: "
            'pip install "qdrant-rerank[cache]". Without a cache nothing more is needed.'
        ) from error
    return LRUCache


def as_score_cache(score_cache: ScoreCache | int | None) -> ScoreCache | None:
    """A cache as it is, or a new one of so many bytes.

    Raises:
        InvalidInputError: neither a cache nor a whole number of 1 or more.
        MissingDependencyError: cachetools is not installed.
    """
    if score_cache is None or isinstance(score_cache, ScoreCache):
        return score_cache
    require_positive("score_cache", score_cache)
    return ScoreCache(score_cache)


def model_fingerprint(files: Iterable[Path], options: Mapping[str, object]) -> bytes:
    """A digest of all that makes a pair's logits.

    Args:
        files: of the model and its tokenizer; their contents count, and those that are not there
            are passed over.
        options: whatever else changes a logit; told apart by their ``repr``.

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
    """What stands for a pair read by a model.

    The query's length comes first, so that no letter can move from one text to the other.

    >>> pair_key(b"model", "ab", "c") == pair_key(b"model", "a", "bc")
    False
    """
    encoded = query.encode("utf-8", "surrogatepass")
    digest = blake2b(len(encoded).to_bytes(8), digest_size=DIGEST_BYTES, key=model)
    digest.update(encoded)
    digest.update(document.encode("utf-8", "surrogatepass"))
    return digest.digest()
