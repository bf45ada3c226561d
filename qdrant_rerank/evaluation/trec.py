"""Judgments and runs: files -> plain typed data, and runs back to files.

Two families of formats, gzipped or not; the content of a file says which it is::

    BEIR   qrels.tsv      header query-id, corpus-id, score
           run.tsv        header query-id, corpus-id and, if there are any, rank, score
    TREC   qrels          query iteration document grade
           run            query Q0 document rank score tag

Each error names the file and the line, and says how to fix it.
"""

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from qdrant_rerank.errors import InvalidInputError, UnknownDocumentError
from qdrant_rerank.utils.atomic_files import atomic_text
from qdrant_rerank.utils.text_files import rows, shown, where_in
from qdrant_rerank.utils.validation import as_path

__all__ = [
    "Qrels",
    "Run",
    "is_ranked",
    "read_qrels",
    "read_run",
    "require_overlap",
    "require_trec_ids",
    "write_run",
]

#: Query -> document -> grade; 0 is judged and not relevant.
Qrels = dict[str, dict[str, int]]
#: Query -> document -> score; the documents of a query are in order, best first.
Run = dict[str, dict[str, float]]

# Columns, named as in a header. Files in TREC's formats have no header, and all columns.
BEIR_QRELS = ("query-id", "corpus-id", "score")
TREC_QRELS = ("query-id", "iteration", "corpus-id", "score")
TSV_RUN = ("query-id", "corpus-id")
TREC_RUN = ("query-id", "Q0", "corpus-id", "rank", "score", "tag")


def read_qrels(
    path: str | Path,
    *,
    queries: Collection[str] | None = None,
    documents: Collection[str] | None = None,
) -> Qrels:
    """Read judgments from a TSV file with a header (BEIR) or the four columns of TREC.

    Args:
        path: the file.
        queries: ids that exist; None accepts all.
        documents: ids that exist; None accepts all.

    Raises:
        UnknownDocumentError: a document is not among ``documents``.
        InvalidInputError: a column is missing, a grade is not a whole number of 0 or more, a pair
            is judged twice, a query is unknown, or the file is empty or damaged.
    """
    path = as_path("path", path)
    qrels: Qrels = {}
    for number, row in rows(path, required=BEIR_QRELS, trec=TREC_QRELS):
        where = where_in(path, number)
        query, document = _known_pair(row, where, queries, documents)
        judged = qrels.setdefault(query, {})
        if document in judged:
            raise InvalidInputError(
                f"{where}: query {shown(query)} and document {shown(document)} are judged on an "
                "earlier line already. Keep one of the two lines."
            )
        judged[document] = _grade(row["score"], where)
    return qrels


def is_ranked(path: str | Path) -> bool:
    """Return whether a file of candidates has ranks or scores; else it is a pool, in any order.

    Raises:
        InvalidInputError: a column is missing, or the file is empty or damaged.
    """
    for _, row in rows(as_path("path", path), required=TSV_RUN, trec=TREC_RUN):
        return bool({"rank", "score"} & set(row))
    return True


def read_run(
    path: str | Path,
    *,
    queries: Collection[str] | None = None,
    documents: Collection[str] | None = None,
) -> Run:
    """Read candidates and scores from the six columns of TREC or a TSV file with a header.

    Args:
        path: the file. A TSV without scores is ordered by its ranks, or else by its lines.
        queries: ids that exist; None accepts all.
        documents: ids that exist; None accepts all.

    Returns:
        The documents of each query by score, highest first; ties by rank, then by line.

    Raises:
        UnknownDocumentError: a document is not among ``documents``.
        InvalidInputError: a column is missing, a score is not a finite number, a document occurs
            twice for a query, a query is unknown, or the file is empty or damaged.
    """
    path = as_path("path", path)
    placed: dict[str, dict[str, tuple[float, float]]] = {}
    for number, row in rows(path, required=TSV_RUN, trec=TREC_RUN):
        where = where_in(path, number)
        query, document = _known_pair(row, where, queries, documents)
        found = placed.setdefault(query, {})
        if document in found:
            raise InvalidInputError(
                f"{where}: document {shown(document)} stands on an earlier line of query "
                f"{shown(query)} already. Keep one of the two lines."
            )
        rank = _number(row["rank"], "rank", where) if "rank" in row else float(len(found) + 1)
        score = _number(row["score"], "score", where) if "score" in row else -rank
        found[document] = (score, rank)
    return {
        query: {
            document: score
            for document, (score, _) in sorted(
                found.items(), key=lambda item: (-item[1][0], item[1][1])
            )
        }
        for query, found in placed.items()
    }


def write_run(path: str | Path, run: Run, *, tag: str = "qdrant-rerank") -> None:
    """Write a TREC run, whole or not at all.

    ``trec_eval`` orders by score in single precision, and equal scores by document id. So a score
    that would be equal is written as the next smaller number: the order stays when it is read back.

    Args:
        path: the file; gzipped if it ends in ``.gz``.
        run: the documents of each query, best first.
        tag: the last column; it must not have white space.

    Raises:
        InvalidInputError: the format cannot hold an id, or the path cannot be written.
    """
    require_trec_ids(run)
    with atomic_text(path) as file:
        for query, found in run.items():
            last = np.float32(np.inf)
            for rank, (document, score) in enumerate(found.items(), start=1):
                last = min(np.float32(score), np.nextafter(last, np.float32(-np.inf)))
                file.write(f"{query} Q0 {document} {rank} {float(last)!r} {tag}\n")


def require_trec_ids(run: Mapping[str, Collection[str]]) -> None:
    """Raise InvalidInputError for an id with white space, which separates the columns of TREC."""
    for query, documents in run.items():
        for identifier in (query, *documents):
            if len(identifier.split()) != 1 or identifier.strip() != identifier:
                raise InvalidInputError(
                    f"The id {shown(identifier)} cannot stand in a TREC run, whose columns are "
                    "split at white space. Give it an id without white space."
                )


def require_overlap(
    found: Collection[str],
    qrels: Collection[str],
    *,
    found_in: str | Path,
    qrels_in: str | Path,
) -> None:
    """Raise InvalidInputError unless at least one query is judged.

    Args:
        found: ids of the queries to evaluate.
        qrels: ids of the queries that have judgments.
        found_in: the file with the queries, for the error.
        qrels_in: the file with the judgments, for the error.
    """
    if set(found).isdisjoint(qrels):
        raise InvalidInputError(
            f"{found_in} and {qrels_in} have no query in common: the first id of one is "
            f"{shown(next(iter(found), ''))}, of the other {shown(next(iter(qrels), ''))}. "
            "Pass the qrels that belong to these queries."
        )


def _known_pair(
    row: dict[str, str],
    where: str,
    queries: Collection[str] | None,
    documents: Collection[str] | None,
) -> tuple[str, str]:
    pair = row["query-id"], row["corpus-id"]
    homes = (
        ("query", "queries", queries, InvalidInputError),
        ("document", "corpus", documents, UnknownDocumentError),
    )
    for identifier, (kind, home, known, unknown) in zip(pair, homes, strict=True):
        if not identifier:
            raise InvalidInputError(f"{where}: the id of the {kind} is empty.")
        if known is not None and identifier not in known:
            raise unknown(
                f"{where}: there is no {kind} {shown(identifier)} in the {home}. Remove the line, "
                f"or pass the {home} that it was made for."
            )
    return pair


def _grade(value: str, where: str) -> int:
    try:
        grade = int(value)
    except ValueError as error:
        raise InvalidInputError(
            f"{where}: the grade is {shown(value)}; expected a whole number of 0 or more."
        ) from error
    if grade < 0:
        raise InvalidInputError(
            f"{where}: the grade is {grade}; expected 0 or more. Write 0 for what is not relevant."
        )
    return grade


def _number(value: str, name: str, where: str) -> float:
    try:
        number = float(value)
    except ValueError as error:
        raise InvalidInputError(
            f"{where}: the {name} is {shown(value)}; expected a number."
        ) from error
    if not math.isfinite(number):
        raise InvalidInputError(
            f"{where}: the {name} is {value}, which orders nothing; expected a finite number. "
            "Remove the line, or score the document again."
        )
    return number
