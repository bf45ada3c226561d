"""The threads that drive models: one pool a process, however many models and callers there are.

The pools of :mod:`concurrent.futures` are left aside, since a Ctrl-C amid their ``submit`` or
``wait`` may leave a lock taken for ever (their conditions are Python code), so that the next call
in a notebook, or the process at its end, would hang. What a caller shares with the threads here is
a lock and queues that are taken and given back in C.
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

__all__ = ["MOST_A_CORE", "Workers", "for_each", "shared_pool"]

Item = TypeVar("Item")

# By number of threads, as long as anybody holds them.
_pools: "WeakValueDictionary[int, Workers]" = WeakValueDictionary()
_lock = threading.Lock()
MOST_A_CORE = 8  # threads; more gain nothing, and a system has no room for any number
_ended = threading.Event()  # the interpreter is about to end


class Workers:
    """Threads that do the items of calls, in turn; they wait without spinning.

    They end when nobody holds this any more.

    Args:
        count: of the threads.
    """

    def __init__(self, count: int) -> None:
        # One entry an item, and None for the end of a thread.
        self._work_queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._process = os.getpid()
        self._threads = [
            # Daemons: an interpreter that ends waits for them in _join, below.
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
        """Whether there are threads: not in a forked child, and not at the interpreter's end."""
        return self._process == os.getpid() and not _ended.is_set()

    def add(self, call: "_Call") -> None:
        """Have an item of this call done."""
        self._work_queue.put(call)

    def join(self) -> None:
        """Wait for the end of the threads; what is under way is finished."""
        _end(self._work_queue, len(self._threads))
        for thread in self._threads:
            thread.join()


def _work(queue: "SimpleQueue[_Call | None]") -> None:
    while (call := queue.get()) is not None:
        if not _ended.is_set():  # else what waits is left, as its caller is
            call.do_one()
        del call  # what it holds may hold these threads


def _end(queue: "SimpleQueue[_Call | None]", count: int) -> None:
    for _ in range(count):
        queue.put(None)


class _Call:
    """Items of one caller, begun in order until it is closed."""

    def __init__(self, function: Callable[[Any], None], stop: Cancellation | None) -> None:
        self._function = function
        self._stop = stop
        self._items: deque[Any] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self.begun = 0
        #: What came of each item that was begun: None, or its error.
        self.results: SimpleQueue[BaseException | None] = SimpleQueue()

    def add(self, item: Any) -> None:
        self._items.append(item)

    def close(self) -> None:
        """Begin no further item."""
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
        except BaseException as raised:  # the caller's to raise
            error = raised
            self.close()
        self.results.put(error)


def shared_pool(workers: int) -> Workers:
    """The process's threads for so many runs at once, but no more than eight a core.

    All that ask for as many share them, so that eight models, or eight callers, do not have eight
    times as many threads as there are cores.
    """
    workers = min(workers, MOST_A_CORE * available_cores())
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
    """Call ``function`` on each item in the threads of a pool; the first error stops the rest.

    So does a :class:`~qdrant_rerank.utils.deadline.Cancellation` of the calling context, and
    Ctrl-C.

    Args:
        function: called from worker threads.
        items: begun in order. Of a sequence, one item is done in the calling thread; from an
            iterator the next is drawn there while the workers run.
        pool: the threads; at the interpreter's end, when it has none, the caller's does it all.
        deadline: no item is begun after it; those under way are finished.

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
    errors: list[BaseException] = []
    try:
        for item in items:
            if deadline.passed or (stop is not None and stop.cancelled):
                break
            call.add(item)
            pool.add(call)
            added += 1
        done = 0
        while done < added and not errors:
            errors += _errors(call.results.get(timeout=deadline.remaining))
            done += 1
    except Empty:  # time is up
        pass
    finally:  # an interrupt stops within one run, too
        call.close()
    for _ in range(done, call.begun):  # those under way
        errors += _errors(call.results.get())
    if errors:
        raise errors[0]
    if stop is not None:
        stop.check()
    return call.begun


def _in_turn(call: _Call, items: Iterable[Any], deadline: Deadline) -> int:
    for item in items:
        if deadline.passed:
            break
        call.add(item)
        call.do_one()
        if errors := _errors(call.results.get()):
            raise errors[0]
    return call.begun


def _errors(result: BaseException | None) -> list[BaseException]:
    return [] if result is None else [result]


@atexit.register
def _join() -> None:
    """No thread may be amid a run while the interpreter is taken down."""
    _ended.set()
    for pool in list(_pools.values()):
        pool.join()


@in_child
def _forget() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = threading.Lock()
    _pools.clear()  # those that are still held are not alive
