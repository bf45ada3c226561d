"""Runs a split model, and keeps what its trunk said of each text.

Twice to three times as fast for documents that were read before: see
:mod:`~qdrant_rerank.inference.conversion.split`
and ``benchmarks/hot_documents.py``. Every text goes through the trunk alone, whether it is kept or
not, so a score does not depend on what was read before.
"""

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.score_cache import import_lru_cache
from qdrant_rerank.inference.runtime import Runtime
from qdrant_rerank.utils.fork import ForkLock

__all__ = ["SplitRuntime"]

ENTRY_BYTES = 512  # of a kept text, beside its states


class SplitRuntime(Runtime):
    """The trunk and the branches of a model behind the calls of one. Safe to use from many threads.

    Args:
        trunk: says of a text alone, (1, length) token ids, its states (1, length, width).
        branches: scores a pair by the states of both texts.
        max_bytes: memory for states; those of the least recently read texts make room for others.
        options: of a :class:`Runtime`.

    Attributes:
        hits: texts that were kept when they were asked for.
        misses: texts that were not.

    Raises:
        MissingDependencyError: cachetools is not installed.
        QdrantRerankError: as a :class:`Runtime`.
    """

    def __init__(
        self, trunk: Path, branches: Path, *, max_bytes: int, options: dict[str, Any]
    ) -> None:
        self._kept = import_lru_cache()(
            max_bytes, getsizeof=lambda states: states.nbytes + ENTRY_BYTES
        )
        self._kept_lock = ForkLock()
        self.hits = 0
        self.misses = 0
        super().__init__(branches, **options)
        self._trunk = Runtime(trunk, **options)
        self.pairs_per_batch = 1  # texts of several pairs have several lengths

    @property
    def used_bytes(self) -> int:
        """Memory that states take, at most ``max_bytes``."""
        with self._kept_lock:
            return int(self._kept.currsize)

    def run(
        self,
        input_ids: NDArray[np.int64],
        attention_mask: NDArray[np.int64],
        token_type_ids: NDArray[np.int64],
        *,
        last_position: bool = False,
        spread: bool = False,
        states: NDArray[np.float32] | None = None,
        fell_back: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """As :meth:`Runtime.run`, of one pair without padding."""
        if states is None:
            own = token_type_ids[0]
            texts = [(input_ids[:, own == kind], kind) for kind in (0, 1)]
            states = np.concatenate([self._states(ids, kind, spread) for ids, kind in texts], 1)
        return super().run(
            input_ids,
            attention_mask,
            token_type_ids,
            last_position=last_position,
            spread=spread,
            states=states,
            fell_back=fell_back,
        )

    def _states(self, ids: NDArray[np.int64], kind: int, spread: bool) -> NDArray[np.float32]:
        """What the trunk says of a text, (1, length, width)."""
        key = bytes([kind]) + blake2b(ids.tobytes(), digest_size=20).digest()
        with self._kept_lock:
            found: NDArray[np.float32] | None = self._kept.get(key)
            if found is None:
                self.misses += 1
            else:
                self.hits += 1
        if found is None:
            types = np.full_like(ids, kind)
            # A copy: the engine's own array would hold a place amid the memory of its runs.
            found = self._trunk.run(ids, np.ones_like(ids), types, spread=spread).copy()
            with self._kept_lock:
                if found.nbytes + ENTRY_BYTES <= self._kept.maxsize:
                    self._kept[key] = found
        return found
