"""The command line and servers: their keys, their versions, their limits, and what doctor says."""

import json
import os
import subprocess
import sys

import pytest
from qdrant_client import QdrantClient, models

from qdrant_rerank import HybridSearcher
from tests import loopback_qdrant as loopback
from tests.loopback_qdrant import loopback_qdrant

TEXTS = ["Iron melts at 1538 degrees Celsius.", "Bread is baked in a hot oven."]
KEY = "a-key-of-the-tests"


def command(*arguments, stdin="", prefix=(), **environment):
    """Run qdrant-rerank: exit code, stdout, stderr."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "qdrant_rerank", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "80"} | environment,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def findings(*arguments, **environment):
    """What doctor says as JSON: exit code, and (about, wrong, seen, fix) of each finding."""
    code, out, err = command("doctor", *arguments, "--json", **environment)
    assert err == ""
    return code, [
        (found["about"], found["wrong"], found["seen"], found["fix"]) for found in json.loads(out)
    ]


def test_doctor_looks_at_the_server_of_the_environment():
    """It lists the collections; a key that is asked for, refused, or no server at all is wrong."""
    with loopback_qdrant(key=KEY) as (url, qdrant):
        HybridSearcher("docs", client=qdrant.client, reranker=None).add(TEXTS)
        code, found = findings(QDRANT_URL=url, QDRANT_API_KEY=KEY)
        assert code == 0
        assert ("server", False, "It has 1 collection: 'docs'.", "") in found
        for key, fix in (("", "Set QDRANT_API_KEY to a key"), ("wrong-key", "does not accept")):
            code, found = findings(QDRANT_URL=url, QDRANT_API_KEY=key)
            [(about, _, seen, fixed)] = [one for one in found if one[1]]
            assert (code, about) == (1, "server")
            assert "401" in seen
            assert fix in fixed
        code, out, _ = command("doctor", "--url", url, "--collection", "docs", QDRANT_API_KEY="x")
        assert (code, out.splitlines()[-1]) == (1, "1 wrong.")
    code, found = findings(QDRANT_URL=url)
    assert code == 1
    assert "cannot be reached" in found[-1][2]
    assert "Is Qdrant running there? To start one: " in found[-1][3]


def test_doctor_looks_at_a_directory_without_a_collection(tmp_path):
    """It lists what is there; what `index` will make is no fault, and is not made."""
    code, found = findings(QDRANT_PATH=str(tmp_path / "db"))
    assert (code, list(tmp_path.iterdir())) == (0, [])
    assert found[-1][2].startswith("There is no Qdrant at")
    stdin = "".join(json.dumps(text) + "\n" for text in TEXTS)
    for name in ("b", "a"):
        command("index", "-", "--collection", name, "--path", tmp_path / "db", stdin=stdin)
    code, found = findings("--path", tmp_path / "db")
    assert code == 0
    assert found[-1][2] == "It has 2 collections: 'a', 'b'."


def test_a_directory_of_others_is_no_place_for_an_index(tmp_path):
    """doctor and search say so, as index does, and do not send the user there."""
    (tmp_path / "notes.txt").write_text("hi")
    code, found = findings("--path", tmp_path)
    assert (code, found[-1][:2]) == (1, ("server", True))
    assert "is no directory of the embedded Qdrant" in found[-1][2]
    code, _, said = command("search", "iron", "--collection", "c", "--path", tmp_path)
    assert code != 0
    assert "is no directory of the embedded Qdrant" in said
    assert "creates one" not in said


def test_nothing_is_said_of_a_key_or_a_version_on_loopback(monkeypatch):
    """qdrant-client warns of both; the command's output has the answer alone."""
    monkeypatch.setattr(loopback, "VERSION", "1.10.0")
    with loopback_qdrant(key=KEY) as (url, qdrant):
        HybridSearcher("docs", client=qdrant.client, reranker=None).add(TEXTS)
        options = ("--collection", "docs", "--url", url, "--reranker", "none", "--json")
        code, out, err = command("search", "iron", *options, QDRANT_API_KEY=KEY)
        assert (code, err) == (0, "")
        assert len(json.loads(out)) == 2


def test_elsewhere_each_is_one_line_of_ours(monkeypatch):
    """What to do is in it; https and a fitting version say nothing."""
    monkeypatch.setattr(loopback, "VERSION", "1.10.0")
    with loopback_qdrant(key=KEY) as (url, qdrant):
        HybridSearcher("docs", client=qdrant.client, reranker=None).add(TEXTS)
        elsewhere = url.replace("127.0.0.1", "0.0.0.0")  # this machine, by another name
        options = ("--collection", "docs", "--url", elsewhere, "--reranker", "none", "--json")
        _, _, err = command("search", "iron", *options, QDRANT_API_KEY=KEY)
        key, versions = err.splitlines()
        assert key.startswith("Warning: QDRANT_API_KEY is sent without encryption. Use an https")
        assert versions.startswith("Warning: Qdrant 1.10.0, qdrant-client 1.")
        assert versions.endswith("Upgrade the server.")


def test_doctor_says_that_there_is_no_home_and_shows_all_of_the_fix():
    """On a machine where the user has no passwd entry; no cell is cut at 80 columns."""
    nobody = ("unshare", "--user", "--map-user=54321", "env", "-u", "HOME")
    try:
        subprocess.run([*nobody, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no user namespaces here")
    code, out, _ = command("doctor", prefix=nobody)
    assert code == 1
    assert out.splitlines()[-1] == "1 wrong."
    words = " ".join(out.split())
    for word in "There is no home directory HOME QDRANT_RERANK_CACHE folder for models.".split():
        assert word in words
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = command("doctor", prefix=nobody, QDRANT_RERANK_CACHE="/tmp")
    assert (code, out.splitlines()[-1]) == (0, "Nothing is wrong.")


@pytest.mark.server
@pytest.mark.filterwarnings("ignore:Api key is used")
def test_doctor_names_the_limits_of_strict_mode(server_url):
    """Each is what the server then refuses; doctor itself stays within them."""
    name = "qdrant-rerank-strict"
    key = os.environ.get("QDRANT_API_KEY")
    client = QdrantClient(url=server_url, api_key=key, check_compatibility=False)
    try:
        client.delete_collection(name)
        searcher = HybridSearcher(name, client=client, reranker=None)
        searcher.add([{"text": f"Iron, volume {n}.", "year": n} for n in range(60)])
        limits = models.StrictModeConfig(
            enabled=True,
            max_query_limit=50,
            unindexed_filtering_retrieve=False,
            upsert_max_batchsize=10,
            max_timeout=61,  # nodes of a cluster give each other up to 60 s
            search_allow_exact=False,
            search_max_hnsw_ef=64,
            read_rate_limit=1000,
        )
        client.update_collection(name, strict_mode_config=limits)
        options = ("--collection", name, "--reranker", "none", "--filter", "year")
        code, found = findings(*options)
        assert code == 1
        told = [one for one in found if one[0] == "strict mode"]
        assert [seen for _, wrong, seen, _ in told if wrong] == [
            "A request may return 50 points, and a search retrieves 100 candidates.",
            "Filters are allowed only on payload fields with an index, which 'year' lack.",
            "A request may store 10 points, and add sends 256 by default.",
        ]
        notes = " ".join(seen for _, wrong, seen, _ in told if not wrong)
        assert "may take 61 s" in notes
        assert "hnsw_ef at most 64, no exact search" in notes
        assert "1,000 reads per minute" in notes
        where = ("--collection", name, "--reranker", "none")
        assert command("search", "iron", *where)[0] == 2
        assert command("search", "iron", *where, "--candidates", 50)[0] == 0
        stdin = "".join(json.dumps(f"More iron, {n}.") + "\n" for n in range(20))
        assert command("index", "-", "--collection", name, stdin=stdin)[0] == 2
        small = ("--collection", name, "--batch-size", 10)
        assert command("index", "-", *small, stdin=stdin)[0] == 0
    finally:
        client.delete_collection(name)
        client.close()
