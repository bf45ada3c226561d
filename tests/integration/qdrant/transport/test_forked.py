"""Clients of a server in forked children: they use connections of their own."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.fault_grpc import serving_grpc
from tests.fault_server import Script
from tests.faults import COLLECTION, GOOD, HIT
from tests.releases import needs_client

SCRIPT = """
import asyncio, os, sys, warnings
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_rerank import AsyncHybridSearcher, HybridSearcher

kind, how, options = sys.argv[1], sys.argv[2], eval(sys.argv[3])
client_type, searcher_type = {
    "sync": (QdrantClient, HybridSearcher), "async": (AsyncQdrantClient, AsyncHybridSearcher),
}[kind]
if how == "transport":
    import httpx
    options["transport"] = httpx.HTTPTransport()
client = client_type(timeout=20, check_compatibility=False, **options)

loops = {}

def run(awaitable):
    # In the one event loop of this process.
    loop = loops.setdefault(os.getpid(), asyncio.new_event_loop())
    return loop.run_until_complete(awaitable)

def search(searcher=None):
    searcher = searcher or searcher_type("docs", client=client, reranker=None)
    async def main():
        return await searcher.search("q")

    found = searcher.search("q") if kind == "sync" else run(main())
    assert [hit.id for hit in found] == [1], found

if how == "client":  # only the user's own code has used it
    got = client.get_collection("docs")
    if kind == "async":
        run(got)
    made = None
else:
    made = searcher_type("docs", client=client, reranker=None)
    search(made)
print("parent", flush=True)
sys.stdin.readline()
sys.stdout.flush()
child = os.fork()
if child == 0:
    try:
        search(made)
        print("child searched", flush=True)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
sys.stdin.readline()
search(made)
print("parent again", flush=True)
"""


class KeptAlive:
    """A Qdrant whose connections stay open; notes the connection of each request."""

    def __init__(self):
        self.connections = []
        seen = self.connections

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                seen.append(self.client_address)
                result = {"points": [HIT]} if "query" in self.path else COLLECTION
                body = json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer  # noqa: N815 - names of http.server

            def log_message(self, format, *args):
                """Keep the tests' output clean."""

        # qdrant-client closes connections to 127.0.0.1 after each request.
        self.server = ThreadingHTTPServer(("127.0.0.2", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.2:{self.server.server_port}"

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def phases(kind, how, options, seen):
    """Run the script; what it prints, and the connections of parent, child, and parent again."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, kind, how, repr(options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    said, connections = [], []
    stop = threading.Timer(40, os.killpg, (process.pid, signal.SIGKILL))  # it and its child
    stop.start()
    with process:
        for _ in range(3):
            said.append(process.stdout.readline().strip())
            connections.append({*seen})
            seen.clear()
            if len(said) < 3:
                process.stdin.write("\n")
                process.stdin.flush()
    stop.cancel()
    return said, connections


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("how", ["searcher", "client"])
def test_a_forked_child_has_its_own_connections_over_rest(kind, how):
    """On a shared one, each of the two processes would read the other's answers."""
    with KeptAlive() as server:
        said, (parent, child, _) = phases(kind, how, {"url": server.url}, server.connections)
    assert said == ["parent", "child searched", "parent again"]
    assert parent
    assert child
    assert not parent & child


def test_the_parent_keeps_its_connections():
    """A fork costs it nothing."""
    with KeptAlive() as server:
        _, (parent, _, again) = phases("sync", "searcher", {"url": server.url}, server.connections)
    assert again <= parent


def test_a_client_that_cannot_be_renewed_is_refused_in_a_child():
    """A transport of the caller's own holds connections that nobody else can replace."""
    with KeptAlive() as server:
        said, _ = phases("sync", "transport", {"url": server.url}, server.connections)
    assert said[1].startswith("QdrantConnectionError The client was made in process")
    assert "Make a client in each process" in said[1]
    assert said[2] == "parent again"


@pytest.mark.parametrize(
    ("kind", "child"),
    [
        # With httpx 0.27 and grpcio before 1.85 the child is refused a socket, and told so.
        pytest.param("sync", "child searched", marks=needs_client(1, 20)),
        ("async", "QdrantConnectionError Process .* used gRPC in an event loop before this"),
    ],
)
def test_a_forked_child_over_grpc(kind, child):
    """It searches, or is told at once that gRPC would hang."""
    with serving_grpc(Script(GOOD)) as port:
        options = {"url": "http://127.0.0.1:1", "grpc_port": port, "prefer_grpc": True}
        said, _ = phases(kind, "searcher", options, [])
    assert re.match(child, said[1])
    assert (said[0], said[2]) == ("parent", "parent again")
