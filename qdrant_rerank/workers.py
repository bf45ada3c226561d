"""The threads that drive models: one pool a process, however many models and callers there are."""

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from qdrant_rerank.deadline import NEVER, Deadline, cancellation

__all__ = ["for_each", "shared_pool"]

Item = TypeVar("Item")

_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


def shared_pool(workers: int) -> ThreadPoolExecutor:
    """The process's threads for so many runs at once.

    All that ask for as many share them, so that eight models, or eight callers, do not have eight
    times as many threads as there are cores. They wait without spinning.
    """
    with _lock:
        if workers not in _pools:
            _pools[workers] = ThreadPoolExecutor(workers, thread_name_prefix="qdrant-rerank")
        return _pools[workers]


def for_each(
    function: Callable[[Item], None],
    items: Iterable[Item],
    pool: ThreadPoolExecutor,
    deadline: Deadline = NEVER,
) -> int:
    """Call ``function`` on each item in the threads of a pool; the first error stops the rest.

    So does a :class:`~qdrant_rerank.deadline.Cancellation` of the calling context, and Ctrl-C.

    Args:
        function: called from worker threads.
        items: begun in order. Of a sequence, one item is done in the calling thread; from an
            iterator the next is drawn there while the workers run.
        pool: the threads.
        deadline: no item is begun after it; those under way are finished.

    Returns:
        The number of items done: always the first of them.
    """
    if isinstance(items, Sequence) and len(items) == 1:
        function(items[0])
        return 1
    stop = cancellation()

    def begin(item: Item) -> None:
        if stop is not None:
            stop.check()
        function(item)

    futures: list[Future[None]] = []
    try:
        for item in items:
            if deadline.passed or (stop is not None and stop.cancelled):
                break
            futures.append(pool.submit(begin, item))
        done, _ = wait(futures, timeout=deadline.left, return_when=FIRST_EXCEPTION)
    finally:  # an interrupt stops within one run, too
        # The last first: what a worker takes in the meantime then still follows on the others.
        for future in reversed(futures):
            future.cancel()
    begun = [future for future in futures if not future.cancelled()]
    for future in [*done, *begun]:  # a failure that is known comes first
        future.result()
    if stop is not None:
        stop.check()
    return len(begun)


def _forget() -> None:
    """A forked child has none of its parent's threads."""
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget)
