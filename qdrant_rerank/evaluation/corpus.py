"""Corpora and queries: files -> plain typed data.

BEIR's format, gzipped or not::

    corpus.jsonl   {"_id", "title", "text"} per line
    queries.jsonl  {"_id", "text"} per line

Each error names the file and the line, and says how to fix it.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.utils.text_files import records, shown, text_field, where_in
from qdrant_rerank.utils.validation import as_path

__all__ = [
    "BeirFolder",
    "Document",
    "find_beir",
    "iter_corpus",
    "read_corpus",
    "read_queries",
]


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
        """Title and text on one line each, as a reranker reads them; empty if both are."""
        return "\n".join(part for part in (self.title.strip(), self.text.strip()) if part)


@dataclass(frozen=True, slots=True)
class BeirFolder:
    """The files of a BEIR folder; None for a missing one."""

    corpus: Path
    queries: Path | None
    qrels: Path | None


def find_beir(corpus: str | Path) -> BeirFolder:
    """Find the files that belong to a corpus.

    Args:
        corpus: a BEIR folder (``corpus.jsonl``, ``queries.jsonl``, ``qrels.tsv`` or
            ``qrels/test.tsv``, each gzipped or not), or the corpus file alone.

    Raises:
        InvalidInputError: there is no such path, or the folder has no corpus.
    """
    path = as_path("corpus", corpus)
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
    """Yield the documents of a corpus file.

    Args:
        path: a JSONL file, or a BEIR folder.

    Raises:
        InvalidInputError: while iterating, for a line that is not a document, an id that occurs
            twice, or a file that is empty or damaged.
    """
    path = find_beir(path).corpus
    for number, identifier, record in records(path, "documents"):
        where = where_in(path, number)
        yield Document(
            identifier,
            text_field(record, "title", where, required=False),
            text_field(record, "text", where, required="title" not in record),
        )


def read_corpus(path: str | Path, only: Collection[str] | None = None) -> dict[str, Document]:
    """Read documents by id.

    Args:
        path: a JSONL file, or a BEIR folder.
        only: ids to keep; None keeps all. Other documents are checked, but not kept in memory.

    Raises:
        InvalidInputError: see :func:`iter_corpus`.
    """
    return {
        document.id: document
        for document in iter_corpus(path)
        if only is None or document.id in only
    }


def read_queries(path: str | Path) -> dict[str, str]:
    """Read query texts by id, in the order of the file.

    Raises:
        InvalidInputError: a line is not a query, an id occurs twice, a query has no text, or the
            file is empty or damaged.
    """
    path = as_path("path", path)
    queries = {}
    for number, identifier, record in records(path, "queries"):
        text = text_field(record, "text", where_in(path, number), required=True)
        if not text.strip():
            raise InvalidInputError(
                f"{where_in(path, number)}: query {shown(identifier)} has no text. Write one, or "
                "remove the line."
            )
        queries[identifier] = text
    return queries


def _first_of(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
