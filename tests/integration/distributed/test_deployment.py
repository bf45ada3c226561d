"""The server on a real Ray Serve: the same answers, and no request lost with a replica."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from ray import serve

from qdrant_rerank.distributed.deployment import deployment
from qdrant_rerank.distributed.replicas import WaitingTokens
from qdrant_rerank.errors import InvalidInputError, UnknownModelError
from qdrant_rerank.serving import ServeSettings, create_app
from tests.faults import free_port
from tests.integration.distributed.conftest import STARTS, TOO_LATE
from tests.integration.distributed.processes import processes

KEY = "canary-key-of-the-server"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
TEXTS = ["Bread is baked in an oven.", "Iron melts at 1538 C."] * 10
BODY = {"query": "melting point of iron", "texts": TEXTS}


@pytest.fixture(scope="module")
def url(local_ray):
    """A server of two replicas."""
    port = free_port()
    settings = ServeSettings(api_keys=[KEY], max_documents=50, max_body_bytes=100_000)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(deployment(settings, replicas=2), name="tested", route_prefix="/")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def test_the_same_answers(url):
    """Every call answers as the application does in one process, errors included."""
    app = create_app(ServeSettings(api_keys=[KEY], max_documents=50, max_body_bytes=100_000))
    calls = [
        ("POST", "/rerank", BODY, AUTHORIZED),
        ("POST", "/rerank", BODY, {}),
        ("POST", "/rerank", {"query": "a"}, AUTHORIZED),
        ("POST", "/rerank", {"query": "a", "texts": ["b"] * 51}, AUTHORIZED),
        ("POST", "/rerank", {"query": "a", "texts": ["b" * 200_000]}, AUTHORIZED),
        ("POST", "/score", {"text_1": "iron", "text_2": TEXTS}, AUTHORIZED),
        ("GET", "/rerank", None, AUTHORIZED),
        ("GET", "/nowhere", None, AUTHORIZED),
        ("GET", "/health", None, {}),
        ("GET", "/openapi.json", None, {}),
    ]

    async def in_one_process():
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://it"
        ) as client:
            return [
                await client.request(method, path, json=body, headers=headers)
                for method, path, body, headers in calls
            ]

    expected = asyncio.run(in_one_process())
    with httpx.Client(base_url=url, timeout=300) as client:
        for (method, path, body, headers), wanted in zip(calls, expected, strict=True):
            found = client.request(method, path, json=body, headers=headers)
            assert found.status_code == wanted.status_code, path
            assert found.headers["content-type"] == wanted.headers["content-type"]
            if path == "/score" and found.status_code == 200:
                assert found.json()["data"] == wanted.json()["data"]
            else:
                assert found.content == wanted.content


def test_a_killed_replica_loses_no_request(url):
    """Requests that it had are answered by the other one."""
    found = Counter()
    scores = set()

    def ask():
        with httpx.Client(base_url=url, timeout=300, headers=AUTHORIZED) as client:
            for _ in range(20):
                answer = client.post("/rerank", json=BODY)
                found[answer.status_code] += 1
                scores.add(answer.content)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    while not found[200]:
        clients[0].join(0.02)
    os.kill(processes("ray::ServeReplica:tested:replica")[0][0], signal.SIGKILL)
    for client in clients:
        client.join()
    assert found == {200: 80}
    assert len(scores) == 1


def test_replicas_by_tokens_that_wait():
    """One for each so many tokens, and no fewer than the fewest."""

    def context(waiting):
        return SimpleNamespace(
            capacity_adjusted_min_replicas=2, aggregated_metrics={"waiting_tokens": waiting}
        )

    policy = WaitingTokens(tokens_per_replica=100)
    assert policy(context({"a": 150.0, "b": 200.0})) == (4, {})
    assert policy(context({})) == (2, {})


def test_bad_arguments(local_ray, monkeypatch):
    """Before anything is deployed."""
    for given, message in [
        ({"replicas": 0}, "replicas is 0; expected 1 or more"),
        ({"replicas": (3, 2)}, "expected the fewest first"),
        ({"gateways": 0}, "gateways is 0"),
        ({"cpus_per_replica": 64}, "A worker needs 64 cores"),
        ({"settings": ServeSettings(collections=["docs"], path="/data")}, "to one process alone"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            deployment(**given)
    with pytest.raises(UnknownModelError, match="no-such-model"):
        deployment(ServeSettings(models=["mine=no-such-model"]))


def listens(process):
    """Whether the command comes to listen; it ends if its Ray was not there in Ray's own 30 s."""
    told = ""
    for line in process.stderr:
        if line.startswith("Listening on"):
            return True
        told += line
    assert TOO_LATE in told, told
    return False


def test_the_command():
    """``serve --ray`` answers, and ends with exit code 0 at Ctrl-C."""
    port = free_port()
    command = [sys.executable, "-m", "qdrant_rerank", "serve", "--ray", "--port", str(port)]
    for _ in range(STARTS):
        with subprocess.Popen(
            command, cwd=Path(__file__).parents[3], stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                if not listens(process):
                    continue
                drained = threading.Thread(target=process.stderr.read)
                drained.start()
                found = httpx.post(f"http://127.0.0.1:{port}/rerank", json=BODY, timeout=300)
                assert found.status_code == 200
                process.send_signal(signal.SIGINT)
                assert process.wait(600) == 0
                drained.join()
                return
            finally:
                process.kill()
    pytest.fail(f"Ray was too late {STARTS} times")
