"""An event loop in a thread of its own, on which any thread and any other loop can wait.

A connection of an async client belongs to one event loop. Coroutines that run here can share
their connections, whoever waits for them.
"""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from qdrant_rerank.utils.fork import ForkLock, in_child

__all__ = ["run_in_background", "running_loop", "wait_in_background"]

Result = TypeVar("Result")

_starting = ForkLock()
_loop: asyncio.AbstractEventLoop | None = None


def run_in_background(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end, while the calling thread waits.

    An exception in the thread that waits, such as KeyboardInterrupt, cancels the coroutine.
    """
    future = _submitted(coroutine)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def wait_in_background(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end, while another event loop awaits it; cancelling cancels it."""
    return await asyncio.wrap_future(_submitted(coroutine))


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the loop; the first call starts it."""
    global _loop  # noqa: PLW0603 - one loop per process
    with _starting:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(
                target=_loop.run_forever, name="qdrant-rerank-background", daemon=True
            ).start()
        return _loop


def _submitted(coroutine: Coroutine[Any, Any, Result]) -> "Future[Result]":
    return asyncio.run_coroutine_threadsafe(coroutine, running_loop())


@in_child
def _forget() -> None:
    global _loop  # noqa: PLW0603 - its thread is the parent's
    _loop = None
