"""A real Ray Serve starts a second replica while tokens wait at the first."""

import threading

import httpx
from ray import serve

from qdrant_rerank.distributed.deployment import deployment
from qdrant_rerank.serving import ServeSettings
from tests.faults import free_port
from tests.integration.distributed.processes import processes, until

BODY = {"query": "melting point of iron", "texts": ["Iron melts at 1538 C. " * 20] * 200}


def test_replicas_start_while_tokens_wait(local_ray):
    """Their policy is by tokens: few requests, all of them long."""
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    app = deployment(ServeSettings(), replicas=(1, 2), tokens_per_replica=5000)
    serve.run(app, name="growing", route_prefix="/")
    ended = threading.Event()
    found = []

    def ask():
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client:
            while not ended.is_set():
                found.append(client.post("/rerank", json=BODY).status_code)

    def replicas():
        return len(processes("ray::ServeReplica:growing:replica"))

    clients = [threading.Thread(target=ask) for _ in range(2)]
    try:
        assert replicas() == 1
        for client in clients:
            client.start()
        until(lambda: replicas() == 2)
    finally:
        ended.set()
        for client in clients:
            client.join()
        serve.shutdown()
    assert set(found) == {200}
