"""How many padded tokens a run on a card holds: measured once a model and card, and remembered.

Too few leave the card waiting for its next kernel; too many take memory and gain nothing. The
optimum differs tenfold between cards, so runs of growing size are timed on first use. What was
found, or what memory allowed since, is kept in a small file beside the other things that are made
of models; without a place to keep it, it is measured each time.
"""

import json
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

from qdrant_rerank.utils.atomic_files import write_whole

__all__ = [
    "DEFAULT_TOKENS",
    "FIRST_TOKENS",
    "LEAST_TOKENS",
    "Budget",
    "Way",
    "budget_key",
    "measure_budget",
]

logger = logging.getLogger(__name__)

# Where nothing could be measured: keeps a large card busy, within 2 GB for 12 layers of 768.
DEFAULT_TOKENS = 16_384
#: No less than one pair of a usual window: below it, a run is short of pairs, not of memory.
LEAST_TOKENS = 512
#: The first run that is timed.
FIRST_TOKENS = 4_096
MOST_TOKENS = 131_072
# A doubling must save so much of a token's time to be worth its memory, and its wait for whoever
# asks for few pairs.
WORTH = 0.05
# Longer runs are not tried: a deadline or a cancelled task waits for the run under way.
MOST_SECONDS = 0.1
FILE = "gpu-budgets.json"

#: Kernel by kernel; small runs as recorded CUDA graphs; or with attention that skips padding.
Way = Literal["plain", "graphs", "packed"]


class Budget:
    """Padded tokens a run, of one model on one kind of card. Safe to use from many threads.

    Args:
        folder: where it is remembered; None to forget it with the process.
        key: of the model, the card and all else that decides, see :func:`budget_key`.

    Attributes:
        way: how the model runs best.
    """

    def __init__(self, folder: Path | None = None, key: str = "") -> None:
        self._path = None if folder is None else folder / FILE
        self._key = key
        self._lock = threading.Lock()
        self._tokens: int | None = None
        self.way: Way = "plain"
        with suppress(TypeError, ValueError):  # absent, or of no use: measured anew
            tokens, way = _read(self._path).get(key, (None, "plain"))
            if isinstance(tokens, int) and tokens >= LEAST_TOKENS and way in get_args(Way):
                self._tokens, self.way = tokens, way

    @property
    def known(self) -> bool:
        """Whether it was measured, now or earlier."""
        return self._tokens is not None

    @property
    def tokens(self) -> int:
        """Padded tokens a run."""
        return DEFAULT_TOKENS if self._tokens is None else self._tokens

    def set(self, tokens: int, way: Way, *, keep: bool = True) -> None:
        """Take other values, and keep them for the next process or not."""
        with self._lock:
            self._tokens, self.way = tokens, way
            if self._path is None or not keep:
                return
            # Another process may write at the same time; then one entry is measured again.
            try:
                content = {**_read(self._path), self._key: [tokens, way]}
                write_whole(self._path, json.dumps(content, indent=1, sort_keys=True))
            except OSError as error:
                logger.info("%s cannot be written: %s", self._path, error)


def budget_key(model: Path, *about: object) -> str:
    """A name for a model on a card.

    Args:
        model: the ONNX file; its size and time stand for its contents.
        about: what else decides: the card, its memory, onnxruntime's version, a limit.
    """
    stat = model.stat()
    parts = [str(model.absolute()), stat.st_size, stat.st_mtime_ns, *about]
    return sha256(repr(parts).encode()).hexdigest()[:32]


def measure_budget(seconds: Callable[[int], float | None]) -> int:
    """The tokens a run from which on doubling them gains little.

    Args:
        seconds: of a run of so many padded tokens; None where it cannot be run.

    Returns:
        Between ``FIRST_TOKENS`` and ``MOST_TOKENS``; less if not even the first fits, and
        ``DEFAULT_TOKENS`` where nothing can be run.

    >>> measure_budget(lambda tokens: 0.001 + tokens / 1e6)
    16384
    >>> measure_budget(lambda tokens: 0.001 + tokens / 1e6 if tokens <= 8192 else None)
    8192
    """
    tokens = FIRST_TOKENS
    taken = seconds(tokens)
    while taken is None and tokens > LEAST_TOKENS:
        tokens //= 2
        taken = seconds(tokens)
    if taken is None:
        return DEFAULT_TOKENS
    while FIRST_TOKENS <= tokens < MOST_TOKENS and taken < MOST_SECONDS:
        longer = seconds(2 * tokens)
        if longer is None or longer / 2 > taken * (1 - WORTH):
            break
        tokens, taken = 2 * tokens, longer
    return tokens


def _read(path: Path | None) -> dict[str, Any]:
    try:
        content = {} if path is None else json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent, or of no use: measured anew
        return {}
    return content if isinstance(content, dict) else {}
