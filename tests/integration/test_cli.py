"""The command, run as a user runs it."""

import json
import os
import subprocess
import sys

import pytest

LINES = "Bread is baked in an oven.\nIron melts at 1538 C.\n\nPenguins huddle.\n"
JSONL = "".join(
    json.dumps(document) + "\n"
    for document in (
        {"title": "Bread", "body": "It is baked in an oven."},
        {"title": "Iron", "body": "It melts at 1538 C."},
        {"title": "Penguins", "body": "They huddle."},
    )
)
QUERY = "At what temperature does iron melt?"


@pytest.fixture
def command(tmp_path):
    """Runs qdrant-rerank; returns exit code, stdout and stderr."""

    def run(*arguments, stdin=b"", **env):
        done = subprocess.run(
            [sys.executable, "-m", "qdrant_rerank", *map(str, arguments)],
            input=stdin if isinstance(stdin, bytes) else stdin.encode(),
            capture_output=True,
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "120"} | env,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run


def test_index_and_search(command, tmp_path):
    """Two commands and a directory between them; indexing twice does not duplicate."""
    (tmp_path / "docs.jsonl").write_text(JSONL, encoding="utf-8-sig")
    where = ("--collection", "docs", "--path", tmp_path / "db", "--text", "title", "--text", "body")
    for _ in range(2):
        code, out, err = command("index", "docs.jsonl", *where)
        assert (code, out) == (0, "3 documents are in 'docs'.\n"), err
    code, out, _ = command("search", QUERY, *where, "--json", "--limit", 2)
    hits = json.loads(out)
    assert hits[0]["payload"]["title"] == "Iron"
    assert [hit["rank"] for hit in hits] == [1, 2]
    code, out, _ = command("search", QUERY, *where)
    assert code == 0
    assert "It melts at 1538 C." in out
    code, out, _ = command("index", "-", *where, "--json", stdin=JSONL)
    assert json.loads(out) == {"collection": "docs", "added": 3}


@pytest.mark.parametrize("arguments", [(), ("--format", "lines")])
def test_rerank_lines(command, arguments):
    """Lines in on stdin, the best first."""
    code, out, err = command("rerank", QUERY, *arguments, stdin=LINES)
    assert code == 0, err
    assert out.index("Iron") < out.index("Penguins")


def test_rerank_jsonl_as_json(command, tmp_path):
    """Scores out with the line they belong to."""
    (tmp_path / "docs.jsonl").write_text("\n" + JSONL)
    code, out, _ = command("rerank", QUERY, "docs.jsonl", "--text", "{title}: {body}", "--json")
    found = json.loads(out)
    assert code == 0
    assert found[0]["line"] == 3
    assert found[0]["document"]["title"] == "Iron"
    assert [hit["score"] for hit in found] == sorted((h["score"] for h in found), reverse=True)
    code, out, _ = command("rerank", QUERY, "--json", "--limit", 1, stdin="")
    assert (code, json.loads(out)) == (0, [])


def test_models(command):
    """A table and JSON of the same."""
    code, out, _ = command("models", "--json")
    names = [entry["model"] for entry in json.loads(out)]
    assert code == 0
    assert "BAAI/bge-reranker-base" in names
    code, out, _ = command("models")
    assert all(name.rpartition("/")[2][:12] in out for name in names)


def test_demo_with_a_question(command):
    """Both orders, both scores, the time of each stage."""
    code, out, err = command("demo", "recursively delete a directory tree")
    assert code == 0, err
    assert "documents of Python's standard library" in out
    assert "first stage" in out
    assert "reranked" in out
    assert "shutil.rmtree" in out
    assert "recall" in out.splitlines()[-1] or "total" in out


@pytest.mark.parametrize(
    ("arguments", "stdin", "seen"),
    [
        (("rerank", QUERY), '{"text": "a"}\n{"text": ', "stdin, line 2 is not JSON"),
        (("rerank", QUERY), '{"n": ' + "1" * 5000 + "}", "stdin, line 1 is not JSON"),
        (("rerank", QUERY, "--format", "jsonl"), "[" * 100_000, "stdin, line 1 is not JSON"),
        (("rerank", QUERY), '{"text": "a"}\n[1]', "stdin, line 2 holds a list"),
        (("rerank", QUERY), b"ok\n\xff\xfe", "stdin, line 2 is not UTF-8 (byte 1)"),
        (("rerank", QUERY), '{"body": "a"}', "Point 1 has no text"),
        (("rerank", " "), "a", "query is empty"),
        (("rerank", QUERY, "none.txt"), "", "none.txt cannot be read: No such file"),
        (("rerank", QUERY, "--reranker", "bge-rerankr-base"), "a", "Did you mean"),
        (("rerank", QUERY, "--limit", "0"), "a", "limit is 0"),
        (("rerank", QUERY, "--limit", "x"), "a", "not a valid integer"),
        (("rerank", QUERY, "--format", "lines", "--text", "b"), "a", "--text is for JSONL"),
        (("index", "-", "--collection", "c"), "", "No Qdrant to keep the collection in"),
        (("index", "-", "--collection", "c", "--path", "p", "--url", "u"), "", "both given"),
        (("search", QUERY, "--collection", "c", "--path", "p"), "", "There is no Qdrant at p"),
        (("search", QUERY, "--collection", "c", "--url", "http://127.0.0.1:9"), "",
         "cannot be reached"),
        (("demo", " "), "", "query is empty"),
        (("nonsense",), "", "No such command"),
    ],
)  # fmt: skip
def test_bad_input_is_exit_code_two_and_one_clear_line(command, arguments, stdin, seen):
    """On stderr; stdout stays empty for pipes."""
    code, out, err = command(*arguments, stdin=stdin, PYTHONWARNINGS="ignore")
    assert code == 2
    assert seen in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("Error")]) == 1
    if arguments[0] != "demo":
        assert out == ""


def test_a_reader_who_has_seen_enough_ends_it_quietly():
    """As when the output goes through head."""
    read, write = os.pipe()
    os.close(read)
    listing = [sys.executable, "-m", "qdrant_rerank", "models", "list", "--json"]
    done = subprocess.run(listing, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_good_lines_before_a_broken_one_are_kept(command, tmp_path):
    """The error has the line and the number of documents that went in."""
    where = ("--collection", "docs", "--path", tmp_path / "db")
    lines = '"one"\n"two"\n{"text": \n"four"\n'
    code, _, err = command("index", "-", *where, "--batch-size", 1, stdin=lines)
    assert code == 2
    assert "stdin, line 3 is not JSON" in err
    assert "2 documents before it were added" in err
    _, out, _ = command("search", "one", *where, "--json")
    assert len(json.loads(out)) == 2
