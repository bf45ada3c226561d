"""Threads that drive models: one pool per process, for any number of models and callers.

The pools of :mod:`concurrent.futures` are not used: Ctrl-C during their ``submit`` or ``wait`` may
leave a lock taken for ever, because their conditions are Python code. The next call in a notebook,
or the end of the process, would then hang. Here, callers and threads share only a lock and queues
that are taken and released in C.
"""

import atexit
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from qdrant_rerank.inference.cpu import available_cores
from qdrant_rerank.utils.deadline import NO_DEADLINE, Cancellation, Deadline, cancellation
from qdrant_rerank.utils.fork import in_child

__all__ = ["MOST_PER_CORE", "Workers", "for_each", "shared_pool"]

Item = TypeVar("Item")

# By number of threads, as long as something holds them.
_pools: "WeakValueDictionary[int, Workers]" = WeakValueDictionary()
_lock = threading.Lock()
MOST_PER_CORE = 8  # threads; more gain nothing, and a system has no room for any number
_ended = threading.Event()  # the interpreter is about to end


class Workers:
    """Threads that do the items of calls in turn, and wait without spinning.

    They end when nothing holds this object any more.

    Args:
        count: of the threads.
    """

    def __init__(self, count: int) -> None:
        # One entry per item, and None for the end of a thread.
        self._work_queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._process = os.getpid()
        self._threads = [
            # Daemons: the interpreter waits for them in _join, below, when it ends.
            threading.Thread(
                target=_work, args=[self._work_queue], name=f"qdrant-rerank_{number}", daemon=True
            )
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()
        weakref.finalize(self, _end, self._work_queue, count).atexit = False

    @property
    def alive(self) -> bool:
        """Whether there are threads: not in a forked child, not at the end of the interpreter."""
        return self._process == os.getpid() and not _ended.is_set()

    def add(self, call: "_Call") -> None:
        """Have a thread do the next item of this call."""
        self._work_queue.put(call)

    def join(self) -> None:
        """Wait for the end of the threads; items under way are finished."""
        _end(self._work_queue, len(self._threads))
        for thread in self._threads:
            thread.join()


def _work(queue: "SimpleQueue[_Call | None]") -> None:
    while (call := queue.get()) is not None:
        if not _ended.is_set():  # else the items that wait are dropped, as their caller is
            call.do_one()
        del call  # its items may hold these threads


def _end(queue: "SimpleQueue[_Call | None]", count: int) -> None:
    for _ in range(count):
        queue.put(None)


class _Call:
    """Items of one caller, begun in order until the call is closed."""

    def __init__(self, function: Callable[[Any], None], stop: Cancellation | None) -> None:
        self._function = function
        self._stop = stop
        self._items: deque[Any] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self.begun = 0
        #: Result of each item that was begun: None, or its error.
        self.results: SimpleQueue[BaseException | None] = SimpleQueue()

    def add(self, item: Any) -> None:
        self._items.append(item)

    def close(self) -> None:
        """Begin no other item."""
        with self._lock:
            self._closed = True

    def do_one(self) -> None:
        """Do the next item; called by a worker."""
        with self._lock:
            if self._closed or not self._items:
                return
            item = self._items.popleft()
            self.begun += 1
        error: BaseException | None = None
        try:
            if self._stop is not None:
                self._stop.check()
            self._function(item)
        except BaseException as raised:  # the caller raises it
            error = raised
            self.close()
        self.results.put(error)


def shared_pool(workers: int) -> Workers:
    """Return the process's threads for so many batches at the same time, at most eight per core.

    All callers that ask for the same number share them: eight models or eight callers do not have
    eight times as many threads as there are cores.
    """
    workers = min(workers, MOST_PER_CORE * available_cores())
    with _lock:
        pool = _pools.get(workers)
        if pool is None:
            pool = _pools[workers] = Workers(workers)
        return pool


def for_each(
    function: Callable[[Item], None],
    items: Iterable[Item],
    pool: Workers,
    deadline: Deadline = NO_DEADLINE,
) -> int:
    """Call ``function`` on each item in the threads of a pool.

    The first error stops the rest; so do Ctrl-C and a
    :class:`~qdrant_rerank.utils.deadline.Cancellation` of the calling context.

    Args:
        function: called from worker threads.
        items: begun in order. A sequence of one item is done in the calling thread. The next item
            of an iterator is drawn in the calling thread while the workers run.
        pool: the threads. If it has none, at the end of the interpreter, the calling thread does
            all items.
        deadline: no item is begun after it; items under way are finished.

    Returns:
        The number of items done: always the first of them.
    """
    if isinstance(items, Sequence) and len(items) == 1:
        function(items[0])
        return 1
    stop = cancellation()
    call = _Call(function, stop)
    if not pool.alive:
        return _in_turn(call, items, deadline)
    added = 0
    error: BaseException | None = None
    try:
        for item in items:
            if deadline.passed or (stop is not None and stop.cancelled):
                break
            call.add(item)
            pool.add(call)
            added += 1
        done = 0
        while done < added and error is None:
            error = call.results.get(timeout=deadline.remaining)
            done += 1
    except Empty:  # time is up
        pass
    finally:  # an interrupt stops within one item, too
        call.close()
    for _ in range(done, call.begun):  # items under way
        later = call.results.get()
        error = later if error is None else error
    if error is not None:
        raise error
    if stop is not None:
        stop.check()
    return call.begun


def _in_turn(call: _Call, items: Iterable[Any], deadline: Deadline) -> int:
    for item in items:
        if deadline.passed:
            break
        call.add(item)
        call.do_one()
        if (error := call.results.get()) is not None:
            raise error
    return call.begun


@atexit.register
def _join() -> None:
    """Wait for all threads: none may run a model while the interpreter is taken down."""
    _ended.set()
    for pool in list(_pools.values()):
        pool.join()


@in_child
def _forget() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = threading.Lock()
    _pools.clear()  # those that are still held are not alive
