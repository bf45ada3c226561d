"""``qdrant-rerank states``: resumed, harmless, and seen by ``doctor``."""

import json
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import closing

import pytest
from click.testing import CliRunner
from qdrant_client import QdrantClient, models

from qdrant_rerank import CollectionSettings, HybridSearcher
from qdrant_rerank.cli.main import main
from qdrant_rerank.qdrant.schema import STATES_FIELD
from tests.loopback_qdrant import loopback_qdrant

TEXTS = [f"Iron melts at 1538 degrees, and metal {number} does not." for number in range(40)]
QUERY = "melting point of iron"


@pytest.fixture
def url():
    """A server with a collection without states."""
    with (
        loopback_qdrant() as (url, _),
        closing(QdrantClient(url=url, check_compatibility=False)) as qdrant,
    ):
        searcher = HybridSearcher("docs", client=qdrant, reranker=None)
        searcher.add(
            [{"text": text, "row": row} for row, text in enumerate(TEXTS)], ids=range(len(TEXTS))
        )
        qdrant.upsert("docs", [models.PointStruct(id=99, vector={}, payload={"row": 99})])
        yield url, qdrant
        for thread in threading.enumerate():  # of the commands' clients, which ask for a version
            if "_check_compatibility" in thread.name:
                thread.join(30)


def run(*arguments):
    """The JSON that a command prints."""
    result = CliRunner().invoke(main, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_states_are_filled_in_once(url):
    """The second run makes none; nothing else of a point has changed; a search uses them."""
    url, qdrant = url

    def all_points():
        return {
            point.id: ({k: v for k, v in point.payload.items() if k != STATES_FIELD}, point.vector)
            for point in qdrant.scroll("docs", limit=999, with_vectors=True)[0]
        }

    before = all_points()
    arguments = ["states", "--collection", "docs", "--url", url, "--batch-size", "7"]
    filled = run(*arguments)
    assert filled == {
        "collection": "docs",
        "points": 41,
        "current": 0,
        "made": 40,
        "without_text": 1,
    }
    assert all_points() == before
    qdrant.set_payload("docs", {"text": "Something else."}, points=[3])
    again = run(*arguments)
    assert (again["made"], again["current"]) == (1, 39)
    found = HybridSearcher("docs", client=qdrant).search(QUERY, limit=41)
    assert (found.trace.documents_stored, found.trace.documents_read) == (40, 0)
    assert all(STATES_FIELD not in hit.payload for hit in found)


def test_more_than_a_request_holds_is_written(url):
    """Long documents have half a megabyte of states each; the server's REST takes 32 MiB."""
    url, qdrant = url
    long = ["Iron melts at 1538 degrees, and tin at 232. " * 40 + str(n) for n in range(80)]
    points = [models.PointStruct(id=n, vector={}, payload={"text": t}) for n, t in enumerate(long)]
    qdrant.upsert("docs", points)
    command = ("states", "--collection", "docs", "--url", url, "--precision", "float16")
    filled = run(*command, "--batch-size", "100")
    assert (filled["points"], filled["made"]) == (81, 80)
    [one] = qdrant.retrieve("docs", [0], with_payload=[STATES_FIELD])
    assert 80 * len(one.model_dump_json()) > 32 * 2**20
    assert run(*command)["current"] == 80


def test_damaged_states_are_made_again(url):
    """``doctor`` does not count them as current, and the next run makes them again."""
    url, qdrant = url
    arguments = ["states", "--collection", "docs", "--url", url]
    run(*arguments)
    kept = qdrant.retrieve("docs", [5])[0].payload[STATES_FIELD]["states"]
    middle = len(kept) // 2
    broken = kept[:middle] + ("B" if kept[middle] == "A" else "A") + kept[middle + 1 :]
    qdrant.set_payload("docs", {STATES_FIELD: {"states": broken}}, points=[5])
    doctor = CliRunner().invoke(main, ["doctor", "--collection", "docs", "--url", url, "--json"])
    [finding] = [one for one in json.loads(doctor.stdout) if one["about"] == "states"]
    assert "39 of 40" in finding["seen"]
    again = run(*arguments)
    assert (again["made"], again["current"]) == (1, 39)
    assert qdrant.retrieve("docs", [5])[0].payload[STATES_FIELD]["states"] == kept


def test_another_precision_is_made_anew(url):
    """The precision is recorded, and kept by the next run without the option."""
    url, qdrant = url
    arguments = ["states", "--collection", "docs", "--url", url]
    assert run(*arguments)["made"] == 40
    assert run(*arguments, "--precision", "float16")["made"] == 40
    assert run(*arguments)["current"] == 40
    found = HybridSearcher("docs", client=qdrant).search(QUERY)
    assert found.trace.precision == "int8, states float16"


def test_a_field_of_that_name_that_is_not_ours_is_kept(url):
    """The command ends with 2, names the point, and writes nothing."""
    url, qdrant = url
    qdrant.set_payload("docs", {"qdrant_rerank_states": "mine"}, points=[30])
    result = CliRunner().invoke(main, ["states", "--collection", "docs", "--url", url])
    assert result.exit_code == 2
    assert "Point 30 of 'docs' has a field 'qdrant_rerank_states'" in result.stderr
    assert "qdrant_rerank_states" not in (qdrant.get_collection("docs").config.metadata or {})
    payload = qdrant.retrieve("docs", [30])[0].payload
    assert payload == {"text": TEXTS[30], "row": 30, "qdrant_rerank_states": "mine"}


def test_a_model_without_a_trunk_changes_nothing(url, tiny_bert):
    """The command ends with 2, names the models that have one, and writes nothing."""
    url, qdrant = url
    result = CliRunner().invoke(
        main, ["states", "--collection", "docs", "--url", url, "--reranker", str(tiny_bert)]
    )
    assert result.exit_code == 2
    assert "grown-e5-small-v1" in result.stderr
    assert "qdrant_rerank_states" not in (qdrant.get_collection("docs").config.metadata or {})


def test_a_killed_command_is_resumed(url):
    """What a run wrote before SIGKILL is not made again, and a search in between is right."""
    url, qdrant = url
    command = [sys.executable, "-m", "qdrant_rerank", "states", "--collection", "docs"]
    process = subprocess.Popen(
        [*command, "--url", url, "--batch-size", "1"], stdout=subprocess.DEVNULL
    )

    def done():
        points, _ = qdrant.scroll("docs", limit=99)
        return sum(STATES_FIELD in point.payload for point in points)

    until = time.monotonic() + 300
    while done() < 3 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = done()
    assert before >= 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that many are read again
        found = HybridSearcher("docs", client=qdrant).search(QUERY, limit=40)
    assert (found.trace.documents_stored, found.trace.documents_read) == (before, 40 - before)
    filled = run("states", "--collection", "docs", "--url", url)
    assert (filled["current"], filled["made"]) == (before, 40 - before)
    again = HybridSearcher("docs", client=qdrant).search(QUERY, limit=40)
    assert {hit.id: hit.rerank_score for hit in again} == {
        hit.id: hit.rerank_score for hit in found
    }


def test_settings_make_what_the_command_would(url):
    """``add`` with settings leaves nothing for the command to do."""
    url, qdrant = url
    searcher = HybridSearcher("made", client=qdrant)
    searcher.add(TEXTS[:5], settings=CollectionSettings(document_states="int8"))
    filled = run("states", "--collection", "made", "--url", url)
    assert (filled["current"], filled["made"]) == (5, 0)


def test_doctor_tells_how_many_are_current(url):
    """Without states nothing is said; else how many are current, and the command."""
    url, qdrant = url

    def told():
        result = CliRunner().invoke(
            main, ["doctor", "--collection", "docs", "--url", url, "--json"]
        )
        return [one for one in json.loads(result.stdout) if one["about"] == "states"]

    assert told() == []
    run("states", "--collection", "docs", "--url", url)
    [finding] = told()
    assert "40 of 40" in finding["seen"]
    assert not finding["wrong"]
    qdrant.delete_payload("docs", [STATES_FIELD], points=list(range(10)))
    [finding] = told()
    assert "30 of 40" in finding["seen"]
    assert "qdrant-rerank states" in finding["fix"]
    assert finding["wrong"]


def test_index_and_reindex_store_states(tmp_path, url):
    """A new collection stores what is asked for; later calls keep it."""
    url, _ = url
    file = tmp_path / "docs.jsonl"
    file.write_text("".join(json.dumps(text) + "\n" for text in TEXTS[:4]))
    place = ["--url", url]
    run("index", str(file), "--collection", "new", *place, "--document-states", "float16")
    file.write_text(json.dumps("Tin is soft.") + "\n")
    run("index", str(file), "--collection", "new", *place)
    filled = run("states", "--collection", "new", *place)
    assert (filled["points"], filled["current"]) == (5, 5)
    refused = CliRunner().invoke(
        main, ["index", str(file), "--collection", "docs", *place, "--document-states", "int8"]
    )
    assert refused.exit_code == 2
    assert "qdrant-rerank states --collection docs" in refused.stderr
    run("reindex", str(file), "--collection", "alias", *place, "--document-states", "int8")
    run("reindex", str(file), "--collection", "alias", *place)
    filled = run("states", "--collection", "alias", *place)
    assert (filled["points"], filled["current"], filled["made"]) == (1, 1, 0)


def test_quantized_states(url):
    """They are filled in once, kept by the next run, and changed for int8 and back.

    A searcher that runs meanwhile uses those that are stored.
    """
    url, qdrant = url
    arguments = ["states", "--collection", "docs", "--url", url]
    searcher = HybridSearcher("docs", client=qdrant)
    for precision in ("pq", "int8", "pq"):
        assert run(*arguments, "--precision", precision)["made"] == 40
        assert run(*arguments)["current"] == 40
        found = searcher.search(QUERY, limit=41)
        assert found.trace.precision == f"int8, states {precision}"
        assert (found.trace.documents_stored, found.trace.documents_read) == (40, 0)
    doctor = CliRunner().invoke(main, ["doctor", "--collection", "docs", "--url", url, "--json"])
    [finding] = [one for one in json.loads(doctor.stdout) if one["about"] == "states"]
    assert "40 of 40" in finding["seen"]
    assert "pq" in finding["seen"]


def test_doctor_names_a_precision_that_the_reranker_has(url):
    """States are stored in one for which the reranker of the call has no quantizer."""
    url, _ = url
    place = ["--collection", "docs", "--url", url]
    run("states", *place, "--precision", "pq")
    other = ["--reranker", "grown-e5-small-l6-v1"]
    doctor = CliRunner().invoke(main, ["doctor", *place, *other, "--json"])
    [finding] = [one for one in json.loads(doctor.stdout) if one["about"] == "states"]
    assert finding["fix"].endswith("--reranker ... --precision int8")
    assert run("states", *place, *other, "--precision", "int8")["made"] == 40


def test_index_and_reindex_store_quantized_states(tmp_path, url):
    """As they are asked to, and as the collection before."""
    url, _ = url
    file = tmp_path / "docs.jsonl"
    file.write_text("".join(json.dumps(text) + "\n" for text in TEXTS[:4]))
    place = ["--url", url]
    run("index", str(file), "--collection", "new", *place, "--document-states", "pq")
    run("reindex", str(file), "--collection", "alias", *place, "--document-states", "pq")
    run("reindex", str(file), "--collection", "alias", *place)
    for collection in ("new", "alias"):
        filled = run("states", "--collection", collection, *place, "--precision", "pq")
        assert (filled["points"], filled["current"], filled["made"]) == (4, 4, 0)


@pytest.mark.parametrize("model", ["grown-e5-small-l6-v1", "grown-e5-small-cross-v1"])
def test_a_model_without_a_quantizer_changes_nothing(tmp_path, url, model):
    """Each command ends with 2, and names the model that has one; states in int8 stay."""
    url, qdrant = url
    place = ["--collection", "docs", "--url", url]

    def states():
        metadata = qdrant.get_collection("docs").config.metadata
        payloads = [point.payload for point in qdrant.scroll("docs", limit=99)[0]]
        return metadata["qdrant_rerank_states"], payloads

    def refused(*arguments):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2
        assert f"{model} has none. Choose 'int8', or grown-e5-small-v1" in result.stderr

    run("states", *place, "--reranker", model)
    before = states()
    refused("states", *place, "--reranker", model, "--precision", "pq")
    assert states() == before
    collections = qdrant.get_collections()
    file = tmp_path / "docs.jsonl"
    file.write_text(json.dumps(TEXTS[0]) + "\n")
    alias = models.CreateAlias(collection_name="docs", alias_name="alias")
    qdrant.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    refused("reindex", str(file), "--collection", "alias", "--url", url, "--document-states", "pq")
    assert qdrant.get_collections() == collections
    assert states() == before
