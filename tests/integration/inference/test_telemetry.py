"""Nothing is contacted by a model: onnxruntime's telemetry is off before it is imported."""

import os
import subprocess
import sys

import pytest

LOADS_AND_RUNS = """
import sys

contacted = []

def guard(event, arguments):
    if event in {"socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"}:
        contacted.append(event)

sys.addaudithook(guard)
from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder, rerank_points
from qdrant_client.models import ScoredPoint

encoder = TextCrossEncoder(DEFAULT_RERANKER)
hits = [ScoredPoint(id=n, version=0, score=0, payload={"text": "Paris"}) for n in range(3)]
print(len(rerank_points("capital of France", hits, reranker=encoder)), contacted)
"""
FORKS = """
import os
import sys
from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder

encoder = TextCrossEncoder(DEFAULT_RERANKER)
encoder.rerank("capital of France", ["Paris"])
child = os.fork()
if child == 0:
    sys.exit(len(encoder.rerank("capital of France", ["Paris"])) - 1)
print(os.waitpid(child, 0)[1])
"""
SETS = """
import os
import qdrant_rerank
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""


def run(program, home, *, timeout_s=120, **environment):
    """What a program prints, in a home of its own, without the variable unless it is given."""
    inherited = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**inherited, "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=True,
    )
    return done.stdout.strip()


def test_loading_and_running_a_model_contacts_nothing(tmp_path):
    """No name is resolved, no socket connected, and onnxruntime keeps no database of its own."""
    assert run(LOADS_AND_RUNS, tmp_path) == "3 []"
    assert not list(tmp_path.rglob("Microsoft"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on Windows")
def test_a_child_forked_after_a_model_ran_exits(tmp_path):
    """Through sys.exit, where the thread of the telemetry would be waited for."""
    assert run(FORKS, tmp_path, timeout_s=30) == "0"


def test_what_the_user_says_about_telemetry_stays(tmp_path):
    """The variable is set unless it is there."""
    assert run(SETS, tmp_path) == "1"
    assert run(SETS, tmp_path, ORT_DISABLE_TELEMETRY="0") == "0"
