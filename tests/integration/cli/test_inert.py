"""What could drive a terminal never reaches it: payloads, file names, errors, and JSON's NaN."""

import json
import os
import subprocess
import sys
import unicodedata

import pytest

#: Sets a window's title, rings, moves the cursor by an 8-bit sequence, and turns the line around.
EVIL = "\x1b]0;title\x07\x9b2J\u202e\x7f"
BIDI = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
TEXT = f"Iron {EVIL} melts"


@pytest.fixture
def command(tmp_path):
    """Runs qdrant-rerank; returns its output, and fails if that could drive a terminal."""

    def run(*arguments, stdin=""):
        done = subprocess.run(
            [sys.executable, "-m", "qdrant_rerank", *map(str, arguments)],
            input=stdin.encode(),
            capture_output=True,
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "120"},
            timeout=120,
            check=False,
        )
        shown = done.stdout.decode() + done.stderr.decode()
        assert "Traceback" not in shown
        driving = {c for c in shown if unicodedata.category(c) == "Cc" and c != "\n"} | (
            BIDI & set(shown)
        )
        assert driving == set()
        return done.stdout.decode(), shown

    return run


@pytest.fixture
def database(command, tmp_path):
    """Options of a collection whose payload is hostile."""
    where = ("--collection", "docs", "--path", tmp_path / "db")
    document = {"text": TEXT, f"more {EVIL}": TEXT, "_id": f"a{EVIL}"}
    command("index", "-", *where, stdin=json.dumps(document) + "\n")
    return where


def test_payloads_are_printed_inert(command, database, tmp_path):
    """By search, rerank, compare and doctor; as JSON they keep all of their characters."""
    assert "Iron ]0;title" in command("search", EVIL, *database)[0]
    found = json.loads(command("search", "iron", *database, "--json")[0])
    assert found[0]["payload"]["text"] == TEXT
    lines = json.dumps({"text": TEXT}) + "\n"
    assert (
        "Iron ]0;title"
        in command("rerank", "iron", "--reranker", "grown-e5-small-l6-v1", stdin=lines)[0]
    )
    ranked = json.loads(command("rerank", "iron", "--json", stdin=lines)[0])
    assert ranked[0]["document"]["text"] == TEXT
    (tmp_path / "queries.txt").write_text(f"iron {EVIL}\n", "utf-8")
    compared = command("compare", "queries.txt", *database, "--html", f"{EVIL}.html")[0]
    assert "Every query is in  ]0;title" in compared
    assert "more" in command("doctor", *database, "--text", "body", "--filter", "text")[0]
    command("search", "iron", *database, "--text", f"no{EVIL}")


@pytest.mark.parametrize(
    "arguments",
    [
        ("rerank", "iron", f"none{EVIL}"),
        ("rerank", "iron", f"bad{EVIL}"),
        ("rerank", "iron", "-", "--reranker", f"none{EVIL}"),
        ("rerank", "iron", "-", f"--{EVIL}"),
        ("index", "-", "--collection", EVIL, "--path", f"{EVIL}db"),
        ("search", "iron", "--collection", EVIL, "--path", f"{EVIL}db"),
        ("doctor", "--collection", EVIL, "--path", f"{EVIL}db", "--reranker", "none"),
        ("models", "pull", f"none{EVIL}"),
        ("models", "pull", "none", "--cache-dir", f"bad{EVIL}"),
        ("eval", "--corpus", f"none{EVIL}"),
        ("eval", "--corpus", "beir", "--out", f"out{EVIL}", "--reranker", "none"),
        (EVIL,),
    ],
    ids=lambda arguments: " ".join(arguments[:1] + arguments[2:3]).replace(EVIL, "EVIL"),
)
def test_names_are_printed_inert(command, tmp_path, arguments):
    """Of files, folders, models, collections and options, in results and in errors."""
    (tmp_path / f"bad{EVIL}").write_text('{"text": ')
    (tmp_path / "beir").mkdir()
    line = json.dumps({"_id": "1", "title": "", "text": "Iron melts."}) + "\n"
    (tmp_path / "beir" / "corpus.jsonl").write_text(line)
    (tmp_path / "beir" / "queries.jsonl").write_text(
        json.dumps({"_id": "q", "text": "iron"}) + "\n"
    )
    (tmp_path / "beir" / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n")
    _, shown = command(*arguments, stdin='"Iron melts."\n')
    assert shown.strip()


def test_a_path_for_programs_is_exact(tmp_path):
    """Where the output is no terminal."""
    (tmp_path / f"none{EVIL}").mkdir()
    called = [sys.executable, "-m", "qdrant_rerank", "models", "path", f"./none{EVIL}"]
    done = subprocess.run(called, capture_output=True, cwd=tmp_path, check=True)
    assert done.stdout.decode() == f"{tmp_path / f'none{EVIL}'}\n"


def test_json_holds_no_nan(command):
    """What JSON cannot hold is null; Python's own reader would take it."""

    def refuse(constant):
        raise ValueError(constant)

    line = '{"text": "Iron melts.", "a": NaN, "b": [Infinity, {"c": -Infinity, "d": 1e999}]}\n'
    out, _ = command("rerank", "iron", "--json", stdin=line)
    document = json.loads(out, parse_constant=refuse)[0]["document"]
    assert document == {"text": "Iron melts.", "a": None, "b": [None, {"c": None, "d": None}]}
