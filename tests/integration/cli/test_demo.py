"""The demo, as `make demo` runs it."""

import io
import json
from pathlib import Path

from rich.console import Console

from qdrant_rerank.cli.demo import QUESTIONS, SPOILT, run_demo, stdlib_searcher
from qdrant_rerank.cli.stdlib_docs import standard_library_documents

ROOT = Path(__file__).parents[3]


def test_the_demo_shows_what_it_says():
    """An answer comes first, except where the demo says that it does not."""
    lines = (ROOT / "benchmarks" / "stdlib_questions.jsonl").read_text("utf-8").splitlines()
    answers = {line["question"]: line["answers"] for line in map(json.loads, lines)}
    with stdlib_searcher() as searcher:
        searcher.add(standard_library_documents(), progress=False)
        for question in QUESTIONS:
            found = searcher.search(question, limit=1)[0].payload["name"]
            assert (found in answers[question]) == (question not in SPOILT)
    assert all(answer in answers[question] for question, answer in SPOILT.items())


def test_a_question_that_reranking_spoils_is_labelled():
    """Under its table."""
    shown = io.StringIO()
    run_demo(Console(file=shown, width=120), list(SPOILT))
    assert "Reranking does not help here: the answer is unittest.mock.patch." in shown.getvalue()
