"""Older releases of qdrant-client: what they lack costs the feature, and nothing else."""

import json
import subprocess
import sys

import pytest

from qdrant_rerank.utils.client_models import SINCE
from tests.loopback_grpc import loopback_server
from tests.releases import needs_client

# Takes the models away that releases before ``sys.argv[1]`` lack, as if one was installed.
OLDER = """
import json, sys
from qdrant_client import models
lacking = json.loads(sys.argv[1])
for name in lacking:
    if hasattr(models, name):
        delattr(models, name)
from qdrant_rerank import HybridSearcher, TextIndex
from qdrant_rerank.errors import MissingDependencyError
from qdrant_client import QdrantClient
given = json.loads(sys.argv[2])
client = QdrantClient(**given)
searcher = HybridSearcher("iron", client=client)
texts = ["Bread is baked in an oven.", "Iron melts at 1538 C.", "Ores hold iron."]
stored = searcher.add([{"text": text, "n": n} for n, text in enumerate(texts)], progress=False)
only = {"must": [{"key": "n", "match": {"any": [1, 2]}}]}
hits = searcher.search("melting point of iron", limit=1, query_filter=only)
groups = searcher.search_groups("melting point of iron", group_by="n", limit=1)
told = ""
try:
    TextIndex("text").query("iron")
except MissingDependencyError as error:
    told = str(error)
print(json.dumps([stored, hits[0].payload["text"], groups[0].hits[0].payload["n"], told]))
"""


def older(lacking, given):
    """Add and search in a process whose qdrant-client lacks models."""
    done = subprocess.run(
        [sys.executable, "-c", OLDER, json.dumps(sorted(lacking)), json.dumps(given)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "where", ["embedded", "REST", pytest.param("gRPC", marks=needs_client(1, 20))]
)  # gRPC on a server: test_server.py; older releases cannot play the server
def test_an_older_client_adds_and_searches(client, where):
    """All that a release lacks is named with the release that has it."""
    with loopback_server(client) as (url, port):
        given = {"location": ":memory:"}
        if where != "embedded":
            given = {
                "url": url,
                "grpc_port": port,
                "prefer_grpc": where == "gRPC",
                "check_compatibility": False,
            }
        stored, text, number, told = older(SINCE, given)
    assert (stored, text, number) == (3, "Iron melts at 1538 C.", 1)
    assert "models.TextQuery needs qdrant-client 1.20 or newer" in told
    assert "pip install --upgrade 'qdrant-client>=1.20'" in told


def test_every_stand_in_is_of_a_release_that_is_supported():
    """Those that the oldest release has need none."""
    assert all((1, 16) < tuple(map(int, since.split("."))) <= (1, 20) for since in SINCE.values())
