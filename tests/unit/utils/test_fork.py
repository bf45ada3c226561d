"""Forks while another thread holds a lock of this package."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")

# A thread holds the lock that the expression names; the parent forks; the child does the work,
# with an alarm, because a closed lock would never open there.
FORKED = """
import os, signal, sys, threading
from qdrant_rerank import DEFAULT_EMBEDDER, DEFAULT_RERANKER, ScoreCache, TextCrossEncoder
from qdrant_rerank import embedders
from qdrant_rerank.reranking import loading
cache = ScoreCache(10**6)
held = threading.Event()
def hold():
    with {lock}:
        held.set()
        threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
if os.fork() == 0:
    signal.alarm(20)
    {work}
    os._exit(0)
print(os.wait()[1])
os._exit(0)
"""


@pytest.mark.parametrize(
    ("lock", "work"),
    [
        ("embedders._loading", "embedders.load_embedder(DEFAULT_EMBEDDER).embed_query('iron')"),
        ("loading._loading", "loading.load_reranker(DEFAULT_RERANKER).rerank('q', ['iron'])"),
        (
            "cache._lock",
            "TextCrossEncoder(DEFAULT_RERANKER, score_cache=cache).rerank('q', ['iron'])",
        ),
    ],
    ids=["an embedder", "a reranker", "a score cache"],
)
def test_a_child_can_do_what_a_thread_of_its_parent_was_doing(lock, work):
    """It loads for itself, instead of waiting for a thread that does not exist there."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED.format(lock=lock, work=work)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "0\n"


HOLD_IN_A_THREAD = """
import os, sys, threading
from pathlib import Path
from qdrant_rerank.utils.fork import temporary_directory
held, forked = threading.Event(), threading.Event()
def hold():
    with temporary_directory(Path(sys.argv[1])) as folder:
        (folder / "made").write_text("content")
        held.set()
        forked.wait()
        print((folder / "made").is_file(), flush=True)
thread = threading.Thread(target=hold)
thread.start()
held.wait()
if os.fork() == 0:
    sys.exit()
os.wait()
forked.set()
thread.join()
"""


def test_a_temporary_directory_outlives_a_forked_child(tmp_path):
    """The child ends while a thread of its parent is at work in it; the parent removes it."""
    command = [sys.executable, "-c", HOLD_IN_A_THREAD, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "True\n"
    assert list(tmp_path.iterdir()) == []
