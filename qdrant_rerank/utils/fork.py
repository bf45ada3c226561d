"""What a forked child must make new, or leave: it has its parent's locks and files, no threads."""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from weakref import WeakSet

__all__ = ["ForkLock", "in_child", "temporary_directory"]


def in_child(function: Callable[[], None]) -> Callable[[], None]:
    """Call a function in each child right after the fork; use it as a decorator."""
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=function)
    return function


@contextmanager
def temporary_directory(parent: Path | None = None, prefix: str | None = None) -> Iterator[Path]:
    """Give an empty directory, which this process removes after the ``with`` block.

    With ``tempfile.TemporaryDirectory`` a child that another thread forks meanwhile would remove
    it, too, when it ends.

    Args:
        parent: where to make it; None for the system's place.
        prefix: start of its name.

    Raises:
        OSError: it cannot be made.
    """
    process = os.getpid()
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    try:
        yield folder
    finally:
        if os.getpid() == process:
            shutil.rmtree(folder, ignore_errors=True)


class ForkLock:
    """A lock that is open in a forked child, whichever thread of the parent held it.

    A ``threading.Lock`` stays closed in the child for ever, because the thread that would open it
    does not exist there. What the lock guards must be usable at any time: the other thread may
    have been in the middle of its work.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def acquire(self) -> bool:
        """Wait for the lock."""
        return self._lock.acquire()

    def release(self) -> None:
        """Open the lock."""
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()


_locks: "WeakSet[ForkLock]" = WeakSet()


@in_child
def _open_all() -> None:
    for lock in list(_locks):
        lock._lock = threading.Lock()
