"""The demo: Python's own documentation, indexed in this process, five questions, both orders.

The questions are from ``benchmarks/stdlib_questions.jsonl``: four that reranking answers, and one
of the few that it spoils. What it does to all 163 is told by ``make questions``.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qdrant_rerank.cli.stdlib_docs import standard_library_documents
from qdrant_rerank.hub.specs import DEFAULT_RERANKER
from qdrant_rerank.qdrant.embedded.choice import embedded_client, engine_name
from qdrant_rerank.search.searcher import HybridSearcher
from qdrant_rerank.types import RerankedPoint, SearchResults

__all__ = ["QUESTIONS", "SPOILT", "STDLIB_TEXT", "run_demo", "stdlib_searcher"]

QUESTIONS = (
    "call a function after a delay in the background",
    "random token for a password reset link",
    "quick web server for the files in a folder",
    "find the largest few items of a long list without sorting it all",
    "replace an object with a fake during a test",
)
#: Those of them where reranking does not do well, with the answer.
SPOILT = {"replace an object with a fake during a test": "unittest.mock.patch"}
#: What is embedded and read of a document.
STDLIB_TEXT = ("name", "signature", "text")
ROWS = 5
OPENING = 46  # characters of a docstring shown


@contextmanager
def stdlib_searcher(
    candidates: int = 50, reranker: str | Path = DEFAULT_RERANKER
) -> Iterator[HybridSearcher]:
    """A searcher over the standard library's documentation, still empty, gone afterwards."""
    # Not the caller's QDRANT_URL: a demo leaves nothing there.
    with closing(embedded_client(None)) as client:
        yield HybridSearcher(
            "python-stdlib",
            client=client,
            text=STDLIB_TEXT,
            candidates=candidates,
            reranker=reranker,
        )


def run_demo(console: Console, questions: Sequence[str] = QUESTIONS) -> None:
    """Index, ask, and print the first stage and the reranked order side by side.

    Args:
        console: where to print.
        questions: what to ask.
    """
    began = time.perf_counter()
    with stdlib_searcher() as searcher:
        documents = standard_library_documents()
        read_s = time.perf_counter() - began
        count = searcher.add(documents, progress=console.is_terminal or None)
        console.print(
            f"{count:,} documents of Python's standard library: read in {read_s:.1f} s, indexed in "
            f"{time.perf_counter() - began - read_s:.1f} s."
        )
        engine = engine_name(searcher.client)
        console.print(Text(f"Recall in this process: {engine}.", style="dim"))
        for question in questions:
            results = searcher.search(question, limit=searcher.candidates)
            console.print()
            console.print(comparison(results))
            if question in SPOILT:
                console.print(f"Reranking does not help here: the answer is {SPOILT[question]}.")
            console.print(Text(timing(results), style="dim"))


def comparison(results: SearchResults, rows: int = ROWS) -> Table:
    """First stage and reranked order side by side, with the moves and both scores."""
    before = sorted(results, key=lambda point: point.retrieval_rank)
    table = Table(
        title=Text(results.query, style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        expand=True,
    )
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("first stage", ratio=1, no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("reranked", ratio=1, no_wrap=True)
    table.add_column("was", justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    for rank, (first, second) in enumerate(
        zip(before[:rows], results[:rows], strict=True), start=1
    ):
        table.add_row(
            str(rank),
            opening(first),
            f"{first.retrieval_score:.3f}",
            opening(second),
            move(second, rank),
            "" if second.rerank_score is None else f"{second.rerank_score:.2f}",
        )
    return table


def opening(point: RerankedPoint) -> Text:
    """The document's name over the opening words of its docstring."""
    payload = point.payload or {}
    words = " ".join(str(payload.get("text", "")).split())
    shown = words if len(words) <= OPENING else words[: OPENING - 1] + "…"
    return Text.assemble((str(payload.get("name", point.id)), "bold"), "\n", (shown, "dim"))


def move(point: RerankedPoint, rank: int) -> Text:
    """The place before, and how far the point moved."""
    moved = point.retrieval_rank - rank
    if not moved:
        return Text(f"{point.retrieval_rank} =", style="dim")
    arrow, style = ("▲", "green") if moved > 0 else ("▼", "red")
    return Text(f"{point.retrieval_rank} {arrow}{abs(moved)}", style=style)


def timing(results: SearchResults) -> str:
    """Milliseconds of each stage."""
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
