"""``qdrant-rerank compare``: compare two rerankers on queries without judgments."""

import os
from pathlib import Path

import click

from qdrant_rerank.cli.options import (
    NONE,
    ONE_OR_MORE,
    Source,
    json_option,
    model,
    require_candidates,
    source_options,
)
from qdrant_rerank.cli.output import console, print_json, say
from qdrant_rerank.cli.searchers import searcher_for
from qdrant_rerank.errors import InvalidInputError, UnknownModelError
from qdrant_rerank.hub.registry import find_model
from qdrant_rerank.hub.specs import DEFAULT_RERANKER
from qdrant_rerank.utils.text_files import GZIP_MAGIC, decoded_lines, name_of, open_lines, where_in

__all__ = ["compare"]


@click.command()
@click.argument("queries", type=click.Path(allow_dash=True))
@source_options
@click.option(
    "--reranker",
    "rerankers",
    multiple=True,
    default=(NONE, DEFAULT_RERANKER),
    show_default=True,
    help="Give it twice: a name from 'models', a path, or 'none' for the first stage's order.",
)
@click.option(
    "--limit",
    type=ONE_OR_MORE,
    default=10,
    show_default=True,
    help="Hits to compare per query.",
)
@click.option(
    "--candidates", type=ONE_OR_MORE, default=50, show_default=True, help="Hits to rerank."
)
@click.option("--html", type=click.Path(dir_okay=False), help="Write a page with every query.")
@json_option
def compare(
    queries: str,
    source: Source,
    rerankers: tuple[str, ...],
    limit: int,
    candidates: int,
    html: str | None,
    as_json: bool,
) -> None:
    """Show what two rerankers do differently on your QUERIES.

    QUERIES is a text file with one query per line ('-' for stdin), or a BEIR queries.jsonl, gzipped
    or not. The comparison needs no judgments, and so does not say which reranker is better.
    """
    first, second = two_rerankers(rerankers)
    require_candidates(candidates, limit)
    if html is not None:
        require_writable(Path(html))
    texts = queries_of(queries)
    with searcher_for(source, first) as searcher:
        from qdrant_rerank.evaluation.compare import compare as compare_searchers
        from qdrant_rerank.evaluation.compare import with_reranker

        comparison = compare_searchers(
            searcher,
            with_reranker(searcher, model(second)),
            texts,
            limit=limit,
            candidates=candidates,
            names=(model(first) or "recall order", model(second) or "recall order"),
        )
    hits = [hit for query in comparison.queries for hit in query.hits]
    if hits and not any(hit.text for hit in hits):
        raise InvalidInputError(
            f"No hit of any query has text at {searcher.text.name!r}, so there is "
            "nothing to rerank and to compare. Name the field that has text with --text."
        )
    if html is not None:
        comparison.save_html(html)
    if as_json:
        print_json(comparison.to_dict())
        return
    console().print(comparison)
    if html is not None:
        say(f"Every query is in {html}")


def two_rerankers(names: tuple[str, ...]) -> tuple[str, str]:
    """Return the two names.

    Raises:
        InvalidInputError: not two, or the same one twice.
    """
    if len(names) != 2:
        raise InvalidInputError(
            f"--reranker is given {len(names)} time{'s' * (len(names) != 1)}; expected two, such "
            f"as --reranker {NONE} --reranker {DEFAULT_RERANKER}."
        )
    if identity(names[0]) == identity(names[1]):
        raise InvalidInputError(
            f"--reranker {names[0]} and --reranker {names[1]} are the same; expected two that "
            "differ."
        )
    return names[0], names[1]


def identity(reranker: str) -> str:
    """Return what is equal for two ways of writing one model."""
    try:
        return find_model(reranker).model
    except UnknownModelError:
        return reranker if reranker == NONE else str(Path(reranker).expanduser().resolve())


def require_writable(path: Path) -> None:
    """Raise InvalidInputError if a file cannot be written there; folders may be missing."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise InvalidInputError(f"{path} cannot be written: {folder} is not a folder.")
    if not os.access(folder, os.W_OK):
        raise InvalidInputError(f"{path} cannot be written: no right to write in {folder}.")


def queries_of(file: str) -> list[str]:
    """Read the queries of a file: JSONL, gzipped or not, or lines; its start says which.

    Raises:
        InvalidInputError: there are none, one is blank, or the file cannot be read.
    """
    with open_lines(file) as lines:
        raw = list(lines)
    if raw and raw[0].removeprefix(b"\xef\xbb\xbf").startswith((b"{", GZIP_MAGIC)):
        from qdrant_rerank.evaluation.corpus import read_queries

        if file == "-":
            raise InvalidInputError(
                "stdin, line 1 is not a query but JSONL or gzip, which is read from a file. Pass "
                "its path."
            )
        return list(read_queries(file).values())
    queries = []
    for number, line in decoded_lines(raw, file):
        query = line.strip()
        if not query:
            raise InvalidInputError(
                f"{where_in(file, number)} is blank; expected a query. Remove the line."
            )
        queries.append(query)
    if not queries:
        raise InvalidInputError(f"{name_of(file)} holds no queries; expected one per line.")
    return queries
