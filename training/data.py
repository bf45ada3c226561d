"""Training pairs in, one pool of passages and one list of queries out.

Equal queries of all sets are merged, so that a passage which answers is never a negative.
Passages that share a run of words with an evaluation corpus are left out, except for SciFact, whose
training split shares its corpus with the test split as published.
"""

import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SHARED_CORPUS = "scifact"
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(slots=True)
class Query:
    """A query with the rows of the passages that answer it.

    Attributes:
        text: as it was asked.
        source: the set that it came from first.
        answers: rows of the pool.
        rivals: rows of other sections of the same document, unchecked.
        held_out: kept for validation.
    """

    text: str
    source: str
    answers: list[int] = field(default_factory=list)
    rivals: list[int] = field(default_factory=list)
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class Pool:
    """All passages, as a reranker would read them, and all queries."""

    passages: list[str]
    queries: list[Query]


def load_pool(data: Path, settings: dict[str, Any]) -> Pool:
    """Read ``train/*.jsonl.gz``, merge, leave out what evaluation holds, mark what is held out."""
    seen = evaluation_shingles(data, settings["overlap_words"])
    rows: dict[str, int] = {}
    unusable: set[str] = set()
    merged: dict[str, Query] = {}
    dropped = 0

    def row_of(text: str, title: str) -> int | None:
        passage = text
        if title and share(text) < settings["title_share"]:
            passage = f"{title}\n{text}"
        if passage in rows:
            return rows[passage]
        if passage in unusable:
            return None
        if not seen.isdisjoint(shingles(text, settings["overlap_words"])):
            unusable.add(passage)
            return None
        return rows.setdefault(passage, len(rows))

    for path in sorted(data.glob("train/*.jsonl.gz")):
        source = path.name.removesuffix(".jsonl.gz")
        for record in records(path):
            title = record.get("title") or ""
            row = row_of(record["positive"], title)
            if row is None:
                dropped += 1
                continue
            key = " ".join(words(record["query"]))
            query = merged.setdefault(key, Query(record["query"], source))
            if row not in query.answers:
                query.answers.append(row)
            for text in record.get("negatives") or []:
                rival = row_of(text, title)
                if rival is not None and rival not in query.rivals:
                    query.rivals.append(rival)
    for query in merged.values():
        query.rivals = [row for row in query.rivals if row not in query.answers]
        query.held_out = share("held out " + query.text) < settings["held_out"]
    print(
        f"{len(rows):,} passages, {len(merged):,} queries; {dropped:,} pairs left out, since an "
        "evaluation corpus holds their passage"
    )
    return Pool(list(rows), list(merged.values()))


def evaluation_shingles(data: Path, length: int) -> set[int]:
    """Hashes of every run of ``length`` words in the evaluation corpora."""
    return {
        shingle
        for path in sorted(data.glob("eval/*/corpus.jsonl.gz"))
        if path.parent.name != SHARED_CORPUS
        for document in records(path)
        for shingle in shingles(f"{document.get('title') or ''} {document['text']}", length)
    }


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a gzipped JSONL file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def words(text: str) -> list[str]:
    """Lower-case words and numbers."""
    return _WORD.findall(text.lower())


def shingles(text: str, length: int) -> set[int]:
    """Hashes of every run of ``length`` words; of the whole text, if it is shorter than that.

    A whole text of fewer than five words is nobody's own and gives none.
    """
    found = words(text)
    if len(found) < length:
        return {hash(tuple(found))} if len(found) >= 5 else set()
    return {hash(tuple(found[i : i + length])) for i in range(len(found) - length + 1)}


def share(text: str) -> float:
    """A number from 0 to 1 that depends on the text alone, for splits that never move."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) / 2**32
