"""Searching while the collection changes and the network fails."""

import subprocess
import sys
from pathlib import Path

import pytest

from qdrant_rerank import HybridSearcher
from tests.releases import needs_client

ROOT = Path(__file__).parents[3]


@needs_client(1, 20)
def test_a_short_soak_finds_nothing_wrong():
    """No score of another text, no text from the past, only errors of ours, nothing left."""
    command = [sys.executable, "-m", "benchmarks.soak", "--searches", "60", "--faults", "0.05"]
    done = subprocess.run(
        [*command, "--reranker", str(ROOT / "tests/models/tiny-bert")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 searches by 4 threads and 4 tasks" in done.stdout
    assert done.stdout.endswith("wrong: 0\n")


class Meanwhile:
    """A reranker that changes a point while it works."""

    def __init__(self, change):
        self.change = change

    def rerank(self, query, documents):
        scores = [float(len(document)) for document in documents]
        self.change()
        return scores


@pytest.mark.parametrize("field", ["text", "chapter.text"])
def test_a_point_that_changes_during_a_search_keeps_the_text_that_was_scored(client, field):
    """What is fetched afterwards is new, but no score stands beside a text that it is not of."""

    def put(text, n):
        payload = {"text": text, "n": n, "chapter": {"text": text, "n": n}}
        filler.add([payload], ids=[1], progress=False)

    filler = HybridSearcher("docs", client=client, reranker=None, text=field)
    put("before", 1)
    reranker = Meanwhile(lambda: put("afterwards", 2))
    searcher = HybridSearcher("docs", client=client, reranker=reranker, text=field)
    [hit] = searcher.search("before", with_payload=["text", "n", "chapter"])
    shown = hit.payload if field == "text" else hit.payload["chapter"]
    assert (shown["text"], shown["n"], hit.score) == ("before", 2, len("before"))


def test_a_point_that_is_deleted_during_a_search_keeps_its_place(client):
    """Without a payload."""
    HybridSearcher("docs", client=client, reranker=None).add(["a"], ids=[1], progress=False)
    reranker = Meanwhile(lambda: client.delete("docs", [1]))
    searcher = HybridSearcher("docs", client=client, reranker=reranker)
    [hit] = searcher.search("a", with_payload=["text"])
    assert (hit.id, hit.payload, hit.score) == (1, None, 1.0)
