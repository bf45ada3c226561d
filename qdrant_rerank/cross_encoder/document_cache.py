"""A model in two parts, which may keep its trunk's states of each text.

Then it is two to three times as fast for documents that were read before: see
:mod:`~qdrant_rerank.inference.conversion.split` and ``benchmarks/hot_documents.py``. Every text
goes through the trunk alone, whether it is kept or not, so a score does not depend on what was read
before.
"""

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.cross_encoder.score_cache import import_lru_cache
from qdrant_rerank.inference.plan import Plan
from qdrant_rerank.inference.runtime import Runtime
from qdrant_rerank.utils.fork import ForkLock

__all__ = ["TwoPartRuntime"]

ENTRY_BYTES = 512  # of a kept text, besides its states


class TwoPartRuntime(Runtime):
    """The trunk and the branches of a model as one runtime. Safe to use from many threads.

    Args:
        branches: file that scores a pair by the states of both texts.
        plan: where and how both run.
        prepared: see :class:`Runtime`.
        first_position: see :class:`Runtime`.
        trunk: turns a text alone, (1, length) token ids, into its states (1, length, width).
        max_bytes: memory for states; those of the least recently read texts make room for others.
            None keeps none.

    Attributes:
        hits: texts whose states were kept when they were asked for.
        misses: texts whose states were not, if any are kept.

    Raises:
        MissingDependencyError: states are to be kept, and cachetools is not installed.
        QdrantRerankError: as a :class:`Runtime`.
    """

    def __init__(
        self,
        branches: Path,
        plan: Plan,
        *,
        prepared: Path | None,
        first_position: int,
        trunk: Runtime,
        max_bytes: int | None = None,
    ) -> None:
        self._kept: Any = None
        if max_bytes is not None:
            self._kept = import_lru_cache()(
                max_bytes, getsizeof=lambda states: states.nbytes + ENTRY_BYTES
            )
        self._kept_lock = ForkLock()
        self.hits = 0
        self.misses = 0
        super().__init__(branches, plan, prepared=prepared, first_position=first_position)
        self._trunk = trunk
        self.pairs_per_batch = 1  # texts of several pairs have several lengths

    @property
    def used_bytes(self) -> int:
        """Bytes that kept states take, at most ``max_bytes``."""
        with self._kept_lock:
            return 0 if self._kept is None else int(self._kept.currsize)

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
        """Run the model on one pair without padding; see :meth:`Runtime.run`."""
        if states is None:
            own = token_type_ids[0]
            texts = [(input_ids[:, own == kind], kind) for kind in (0, 1)]
            states = np.concatenate(
                [self.states(ids, kind, spread=spread) for ids, kind in texts], 1
            )
        return super().run(
            input_ids,
            attention_mask,
            token_type_ids,
            last_position=last_position,
            spread=spread,
            states=states,
            fell_back=fell_back,
        )

    def states(
        self, ids: NDArray[np.int64], kind: int, *, spread: bool = False
    ) -> NDArray[np.float32]:
        """Return a text's states, shape (1, length, width): kept, or computed now.

        Args:
            ids: shape (1, length), its segment of a pair.
            kind: 0 for a query, 1 for a document.
            spread: as in :meth:`Runtime.run`.
        """
        if self._kept is None:
            return self._computed(ids, kind, spread)
        key = bytes([kind]) + blake2b(ids.tobytes(), digest_size=20).digest()
        with self._kept_lock:
            found: NDArray[np.float32] | None = self._kept.get(key)
            if found is None:
                self.misses += 1
            else:
                self.hits += 1
        if found is None:
            found = self._computed(ids, kind, spread)
            with self._kept_lock:
                if found.nbytes + ENTRY_BYTES <= self._kept.maxsize:
                    self._kept[key] = found
        return found

    def _computed(self, ids: NDArray[np.int64], kind: int, spread: bool) -> NDArray[np.float32]:
        types = np.full_like(ids, kind)
        # A copy: the engine's own array would keep a place inside the memory of its batches.
        return self._trunk.run(ids, np.ones_like(ids), types, spread=spread).copy()
