"""One event loop for all threads and loops: results, errors, cancelling, forked children."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from qdrant_rerank.utils.background import run_in_background, running_loop, wait_in_background


async def where():
    """The loop that it runs in."""
    await asyncio.sleep(0)
    return asyncio.get_running_loop()


async def fails():
    """An error of its own."""
    raise KeyError("mine")


def test_threads_and_loops_share_one_loop():
    """Which is nobody else's."""
    with ThreadPoolExecutor(4) as threads:
        loops = set(threads.map(lambda _: run_in_background(where()), range(8)))
    loops |= {asyncio.run(wait_in_background(where())) for _ in range(2)}
    assert loops == {running_loop()}


def test_an_error_reaches_who_waits():
    """As it was raised."""
    with pytest.raises(KeyError, match="mine"):
        run_in_background(fails())
    with pytest.raises(KeyError, match="mine"):
        asyncio.run(wait_in_background(fails()))


def test_a_cancelled_task_cancels_the_work():
    """The work sees it, wherever it waits."""
    began, ended = threading.Event(), threading.Event()

    async def waits():
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
            raise

    async def cancels():
        task = asyncio.ensure_future(wait_in_background(waits()))
        await asyncio.to_thread(began.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancels())
    assert ended.wait(60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_its_own():
    """Its parent's thread is not there."""
    parents = run_in_background(where())
    child = os.fork()
    if child == 0:
        fine = run_in_background(where()) is not parents
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert run_in_background(where()) is parents
