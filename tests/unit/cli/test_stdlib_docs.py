"""The demo's corpus and the questions about it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qdrant_rerank.cli.stdlib_docs import standard_library_documents

QUESTIONS = Path(__file__).parents[3] / "benchmarks" / "stdlib_questions.jsonl"


@pytest.fixture(scope="module")
def documents():
    """name -> document."""
    listed = standard_library_documents()
    names = [document["name"] for document in listed]
    assert names == sorted(set(names))
    return dict(zip(names, listed, strict=True))


def test_there_are_several_thousand_documents_with_text(documents):
    """Public names only."""
    assert 4000 < len(documents) < 12000
    for name, document in documents.items():
        assert document["text"].strip()
        assert not re.search(r"(^|\.)_", name)
        assert " at 0x" not in document["signature"]


@pytest.mark.parametrize(
    ("name", "kind", "signature", "text"),
    [
        ("json.dumps", "function", "(obj, *, skipkeys=False", "Serialize ``obj``"),
        ("json.JSONDecoder", "class", "(*, object_hook=None", "Simple JSON"),
        ("pathlib.Path.glob", "method", "(", "Iterate over this subtree"),
        ("os.path.join", "function", "(a,", "Join two or more pathname"),
        ("random.choice", "function", "(seq", "Choose a random element"),
        ("str.split", "method", "(sep=None, maxsplit=-1)", "Return a list of the substrings"),
        ("OSError", "class", "", "Base class for I/O related errors."),
        ("heapq", "module", "", "Heap queue algorithm"),
    ],
)
def test_known_documents_are_as_one_writes_them(documents, name, kind, signature, text):
    """Shortest public name, without self."""
    found = documents[name]
    assert found["kind"] == kind
    assert found["signature"].startswith(signature)
    assert found["text"].startswith(text)


def test_an_alias_is_not_listed_twice(documents):
    """One thing, one document."""
    for alias in ("IOError", "json.decoder.JSONDecoder", "random.Random.choice", "posixpath.join"):
        assert alias not in documents


def test_reading_prints_nothing_and_starts_nothing():
    """It imports the whole library, in a process that has loaded little."""
    code = (
        "import threading, sys; path = list(sys.path)\n"
        "from qdrant_rerank.cli.stdlib_docs import standard_library_documents as read\n"
        "read(); assert threading.active_count() == 1; assert sys.path == path"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_every_question_has_an_answer_in_the_corpus(documents):
    """At least 100, in words of their own."""
    questions = [json.loads(line) for line in QUESTIONS.read_text().splitlines()]
    assert len(questions) >= 100
    for key in ("id", "question"):
        assert len({question[key] for question in questions}) == len(questions)
    for question in questions:
        assert question["answers"]
        assert set(question["answers"]) & set(documents), question
        for answer in question["answers"]:
            assert "." not in answer or answer.lower() not in question["question"].lower()
