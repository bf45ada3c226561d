"""Work goes on side by side, and a recording alone; the real threads, without a card."""

import threading
import time

import pytest

from qdrant_rerank.inference.gpu.graph_capture import recording, working


class Watched:
    """Counts who is inside, and what was ever seen together."""

    def __init__(self):
        self.lock = threading.Lock()
        self.inside = {"work": 0, "record": 0}
        self.seen = set()

    def stay(self, kind, seconds):
        with self.lock:
            self.inside[kind] += 1
            self.seen.add((self.inside["work"], self.inside["record"]))
        time.sleep(seconds)
        with self.lock:
            self.inside[kind] -= 1


def in_threads(functions):
    threads = [threading.Thread(target=one, daemon=True) for one in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert not any(thread.is_alive() for thread in threads)


def test_a_recording_is_alone_and_is_not_put_off_for_ever():
    """Among four threads of steady work, and beside other recordings."""
    watched = Watched()
    over = threading.Event()

    def work():
        while not over.is_set():
            with working():
                watched.stay("work", 0.002)

    def record():
        for _ in range(5):
            with recording():
                watched.stay("record", 0.002)

    def records():
        try:
            in_threads([record] * 3)
        finally:
            over.set()

    in_threads([*[work] * 4, records])
    assert max(work for work, _ in watched.seen) > 1
    assert {(work, count) for work, count in watched.seen if count} == {(0, 1)}


@pytest.mark.parametrize("inside", [working, recording])
def test_what_fails_inside_lets_the_others_in(inside):
    """The error goes on."""
    with pytest.raises(ValueError, match="broken"), inside():
        raise ValueError("broken")
    for again in (working, recording):
        with again():
            pass
