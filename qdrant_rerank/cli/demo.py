"""``qdrant-rerank demo``: questions to Python's own documentation, before and after reranking.

The questions are from ``benchmarks/stdlib_questions.jsonl``: four that reranking answers, and one
of those that it spoils. ``make questions`` shows what reranking does to all 163.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from qdrant_rerank.cli.output import console
from qdrant_rerank.hub.specs import DEFAULT_RERANKER
from qdrant_rerank.utils.rendering import Column, Table, move, rich_table
from qdrant_rerank.utils.terminal import one_line, shortened

if TYPE_CHECKING:
    from qdrant_rerank.search.searcher import HybridSearcher
    from qdrant_rerank.types import RerankedPoint, SearchResults

__all__ = ["QUESTIONS", "SPOILT", "STDLIB_TEXT", "demo", "run_demo", "stdlib_searcher"]

QUESTIONS = (
    "random token for a password reset link",
    "run a shell command and capture what it prints",
    "difference between two dates",
    "find the largest few items of a long list without sorting it all",
    "replace an object with a fake during a test",
)
#: The questions that reranking does not help, with the answer.
SPOILT = {"replace an object with a fake during a test": "unittest.mock.patch"}
#: Fields of a document that are embedded and read.
STDLIB_TEXT = ("name", "signature", "text")
ROWS = 5
OPENING = 46  # characters of a docstring shown


@click.command()
@click.argument("question", required=False)
def demo(question: str | None) -> None:
    """Search Python's own documentation, before and after reranking.

    Asks QUESTION, or five questions if none is given.
    """
    from qdrant_rerank.utils.validation import require_query

    if question is not None:
        require_query(question)  # before the documents are read and indexed
    run_demo(console(), QUESTIONS if question is None else [question])


@contextmanager
def stdlib_searcher(
    candidates: int = 50, reranker: str | Path = DEFAULT_RERANKER
) -> "Iterator[HybridSearcher]":
    """Make a searcher for the standard library's documentation, still empty, in memory."""
    from qdrant_rerank.qdrant.embedded.choice import embedded_client
    from qdrant_rerank.search.searcher import HybridSearcher

    # Not the caller's QDRANT_URL: a demo leaves nothing there.
    with closing(embedded_client(None)) as client:
        yield HybridSearcher(
            "python-stdlib",
            client=client,
            text=STDLIB_TEXT,
            candidates=candidates,
            reranker=reranker,
        )


def run_demo(output: Console, questions: Sequence[str] = QUESTIONS) -> None:
    """Index, ask, and print the first stage and the reranked order side by side.

    Args:
        output: where to print.
        questions: what to ask.
    """
    from qdrant_rerank.cli.stdlib_docs import standard_library_documents
    from qdrant_rerank.qdrant.embedded.choice import engine_name

    began = time.perf_counter()
    with stdlib_searcher() as searcher:
        documents = standard_library_documents()
        read_s = time.perf_counter() - began
        count = searcher.add(documents, progress=output.is_terminal or None)
        output.print(
            f"{count:,} documents of Python's standard library: read in {read_s:.1f} s, indexed in "
            f"{time.perf_counter() - began - read_s:.1f} s."
        )
        engine = engine_name(searcher.client)
        output.print(Text(f"Recall in this process: {engine}.", style="dim"))
        for question in questions:
            results = searcher.search(question, limit=searcher.candidates)
            output.print()
            output.print(rich_table(comparison(results)))
            if question in SPOILT:
                output.print(f"Reranking does not help here: the answer is {SPOILT[question]}.")
            output.print(Text(timing(results), style="dim"))


def comparison(results: "SearchResults") -> Table:
    """Set the first stage and the reranked order side by side, with the moves and both scores."""
    before = sorted(results, key=lambda point: point.retrieval_rank)
    return Table(
        (
            "#",
            Column("first stage", "line"),
            "score",
            Column("reranked", "line"),
            "was",
            "score",
        ),
        [
            (
                str(rank),
                opening(first),
                f"{first.retrieval_score:.3f}",
                opening(second),
                move(second.retrieval_rank, rank),
                "" if second.rerank_score is None else f"{second.rerank_score:.2f}",
            )
            for rank, (first, second) in enumerate(
                zip(before[:ROWS], results[:ROWS], strict=True), start=1
            )
        ],
        title=results.query,
    )


def opening(point: "RerankedPoint") -> Text:
    """Show a document's name above the opening words of its docstring."""
    payload = point.payload or {}
    words = one_line(str(payload.get("text", "")))
    name = one_line(str(payload.get("name", point.id)))
    return Text.assemble((name, "bold"), "\n", (shortened(words, OPENING), "dim"))


def timing(results: "SearchResults") -> str:
    """Write the milliseconds of each stage."""
    trace = results.trace
    stages = (
        ("embed", trace.embed_s),
        ("recall", trace.recall_s),
        ("tokenise", trace.tokenize_s),
        ("rerank", trace.infer_s),
        ("total", trace.total_s),
    )
    times = ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in stages)
    return f"{trace.pairs} candidates reranked: {times}"
