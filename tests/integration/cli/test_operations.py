"""The commands doctor and reindex, in this process, on the embedded engine."""

import json
import threading
import time
from contextlib import closing

import pytest
from click.testing import CliRunner
from qdrant_client import QdrantClient, models

from qdrant_rerank import HybridSearcher
from qdrant_rerank.cli.main import main
from qdrant_rerank.errors import MANUAL
from qdrant_rerank.qdrant.transport.client import connect
from tests.fault_server import answer
from tests.loopback_qdrant import loopback_qdrant

DOCUMENTS = [
    {"text": "Iron melts at 1538 degrees Celsius.", "year": 1999},
    {"text": "Bread is baked in a hot oven.", "year": 2001},
]


@pytest.fixture
def run(tmp_path):
    """Run a command on a database in a temporary directory."""

    def call(*arguments, documents=None):
        given = "".join(json.dumps(document) + "\n" for document in documents or [])
        return CliRunner().invoke(
            main, [*arguments, "--path", str(tmp_path / "db")], input=given, catch_exceptions=False
        )

    return call


def test_reindex_builds_beside_the_old_one_and_switches(run, tmp_path):
    """The alias stands for one collection at a time; what fails leaves the old index."""
    one = run("index", "-", "--collection", "before", documents=DOCUMENTS[:1])
    assert one.output == "1 document is in 'before'.\n"
    options = ("reindex", "-", "--collection", "docs", "--index", "year:integer", "--int8")
    first = run(*options, documents=DOCUMENTS)
    assert first.exit_code == 0, first.output
    assert "2 documents are in 'docs-" in first.output
    second = run(*options, "--json", documents=[DOCUMENTS[0]])
    told = json.loads(second.stdout)
    assert (told["alias"], told["added"]) == ("docs", 1)
    failed = run(*options, documents=[DOCUMENTS[0], {"title": "no text"}])
    assert failed.exit_code == 2
    assert "stdin, line 2: text='auto' found no text" in failed.output
    empty = run(*options)
    assert (empty.exit_code, empty.stderr.startswith("Error: stdin has no documents")) == (2, True)
    with closing(connect(path=str(tmp_path / "db"))) as client:
        names = {one.name for one in client.get_collections().collections}
        assert names == {"before", told["collection"]}
        info = client.get_collection("docs")
        assert info.points_count == 1
        assert info.payload_schema["year"].points == 1
        assert info.config.quantization_config.scalar.type == "int8"
    found = run("search", "iron", "--collection", "docs", "--json")
    assert json.loads(found.stdout)[0]["payload"]["year"] == 1999
    wrong = run("reindex", "-", "--collection", told["collection"], documents=DOCUMENTS)
    assert wrong.exit_code == 2
    assert "only an alias can be switched" in wrong.output
    assert run("reindex", "-", "--collection", "docs", "--index", "year").exit_code == 2


def test_reindex_keeps_a_collection_that_another_alias_stands_for(run, tmp_path):
    """Its searches go on, and the output names the alias."""
    run("index", "-", "--collection", "before", documents=DOCUMENTS[:1])
    reindex = ("reindex", "-", "--collection", "docs")
    first = json.loads(run(*reindex, "--json", documents=DOCUMENTS).stdout)["collection"]
    with closing(connect(path=str(tmp_path / "db"))) as client:
        other = models.CreateAlias(collection_name=first, alias_name="other")
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=other)])
    done = run(*reindex, documents=DOCUMENTS[:1])
    assert f"'{first}' is kept: 'other' stands for it, too." in done.output
    again = json.loads(run(*reindex, "--json", documents=DOCUMENTS[:1]).stdout)
    assert (again["kept"], again["kept_for"]) == (None, [])
    with closing(connect(path=str(tmp_path / "db"))) as client:
        names = {one.name for one in client.get_collections().collections}
        assert names == {"before", first, again["collection"]}
        assert client.count("other").count == 2


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("POST", "/collections/aliases", "which is kept: 'docs' may stand for it already"),
        ("DELETE", "/collections/docs-", "only 'docs-"),
    ],
)
def test_a_reindex_whose_last_steps_fail_says_how_things_stand(run, method, path, said):
    """The answer is lost, though the server did what it was asked: nothing is removed for that."""
    failing = []

    def sabotage(asked, where):
        lost = failing and asked == method and where.startswith(path)
        return answer(503, b"{}") if lost else None

    with loopback_qdrant(sabotage) as (url, qdrant):
        options = ("reindex", "-", "--collection", "docs", "--url", url)
        document = json.dumps(DOCUMENTS[0]) + "\n"
        assert CliRunner().invoke(main, options, input=document).exit_code == 0
        failing.append(True)
        done = CliRunner().invoke(main, options, input=document)
        assert done.exit_code == 2
        assert said in done.stderr
        assert "503" in done.stderr
        assert qdrant.client.get_collection("docs").points_count == 1
        for thread in threading.enumerate():
            if "_check_compatibility" in thread.name:  # qdrant-client's, which asks the server
                thread.join(10)


def test_doctor_says_what_is_wrong_and_how_to_fix_it(run):
    """Exit code 0 when all is well, 1 when something is wrong, 2 on bad input."""
    run("index", "-", "--collection", "docs", documents=DOCUMENTS)
    well = run("doctor", "--collection", "docs")
    assert (well.exit_code, well.output.splitlines()[-1]) == (0, "Nothing is wrong.")
    sick = run("doctor", "--collection", "docs", "--filter", "year", "--json")
    assert sick.exit_code == 1
    [wrong] = [finding for finding in json.loads(sick.stdout) if finding["wrong"]]
    assert wrong["about"] == "filters"
    assert wrong["fix"] == wrong["mend"] == "client.create_payload_index('docs', 'year', 'integer')"
    assert wrong["page"] == f"{MANUAL}search.html#filter-skip-cut"
    shown = run("doctor", "--collection", "docs", "--filter", "year").output.splitlines()
    assert shown[-2:] == [f"See {wrong['page']}", "1 wrong."]
    none = run("doctor", "--collection", "no", "--json")
    assert none.exit_code == 1
    missing = json.loads(none.stdout)[-1]
    assert missing["seen"].endswith("has no collection 'no'.")
    assert missing["fix"] == "It has 'docs'. 'qdrant-rerank index' creates it."
    assert "Embedded: qdrant-edge-py" in well.output
    assert run("doctor", "--collection", "docs", "--sample", "0").exit_code == 2
    assert run("doctor", "--collection", "docs", "--url", "http://localhost:1").exit_code == 2
    assert run("doctor", "--collection", "docs", "--filter", "my year").exit_code == 2


def test_reindex_keeps_the_language_and_measures_the_length_again(run, tmp_path):
    """What the old collection records; doctor says before that its length is far from the truth."""
    words = [{"text": "Häuser Straßen " * 20}, {"text": "Brot und Eisen " * 20}]
    place = ("--collection", "docs", "--embedder", "none")
    run("index", "-", "--collection", "before", documents=DOCUMENTS[:1])
    first = run("reindex", "-", *place, "--language", "german", documents=[{"text": "Haus"}])
    assert first.exit_code == 0, first.output
    assert run("index", "-", *place, documents=words).exit_code == 0
    sick = run("doctor", *place, "--reranker", "none", "--json")
    [found] = [one for one in json.loads(sick.stdout) if "average document length" in one["seen"]]
    assert found["wrong"]
    assert run("reindex", "-", *place, documents=words).exit_code == 0
    with closing(connect(path=str(tmp_path / "db"))) as client:
        record = client.get_collection("docs").config.metadata["qdrant_rerank_sparse"]
    assert (record["language"], record["avg_len"]) == ("german", 40.0)
    found = run("search", "Haus", *place, "--reranker", "none", "--json")
    assert [hit["payload"] for hit in json.loads(found.stdout)] == [words[0]]
    refused = run("index", "-", *place, "--language", "french", documents=words)
    assert (refused.exit_code, "in 'german'" in refused.stderr) == (2, True)
    unknown = run("index", "-", "--collection", "x", "--language", "klingon", documents=words)
    assert (unknown.exit_code, "language is 'klingon'" in unknown.stderr) == (2, True)


def test_runs_of_reindex_in_one_instant_fill_collections_of_their_own(run, monkeypatch):
    """A run that fails removes its collection, which must not be the one that is searched."""
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    monkeypatch.setattr(time, "strftime", lambda *given: "20300101-000000")
    place = ("--collection", "docs", "--embedder", "none")
    run("index", "-", "--collection", "before", documents=DOCUMENTS[:1])
    for _ in range(2):
        done = run("reindex", "-", *place, "--json", documents=[{"text": "Iron melts."}])
        assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["collection"] != told["replaced"]
    failed = run("reindex", "-", *place, documents=[{"text": "Iron melts."}, {"no": "text"}])
    assert failed.exit_code != 0
    found = run("search", "iron", *place, "--reranker", "none", "--json")
    assert len(json.loads(found.stdout)) == 1


def test_doctor_calls_local_mode_by_its_name(run, tmp_path):
    """And not a server; a directory stays with the engine that made it."""
    with closing(QdrantClient(path=str(tmp_path / "db"))) as client:
        HybridSearcher("docs", client=client, reranker=None).add(DOCUMENTS)
    assert "Embedded: qdrant-client's local mode." in run("doctor", "--collection", "docs").output


READING = (
    ("search", "iron", "--collection", "docs"),
    ("search", "iron", "--collection", "docs", "--embedder", "none"),
    ("doctor", "--collection", "docs"),
    ("reindex", "documents.jsonl", "--collection", "docs"),
    ("compare", "queries.txt", "--collection", "docs"),
    ("eval", "--collection", "docs", "--queries", "queries.tsv", "--qrels", "qrels.tsv"),
    ("tune", "--collection", "docs", "--queries", "queries.tsv", "--qrels", "qrels.tsv"),
)


@pytest.mark.parametrize("given", ["missing", "empty", "file"])
@pytest.mark.parametrize("arguments", READING, ids=lambda arguments: " ".join(arguments[:5:4]))
def test_what_reads_a_directory_makes_none(monkeypatch, tmp_path, arguments, given):
    """Nothing there, an empty directory or a file: one line, exit code 2, all as it was."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "documents.jsonl").write_text(json.dumps(DOCUMENTS[0]), "utf-8")
    (tmp_path / "queries.txt").write_text("iron\n", "utf-8")
    place = tmp_path / "db"
    if given == "empty":
        place.mkdir()
    elif given == "file":
        place.write_text("a file", "utf-8")
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(main, [*arguments, "--path", str(place)], catch_exceptions=False)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"Error: There is no Qdrant at {place}")
    assert len(done.stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_environments_directory_is_not_made_either(monkeypatch, tmp_path):
    """QDRANT_PATH is a path like any other."""
    monkeypatch.setenv("QDRANT_PATH", str(tmp_path / "db"))
    done = CliRunner().invoke(main, ["doctor", "--collection", "docs"], catch_exceptions=False)
    assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert "There is no Qdrant at" in done.stderr


def test_a_wrong_embedder_makes_no_directory(run, tmp_path):
    """Index, which makes one, looks at its arguments first."""
    done = run("index", "-", "--collection", "docs", "--embedder", "no/such/one")
    assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])
