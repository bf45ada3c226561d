"""The command, run as a user runs it."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from qdrant_rerank.errors import CollectionNotFoundError

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
    only = '{"must": [{"key": "title", "match": {"value": "Iron"}}]}'
    code, out, err = command("search", QUERY, *where[:4], "--text", "nothing", "--filter", only)
    assert (code, out.count("docs"), "None of the 1 hits has text" in err) == (1, 0, True)
    code, out, _ = command("search", QUERY, *where[:4], "--json", "--limit", 1)  # as it was indexed
    assert (code, json.loads(out)[0]["payload"]["title"]) == (0, "Iron")
    code, out, _ = command("index", "-", *where, "--json", stdin=JSONL)
    assert json.loads(out) == {"collection": "docs", "added": 3, "holds": 3}
    (tmp_path / "docs.jsonl.gz").write_bytes(gzip.compress(JSONL.encode()))
    code, out, _ = command("index", "docs.jsonl.gz", *where[:4], "--text", "body")
    assert (code, out) == (0, "3 documents added; 'docs' holds 6.\n")
    code, out, _ = command("search", QUERY, *where, "--json", "--reranker", "none")
    assert [hit["retrieval_rank"] for hit in json.loads(out)] == [1, 2, 3, 4, 5, 6]
    assert {hit["rerank_score"] for hit in json.loads(out)} == {None}


def test_the_embedder_inside_the_reranker(command, tmp_path):
    """By name, and recorded: another one is refused."""
    where = ("--collection", "docs", "--path", tmp_path / "db", "--text", "title", "--text", "body")
    code, _, err = command("index", "-", *where, "--embedder", "e5-small-v2", stdin=JSONL)
    assert code == 0, err
    code, out, _ = command("search", QUERY, *where, "--embedder", "e5-small-v2", "--json")
    assert json.loads(out)[0]["payload"]["title"] == "Iron"
    code, _, err = command("search", QUERY, *where, "--embedder", "static-minilm-l6-v1")
    assert code != 0
    assert "e5-small-v2" in err


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
        (("rerank", QUERY), '{"text": "a"}\n{"b": 1}', "stdin, line 2 has no text: 'text' is miss"),
        (("rerank", QUERY), '{"n": 1}', "no text in 1 payloads, which have ['n']; expected one of"),
        (("rerank", QUERY, "--text", "langchian"), '{"a": 1}', "Pass --text langchain."),
        (("search", QUERY, "--collection", "c", "--path", "p", "--filter", "{"), "",
         "--filter is not JSON"),
        (("search", QUERY, "--collection", "c", "--path", "p", "--filter", "3"), "",
         "--filter is an int; expected a filter as JSON"),
        (("search", QUERY, "--collection", "c", "--path", "p", "--filter", '{"year": 3}'), "",
         "--filter: ['year'] is no part of a filter; expected JSON such as"),
        (("rerank", QUERY), '{"id": "x", "a b": "y"}', "Pass --text 'a b'.\n"),
        (("rerank", " "), "a", "query is empty"),
        (("rerank", QUERY, "none.txt"), "", "none.txt cannot be read: No such file"),
        (("rerank", QUERY, "--reranker", "bge-rerankr-base"), "a", "Did you mean"),
        (("rerank", QUERY, "--limit", "0"), "a", "'--limit': 0 is not in the range"),
        (("rerank", QUERY, "--limit", "x"), "a", "not a valid integer"),
        (("rerank", QUERY, "--text", "{a"), '{"a": 1}', "Error: --text '{a' is not a valid templ"),
        (("rerank", QUERY, "--text", "{a!r}"), '{"a": 1}', "Error: --text '{a!r}'; expected only"),
        (("rerank", QUERY, "--text", " "), '{"a": 1}', "Error: --text is ' '; expected a payload"),
        (("index", "-", "--collection", "c", "--path", "p", "--batch-size", "0"), '"a"',
         "'--batch-size': 0 is not in the range"),
        (("search", QUERY, "--collection", "c", "--path", "p", "--limit", "200"), "",
         "--candidates is 100 and --limit 200"),
        (("rerank", QUERY, "--format", "lines", "--text", "b"), "a", "--text is for JSONL"),
        (("index", "-", "--collection", "c", "--path", "p"), "", "stdin has no documents"),
        (("index", "-", "--collection", "c", "--path", "p"), '{"b": "x"}', "Pass --text b."),
        (("index", "-", "--collection", "c", "--path", "p"), "3", "line 1 holds an int"),
        (("index", "cut.gz", "--collection", "c", "--path", "p"), "", "cut short"),
        (("index", "a.txt", "--collection", "c", "--url", "http://127.0.0.1:9"), "",
         "Error: Qdrant at http://127.0.0.1:9 cannot be reached"),
        (("index", "a.txt", "--collection", "c", "--path", "a.txt"), "",
         "Error: The Qdrant directory a.txt cannot be opened"),
        (("index", "-", "--collection", "c"), "", "No Qdrant is given, so nothing would be kept"),
        (
            ("index", "-", "--collection", "c", "--path", ":memory:"),
            '"text"',
            ":memory: ends with the command, so nothing would be kept",
        ),
        (("index", "-", "--collection", "c", "--path", "p", "--url", "u"), "", "both given"),
        (("search", QUERY, "--collection", "c", "--path", "p"), "", "There is no Qdrant at p"),
        (("search", QUERY, "--collection", "c", "--url", "http://127.0.0.1:9"), "",
         "cannot be reached"),
        (("demo", " "), "", "query is empty"),
        (("nonsense",), "", "No such command"),
    ],
)  # fmt: skip
def test_bad_input_is_exit_code_two_and_one_clear_line(command, tmp_path, arguments, stdin, seen):
    """On stderr; stdout stays empty for pipes, and nothing is made."""
    (tmp_path / "a.txt").write_text('"a text"\n')
    (tmp_path / "cut.gz").write_bytes(gzip.compress(JSONL.encode())[:40])
    code, out, err = command(*arguments, stdin=stdin, PYTHONWARNINGS="ignore")
    assert code == 2
    assert seen in err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("Error")]) == 1
    if arguments[0] != "demo":
        assert out == ""
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.txt", "cut.gz"]


@pytest.mark.parametrize(
    "arguments", ["models", "models list --json", "doctor", "doctor --json", "rerank q a.txt"]
)
def test_a_reader_who_has_seen_enough_ends_it_quietly(tmp_path, arguments):
    """As when the output goes through head: exit code 0, whenever that leaves."""
    (tmp_path / "a.txt").write_text("a text\n")
    read, write = os.pipe()
    os.close(read)
    called = [sys.executable, "-m", "qdrant_rerank", *arguments.split()]
    done = subprocess.run(called, stdout=write, stderr=subprocess.PIPE, cwd=tmp_path, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_terminal_that_lacks_a_sign_shows_another(command):
    """Under the C locale, say."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    code, out, err = command("rerank", QUERY, stdin="鉄 melts at 1538 °C.\n", **plain)
    assert (code, err) == (0, "")
    assert "? melts at 1538 ?C." in out


def test_a_warning_is_one_line_once(command, tmp_path):
    """Of a kind: here two queries find nothing to rerank; comparing that is an error."""
    where = ("--collection", "docs", "--path", tmp_path / "db")
    command("index", "-", *where, "--text", "body", stdin=JSONL)
    (tmp_path / "queries.txt").write_text("iron\nbread\n")
    lost = ("--text", "nothing", "--html", "page.html")
    code, out, err = command("compare", "queries.txt", *where, *lost)
    first, second = err.splitlines()
    assert (code, out) == (2, "")
    assert first.startswith("Warning: None of the 3 hits has text to rerank")
    assert first.endswith("Pass --text body or title.")
    assert second.startswith("Error: No hit of any query has text at 'nothing'")
    assert not (tmp_path / "page.html").exists()


INTERRUPTED = """
import os, runpy, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # not what nohup or a CI left
sys.meta_path.insert(0, Interrupting())
sys.argv = ["qdrant-rerank", "demo", "a question"]
runpy.run_module("qdrant_rerank", run_name="__main__")
"""


@pytest.mark.parametrize(
    "module", ["click", "rich.text", "qdrant_rerank.cli.reindex", "qdrant_client", "onnxruntime"]
)
def test_an_interrupt_during_imports_prints_no_traceback(module):
    """Whichever is being imported, and though SIGINT is ignored where the tests were started."""
    script = INTERRUPTED.format(module=module)
    ignoring = ["sh", "-c", 'trap "" INT; exec "$0" "$@"', sys.executable, "-c", script]
    done = subprocess.run(ignoring, capture_output=True, check=False)
    assert done.returncode in {1, 130}
    assert done.stderr.strip() in {b"", b"Aborted!", b"Interrupted."}


STARTED = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # not what nohup or a CI left
sys.argv = ["qdrant-rerank", *sys.argv[1:]]
runpy.run_module("qdrant_rerank", run_name="__main__")
"""


def test_an_interrupt_says_what_to_do_next(tmp_path):
    """And ends with the exit code that shells know it by; no traceback is shown."""
    arguments = ["index", "-", "--collection", "docs", "--path", str(tmp_path / "db")]
    with subprocess.Popen(
        [sys.executable, "-c", STARTED, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        for number in range(1100):  # 1,024 are read before the collection is made
            process.stdin.write(f'"Document {number}."\n'.encode())
        process.stdin.flush()
        listing = tmp_path / "db" / "collections.json"
        end = time.monotonic() + 60
        try:
            while not (listing.is_file() and "docs" in listing.read_text()):
                assert time.monotonic() < end
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            told = process.stderr.readline()
            _, rest = process.communicate(timeout=60)  # closes what the command reads
        finally:
            process.kill()
    assert process.returncode == 130
    assert told == b"Index again: what is stored is not stored twice.\n"
    assert rest == b"Interrupted.\n"


def test_a_blank_question_costs_no_index(command):
    """The demo refuses it before it reads Python's documentation."""
    code, out, err = command("demo", " ")
    assert (code, out) == (2, "")
    assert "query is empty or white space" in err


def test_an_unknown_model_is_answered_with_the_command_that_lists_them(command):
    """Not with a call of Python."""
    for arguments in (("rerank", QUERY, "--reranker", "nope"), ("models", "path", "nope")):
        code, _, err = command(*arguments, stdin=LINES)
        assert code == 2
        assert "'qdrant-rerank models' lists the names" in err
        assert "list_supported_models" not in err


def test_errors_name_options_where_python_has_arguments(command, tmp_path):
    """What to pass is what this command takes."""
    where = ("--path", tmp_path / "db", "--collection")
    command("index", "-", *where, "docs", stdin='"Iron melts."\n')
    _, _, err = command("search", QUERY, *where, "others")
    assert err.endswith(
        "has no collection 'others'. It has 'docs'. 'qdrant-rerank index' creates it. "
        f"See {CollectionNotFoundError.help_url}\n"
    )
    other = {"_id": "a", "text": "b"}
    (tmp_path / "queries.jsonl").write_text(json.dumps(other))
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\na\tx\t1\n")
    judged = ("--queries", "queries.jsonl", "--qrels", "qrels.tsv", "--reranker", "none")
    _, _, err = command("eval", *where, "docs", *judged)
    assert err.endswith("or the payload field that holds their ids (--id-field).\n")


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


@pytest.mark.parametrize("arguments", [("rerank", "q", "-"), ("index", "-", "--collection", "c")])
@pytest.mark.parametrize("stdin", ["", "\n \n"])
def test_no_documents_are_bad_input(command, tmp_path, arguments, stdin):
    """No empty table, and nothing is made."""
    where = ("--path", tmp_path / "db") if arguments[0] == "index" else ()
    code, out, err = command(*arguments, *where, stdin=stdin)
    assert (code, out) == (2, "")
    assert "stdin has no documents" in err


def test_a_file_in_the_place_of_a_directory_is_named(command, tmp_path):
    """By the path that was given, and by no other."""
    (tmp_path / "file").write_text("text")
    where = ("--path", tmp_path / "file", "--collection", "c")
    code, _, err = command("index", "-", *where, stdin='"Iron melts."\n')
    assert code == 2
    assert f"The Qdrant directory {tmp_path / 'file'} cannot be opened: it is a file." in err
    assert "shards" not in err
