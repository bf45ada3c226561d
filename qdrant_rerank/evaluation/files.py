"""Corpora, queries, judgments and runs: files -> plain typed data, and runs back to files.

Two families of formats, gzipped or not, told apart by what the file holds::

    BEIR   corpus.jsonl   {"_id", "title", "text"} a line
           queries.jsonl  {"_id", "text"} a line
           qrels.tsv      header query-id, corpus-id, score
           run.tsv        header query-id, corpus-id and, if there are any, rank, score
    TREC   qrels          query iteration document grade
           run            query Q0 document rank score tag

Every error names the file and the line, and says how to mend it.
"""

import gzip
import json
import math
import os
import tempfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

import numpy as np

from qdrant_rerank.errors import InvalidInputError

__all__ = [
    "BeirFolder",
    "Document",
    "Qrels",
    "Run",
    "find_beir",
    "iter_corpus",
    "read_corpus",
    "read_qrels",
    "read_queries",
    "read_run",
    "require_overlap",
    "require_trec_ids",
    "whole_bytes",
    "whole_file",
    "write_run",
]

#: Grade by query and document; 0 is judged and not relevant.
Qrels = dict[str, dict[str, int]]
#: Score by query and document; the documents of a query stand best first.
Run = dict[str, dict[str, float]]

GZIP_MAGIC = b"\x1f\x8b"
QRELS_COLUMNS = ("query-id", "corpus-id", "score")
LONGEST_SHOWN = 60  # characters of a foreign value in a message


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a corpus.

    Attributes:
        id: unique in the corpus.
        title: may be empty.
        text: may be empty.
    """

    id: str
    title: str
    text: str

    @property
    def content(self) -> str:
        """Title and text, a line each, as a reranker reads them; empty if both are."""
        return "\n".join(part for part in (self.title.strip(), self.text.strip()) if part)


@dataclass(frozen=True, slots=True)
class BeirFolder:
    """The files of a BEIR folder; None for one that is not there."""

    corpus: Path
    queries: Path | None
    qrels: Path | None


def find_beir(corpus: str | Path) -> BeirFolder:
    """The files that belong to a corpus.

    Args:
        corpus: a BEIR folder (``corpus.jsonl``, ``queries.jsonl``, ``qrels.tsv`` or
            ``qrels/test.tsv``, each gzipped or not), or the corpus file alone.

    Raises:
        InvalidInputError: there is no such path, or no corpus in the folder.
    """
    path = Path(corpus)
    if path.is_file():
        return BeirFolder(path, None, None)
    if not path.is_dir():
        raise InvalidInputError(f"{path} is neither a file nor a folder.")
    found = _first_of(path, "corpus.jsonl")
    if found is None:
        held = ", ".join(sorted(item.name for item in path.iterdir())[:8]) or "nothing"
        raise InvalidInputError(
            f"{path} holds no corpus.jsonl or corpus.jsonl.gz, but {held}. Expected a BEIR folder, "
            "or the path of the corpus file."
        )
    return BeirFolder(
        found,
        _first_of(path, "queries.jsonl"),
        _first_of(path, "qrels.tsv") or _first_of(path, "qrels/test.tsv"),
    )


def iter_corpus(path: str | Path) -> Iterator[Document]:
    """The documents of a corpus file, one at a time.

    Args:
        path: a JSONL file, or a BEIR folder.

    Raises:
        InvalidInputError: while iterating, for a line that is not such a document, an id that
            comes twice, or a file that is empty or damaged.
    """
    path = find_beir(path).corpus
    for number, identifier, record in _records(path, "documents"):
        where = _where(path, number)
        yield Document(
            identifier,
            _text_field(record, "title", where, required=False),
            _text_field(record, "text", where, required="title" not in record),
        )


def read_corpus(path: str | Path, only: Collection[str] | None = None) -> dict[str, Document]:
    """Documents by id.

    Args:
        path: a JSONL file, or a BEIR folder.
        only: ids to keep; None for all. The others are checked, and not held in memory.

    Raises:
        InvalidInputError: as :func:`iter_corpus`.
    """
    return {
        document.id: document
        for document in iter_corpus(path)
        if only is None or document.id in only
    }


def read_queries(path: str | Path) -> dict[str, str]:
    """Query texts by id, in the order of the file.

    Raises:
        InvalidInputError: a line that is not such a query, an id that comes twice, a query
            without text, or a file that is empty or damaged.
    """
    path = Path(path)
    queries = {}
    for number, identifier, record in _records(path, "queries"):
        text = _text_field(record, "text", _where(path, number), required=True)
        if not text.strip():
            raise InvalidInputError(
                f"{_where(path, number)}: query {_shown(identifier)} has no text. Write one, or "
                "remove the line."
            )
        queries[identifier] = text
    return queries


def read_qrels(
    path: str | Path,
    *,
    queries: Collection[str] | None = None,
    documents: Collection[str] | None = None,
) -> Qrels:
    """Judgments, from a TSV file with a header (BEIR) or the four columns of TREC.

    Args:
        path: the file.
        queries: ids that exist; None not to check.
        documents: ids that exist; None not to check.

    Raises:
        InvalidInputError: a column is missing, a grade is negative or no whole number, a pair is
            judged twice, an id is unknown, or the file is empty or damaged.
    """
    path = Path(path)
    rows = _rows(path, required=QRELS_COLUMNS, trec=("query-id", "iteration", "corpus-id", "score"))
    qrels: Qrels = {}
    for number, row in rows:
        where = _where(path, number)
        query, document = _known_pair(row, where, queries, documents)
        judged = qrels.setdefault(query, {})
        if document in judged:
            raise InvalidInputError(
                f"{where}: query {_shown(query)} and document {_shown(document)} are judged on an "
                "earlier line already. Keep one of the two lines."
            )
        judged[document] = _grade(row["score"], where)
    return qrels


def read_run(
    path: str | Path,
    *,
    queries: Collection[str] | None = None,
    documents: Collection[str] | None = None,
) -> Run:
    """Candidates with their scores, from the six columns of TREC or a TSV file with a header.

    Args:
        path: the file. A TSV without a score is ordered by its rank, without a rank as it stands.
        queries: ids that exist; None not to check.
        documents: ids that exist; None not to check.

    Returns:
        The documents of each query by score, highest first; ties by rank, then as they stand.

    Raises:
        InvalidInputError: a column is missing, a score is not a finite number, a document comes
            twice for a query, an id is unknown, or the file is empty or damaged.
    """
    path = Path(path)
    rows = _rows(
        path,
        required=("query-id", "corpus-id"),
        trec=("query-id", "Q0", "corpus-id", "rank", "score", "tag"),
    )
    placed: dict[str, dict[str, tuple[float, float]]] = {}
    for number, row in rows:
        where = _where(path, number)
        query, document = _known_pair(row, where, queries, documents)
        found = placed.setdefault(query, {})
        if document in found:
            raise InvalidInputError(
                f"{where}: document {_shown(document)} stands on an earlier line of query "
                f"{_shown(query)} already. Keep one of the two lines."
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

    ``trec_eval`` orders by score in single precision and breaks ties by document id, so a score
    that would tie is written as the next smaller single: the order read back is the order written.

    Args:
        path: the file; gzipped if it ends in ``.gz``.
        run: the documents of each query, best first.
        tag: the last column, without white space.

    Raises:
        InvalidInputError: an id that the format cannot hold, or a path that cannot be written.
    """
    require_trec_ids(run)
    with whole_file(path) as file:
        for query, found in run.items():
            last = np.float32(np.inf)
            for rank, (document, score) in enumerate(found.items(), start=1):
                last = min(np.float32(score), np.nextafter(last, np.float32(-np.inf)))
                file.write(f"{query} Q0 {document} {rank} {float(last)!r} {tag}\n")


def require_trec_ids(run: Mapping[str, Collection[str]]) -> None:
    """Raise InvalidInputError for an id with white space: the columns of TREC are split at it."""
    for query, documents in run.items():
        for identifier in (query, *documents):
            if len(identifier.split()) != 1 or identifier.strip() != identifier:
                raise InvalidInputError(
                    f"The id {_shown(identifier)} cannot stand in a TREC run, whose columns are "
                    "split at white space. Give it an id without white space."
                )


def require_overlap(
    found: Collection[str],
    qrels: Collection[str],
    *,
    found_in: str | Path,
    qrels_in: str | Path,
) -> None:
    """Raise InvalidInputError unless some query is judged.

    Args:
        found: ids of the queries that are evaluated.
        qrels: ids of the queries that have judgments.
        found_in: the file of the first, named in the error.
        qrels_in: the file of the second.
    """
    if set(found).isdisjoint(qrels):
        raise InvalidInputError(
            f"{found_in} and {qrels_in} have no query in common: the first id of one is "
            f"{_shown(next(iter(found), ''))}, of the other {_shown(next(iter(qrels), ''))}. "
            "Pass the qrels that belong to these queries."
        )


@contextmanager
def whole_file(path: str | Path) -> Iterator[IO[str]]:
    """A text file (gzipped if it ends in ``.gz``) that is written whole or not at all.

    It appears under its name when the block ends without an error.

    Raises:
        InvalidInputError: the path cannot be written.
    """
    path = Path(path)
    with whole_bytes(path) as raw:
        if path.suffix == ".gz":
            with gzip.open(raw, "wt", encoding="utf-8") as packed:
                yield packed
        else:
            with TextIOWrapper(raw, encoding="utf-8") as text:
                yield text


@contextmanager
def whole_bytes(path: str | Path) -> Iterator[IO[bytes]]:
    """The same for bytes.

    Raises:
        InvalidInputError: the path cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.")
        os.close(handle)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be written: {error.strerror}.") from error
    partial = Path(name)
    try:
        with partial.open("wb") as file:
            yield file
        partial.chmod(0o666 & ~_umask())  # mkstemp's own is for its owner alone
        partial.replace(path)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        partial.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _first_of(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def _where(path: Path, number: int) -> str:
    return f"{path}, line {number}"


def _shown(value: object) -> str:
    """A foreign value as it is shown in a message: on one line, and not for pages."""
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of each line that is not blank."""
    number = 0
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
        if path.suffix == ".gz" and not packed:
            raise InvalidInputError(
                f"{_where(path, 1)}: the file is named .gz and is not gzipped. Rename it, or fetch "
                "it again."
            )
        with gzip.open(path) if packed else path.open("rb") as lines:
            for number, raw_line in enumerate(lines, start=1):
                line = _decoded(raw_line, path, number)
                if line.strip():
                    yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidInputError(
            f"{_where(path, number + 1)}: the gzip data are damaged or cut short. Fetch the file "
            "again."
        ) from error
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}.") from error


def _decoded(raw: bytes, path: Path, number: int) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{_where(path, number)} is not UTF-8 (byte {error.start + 1}). Convert the file to "
            "UTF-8."
        ) from error


def _records(path: Path, what: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(line number, id, object) of each line of a JSONL file."""
    seen: set[str] = set()
    for number, line in _lines(path):
        where = _where(path, number)
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(
                f"{where} is not JSON: {error}. Expected one JSON object a line."
            ) from error
        if not isinstance(record, dict):
            raise InvalidInputError(
                f"{where} holds a {type(record).__name__}; expected a JSON object with _id and "
                "text."
            )
        identifier = record.get("_id")
        if isinstance(identifier, int) and not isinstance(identifier, bool):
            identifier = str(identifier)
        if not isinstance(identifier, str) or not identifier.strip():
            raise InvalidInputError(
                f"{where} has the _id {_shown(identifier)}; its fields are "
                f"{_shown(list(record))}. Expected a text that is not empty under '_id'."
            )
        if identifier in seen:
            raise InvalidInputError(
                f"{where}: the _id {_shown(identifier)} stands on an earlier line already. Give "
                "each line its own, or remove one of the two."
            )
        seen.add(identifier)
        yield number, identifier, record
    if not seen:
        raise InvalidInputError(
            f"{_where(path, 1)}: the file is empty; expected {what}, one JSON object a line."
        )


def _text_field(record: dict[str, Any], name: str, where: str, *, required: bool) -> str:
    value = record.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise InvalidInputError(
            f"{where} has {_shown(value)} as {name}; its fields are {_shown(list(record))}. "
            f"Expected a text under {name!r}."
        )
    return value


def _rows(
    path: Path, *, required: tuple[str, ...], trec: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, value by column) of each row, in whichever of the two formats it is."""
    columns: tuple[str, ...] | None = None
    separator: str | None = "\t"
    count = 0
    for number, line in _lines(path):
        where = _where(path, number)
        if columns is None:
            first = tuple(part.strip() for part in line.split("\t"))
            if set(first) & {"query-id", "corpus-id", *required}:
                if missing := [name for name in required if name not in first]:
                    raise InvalidInputError(
                        f"{where}: the header has the columns {', '.join(first)} and lacks "
                        f"{', '.join(missing)}. Name every column, separated by tabs: "
                        f"{', '.join(required)}."
                    )
                columns = first
                continue
            columns, separator = trec, None
        values = line.split(separator)
        if len(values) != len(columns):
            raise InvalidInputError(_miscounted(where, values, columns, required, trec))
        count += 1
        yield number, dict(zip(columns, (value.strip() for value in values), strict=True))
    if not count:
        raise InvalidInputError(
            f"{_where(path, 1)}: the file is empty; expected rows of {', '.join(trec)}, or a "
            f"header with {', '.join(required)}."
        )


def _miscounted(
    where: str,
    values: list[str],
    columns: tuple[str, ...],
    required: tuple[str, ...],
    trec: tuple[str, ...],
) -> str:
    said = f"{where} has {len(values)} columns; expected {len(columns)}: {', '.join(columns)}."
    if columns is trec:
        return f"{said} A file with other columns starts with a header: {', '.join(required)}."
    return f"{said} Columns are separated by tabs."


def _known_pair(
    row: dict[str, str],
    where: str,
    queries: Collection[str] | None,
    documents: Collection[str] | None,
) -> tuple[str, str]:
    pair = row["query-id"], row["corpus-id"]
    homes = (("query", "queries", queries), ("document", "corpus", documents))
    for identifier, (kind, home, known) in zip(pair, homes, strict=True):
        if not identifier:
            raise InvalidInputError(f"{where}: the id of the {kind} is empty.")
        if known is not None and identifier not in known:
            raise InvalidInputError(
                f"{where}: there is no {kind} {_shown(identifier)} in the {home}. Remove the line, "
                f"or pass the {home} that it was made for."
            )
    return pair


def _grade(value: str, where: str) -> int:
    try:
        grade = int(value)
    except ValueError as error:
        raise InvalidInputError(
            f"{where}: the grade is {_shown(value)}; expected a whole number of 0 or more."
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
            f"{where}: the {name} is {_shown(value)}; expected a number."
        ) from error
    if not math.isfinite(number):
        raise InvalidInputError(
            f"{where}: the {name} is {value}, which orders nothing; expected a finite number. "
            "Remove the line, or score the document again."
        )
    return number
