"""The threads of the process: shared, idle when idle, and gone from a forked child."""

import os
import subprocess
import sys
import threading
import time

import pytest

from qdrant_rerank.inference.cpu import available_cores
from qdrant_rerank.inference.threads import MOST_PER_CORE, for_each, shared_pool

FORK = """
import os
from qdrant_rerank.inference.threads import for_each, shared_pool
for_each(print, ["parent"] * 2, shared_pool(2))
if os.fork() == 0:
    for_each(lambda text: os.write(1, text), [b"child\\n"] * 2, shared_pool(2))
    os._exit(0)
_, status = os.wait()
print(status)
"""


def test_callers_of_one_size_share_their_threads():
    """However many there are."""
    names, gate = set(), threading.Barrier(9)

    def work(_):
        names.add(threading.current_thread().name)
        time.sleep(0.001)

    def call():
        gate.wait()
        for_each(work, range(20), shared_pool(3))

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    gate.wait()
    for caller in callers:
        caller.join()
    assert len(names) == 3
    assert shared_pool(3) is shared_pool(3) is not shared_pool(2)


def test_the_first_error_stops_the_rest():
    """What had not begun is never begun."""
    done = []

    def work(item):
        time.sleep(0.01)
        if item == 3:
            raise ValueError("broken")
        done.append(item)

    with pytest.raises(ValueError, match="broken"):
        for_each(work, range(1000), shared_pool(2))
    time.sleep(0.1)
    assert len(done) < 20


def test_idle_threads_take_no_time():
    """They wait; they do not spin."""
    for_each(lambda _: time.sleep(0.01), range(8), shared_pool(4))
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on Windows")
def test_a_forked_child_has_threads_of_its_own():
    """It would wait for those of its parent for ever."""
    command = [sys.executable, "-W", "ignore", "-c", FORK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.count("child") == 2
    assert done.stdout.splitlines()[-1] == "0"


INTERRUPTED = """
import signal, threading, time
from qdrant_rerank.inference.threads import for_each, shared_pool
main = threading.main_thread().ident
signal.signal(signal.SIGINT, signal.default_int_handler)
hit = 0
for turn in range(150):
    timer = threading.Timer(0.0002 * (turn % 10), signal.pthread_kill, (main, signal.SIGINT))
    try:
        timer.start()
        for_each(lambda _: time.sleep(0.00001), range(300), shared_pool(2))
        time.sleep(1)
    except KeyboardInterrupt:
        hit += 1
signal.signal(signal.SIGINT, signal.SIG_IGN)
done = []
for_each(done.append, range(100), shared_pool(2))
print(hit, len(done))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no such signal on Windows")
def test_after_any_interrupt_the_threads_still_work():
    """Wherever it came; and the process ends."""
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["150", "100"]


def test_threads_that_nobody_holds_end():
    """Other numbers of them come and go; there are no more than eight a core."""

    def ours():
        return sum(thread.name.startswith("qdrant-rerank_") for thread in threading.enumerate())

    before = ours()
    for count in range(5, 15):
        for_each(lambda _: None, range(3), shared_pool(count))
    deadline = time.monotonic() + 10
    while ours() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ours() <= before
    many = shared_pool(10**9)
    assert many is shared_pool(10**8)
    assert ours() - before <= MOST_PER_CORE * available_cores()


AT_EXIT = """
import atexit, threading, time

def late():
    done = []
    for_each(done.append, range(3), pool)
    print("late", done)

atexit.register(late)  # before the threads' own, so it comes after it
from qdrant_rerank.inference.threads import for_each, shared_pool
pool = shared_pool(2)

def slow(_):
    time.sleep(0.2)

threading.Thread(target=for_each, args=(slow, range(1000), pool), daemon=True).start()
time.sleep(0.1)
"""


def test_an_interpreter_that_ends_waits_for_what_is_under_way_alone():
    """A daemon's other items are left; what is asked for after that is done by who asks."""
    began = time.monotonic()
    command = [sys.executable, "-c", AT_EXIT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "late [0, 1, 2]\n"
    assert time.monotonic() - began < 20  # all of them would take 100 s
