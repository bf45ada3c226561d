"""Recovery of a damaged collection: what its files hold, and its log before the bad operation.

The engine replays its log when it opens a collection. In a copy, the log is cut where it can still
be replayed. The points are then stored again, in new files: with a log that was cut, the engine
would ignore later changes of points whose versions are higher than the numbers of its operations.
"""

import json
import os
import shutil
from collections.abc import Container, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qdrant_edge as edge

__all__ = ["COPY", "LOG", "Readable", "Recovery", "copy_points", "is_panic", "readable"]

COPY = ".recovery-"  # how the names of folders with copies begin

LOG = "wal"  # folder of a shard's log, in files of 32 MiB
REPLAYED_FROM = "first-index"  # file of a log: the first operation that is replayed
HEADER = 8  # bytes of a log's file before its first operation, and of an operation's length
CHECKSUM = 4
BLOCK = 2**16
PAGE = 1000  # points
MAPPING_SIZES = {1: 13, 2: 21, 3: 9, 4: 17}  # bytes by kind: numbers and UUIDs, new and deleted
NEW_POINTS = {1, 2}


@dataclass(frozen=True, slots=True)
class Recovery:
    """A recovered collection.

    Attributes:
        points: points that it has.
        before: points that it had when it was closed; None if a killed process left it.
        replayed: operations of the log that were applied.
        left_out: further operations of the log. Those that were not written to the other files
            before are lost; the first of them, or a later one, breaks the engine down.
        without: names of sparse vectors that could not be read, and that no point has any more.
        aside: folder with the collection's files as they were.
    """

    points: int
    before: int | None
    replayed: int
    left_out: int
    without: tuple[str, ...]
    aside: Path


def is_panic(error: BaseException) -> bool:
    """Return whether the engine broke down, and not, for example, Ctrl-C."""
    return type(error).__name__ == "PanicException"


@dataclass(frozen=True, slots=True)
class Readable:
    """A copy of a shard that can be read.

    Attributes:
        shard: the copy.
        replayed: operations of the log that it has.
        total: operations of the log.
        without: names of sparse vectors that it lacks.
    """

    shard: edge.EdgeShard
    replayed: int
    total: int
    without: tuple[str, ...] = ()


@contextmanager
def readable(folder: Path, room: Path) -> Iterator[Readable]:
    """Open a copy of a shard with as much of its log as can be replayed.

    Args:
        folder: of the shard; nothing in it is changed.
        room: an empty directory for copies.

    Raises:
        Exception: the engine's, if the shard cannot be opened without its log either.
    """
    total, kept = len(_operations(folder / LOG)), 0
    try:
        shard = _opened(folder, room / "0", 0)
    except BaseException as error:
        if not _is_its_own(error):
            raise
        shard, without = _without_sparse(folder, room / "without")
        with closing(shard):
            yield Readable(shard, 0, total, without)
        return
    bad, back = total, 1  # the bad operation is mostly one of the last
    try:
        if total:
            try:  # there is none if other files are damaged
                found = _opened(folder, room / "all", total, from_start=True)
            except BaseException as error:
                if not _is_its_own(error):
                    raise
            else:
                shard.close()
                shard, kept = found, total
        while bad - kept > 1:
            tried = max(total - back, kept + 1) if not kept else (kept + bad) // 2
            back *= 2
            try:
                found = _opened(folder, room / str(tried), tried)
            except BaseException as error:
                if not _is_its_own(error):
                    raise
                bad = tried
            else:
                shard.close()
                shard, kept = found, tried
        yield Readable(shard, kept, total)
    finally:
        shard.close()


def copy_points(
    source: edge.EdgeShard, target: edge.EdgeShard, names: Container[str] | None = None
) -> None:
    """Store all points of one shard in another, with all vectors or with those of these names."""
    start, following = None, True
    while following:
        page, start = source.scroll(
            edge.ScrollRequest(limit=PAGE, offset=start, with_payload=True, with_vector=True)
        )
        points = [
            edge.Point(one.id, _of(one.vector or {}, names), one.payload or {}) for one in page
        ]
        if points:
            target.update(edge.UpdateOperation.upsert_points(points))
        following = start is not None


def _of(vectors: Any, names: Container[str] | None) -> Any:
    if names is None:
        return vectors
    if not isinstance(vectors, dict):
        return vectors if "" in names else {}
    return {name: vector for name, vector in vectors.items() if name in names}


def _opened(folder: Path, place: Path, keep: int, *, from_start: bool = False) -> edge.EdgeShard:
    """Open a copy of a shard with the first operations of its log, or without a log."""
    _copy_with_holes(folder, place)
    if keep:
        _cut(place / LOG, keep)
        if from_start:  # what other files have, too: they may be damaged
            (place / LOG / REPLAYED_FROM).unlink(missing_ok=True)
    else:
        shutil.rmtree(place / LOG)
    for segment in place.glob("segments/*/"):
        _hide_unmapped(segment)
    try:
        return edge.EdgeShard.load(str(place))
    except BaseException:
        shutil.rmtree(place)
        raise


def _without_sparse(folder: Path, place: Path) -> tuple[edge.EdgeShard, tuple[str, ...]]:
    """Open a copy of a shard as one that has no sparse vectors; return their names, too."""
    _copy_with_holes(folder, place)
    shutil.rmtree(place / LOG)
    settings = place / "edge_config.json"
    content = json.loads(settings.read_text("utf-8"))
    names = tuple(content["sparse_vectors"])
    settings.write_text(json.dumps({**content, "sparse_vectors": {}}), "utf-8")
    for file in place.glob("segments/*/segment.json"):
        content = json.loads(file.read_text("utf-8"))
        content["config"]["sparse_vector_data"] = {}
        file.write_text(json.dumps(content), "utf-8")
    return edge.EdgeShard.load(str(place)), names


def _hide_unmapped(segment: Path) -> None:
    """Cut off sparse vectors of which no point knows, since their writing broke the engine down.

    A segment that grows lists its points in a file: a kind, an id of 8 or 16 bytes, and, for the
    kinds of new points, 4 bytes with the number of the point's vectors in the segment.
    """
    listed = segment / "mutable_id_tracker.mappings"
    if not listed.is_file():
        return
    content, at, vectors = listed.read_bytes(), 0, 0
    while at < len(content) and content[at] in MAPPING_SIZES:
        size = MAPPING_SIZES[content[at]]
        if content[at] in NEW_POINTS:
            number = int.from_bytes(content[at + size - 4 : at + size], "little")
            vectors = max(vectors, number + 1)
        at += size
    for tracker in segment.glob("vector_storage-*/tracker.dat"):
        with tracker.open("r+b") as file:
            if int.from_bytes(file.read(4), "little") > vectors:
                file.seek(0)
                file.write(vectors.to_bytes(4, "little"))


def _is_its_own(error: BaseException) -> bool:
    """Return whether the engine raised an error, in contrast to Ctrl-C."""
    return isinstance(error, Exception) or is_panic(error)


def _operations(log: Path) -> list[tuple[Path, int]]:
    """Return the file of each operation of a log, and where in it the operation ends."""

    def number(file: Path) -> tuple[bool, int]:
        kind, _, digits = file.name.partition("-")
        return kind == "open", int(digits)

    found = []
    for file in sorted((f for f in log.iterdir() if f.name[-1].isdigit()), key=number):
        size, end = file.stat().st_size, HEADER
        with file.open("rb") as opened:
            while True:
                opened.seek(end)
                length = int.from_bytes(opened.read(HEADER), "little")
                if not length or end + length > size:
                    break
                end += -(-(HEADER + length + CHECKSUM) // HEADER) * HEADER
                found.append((file, end))
    return found


def _cut(log: Path, keep: int) -> None:
    """Make a log end behind some of its operations."""
    operations = _operations(log)
    last, end = operations[keep - 1]
    for file in dict.fromkeys(file for file, _ in operations[keep:]):
        if file != last and file.name.startswith("closed"):
            file.unlink()
            continue
        size = file.stat().st_size
        os.truncate(file, end if file == last else HEADER)
        os.truncate(file, size)


def _copy_with_holes(source: Path, target: Path) -> None:
    """Copy a directory; what is zero in its files takes no room."""
    target.mkdir()
    for file in sorted(source.rglob("*")):
        place = target / file.relative_to(source)
        if file.is_dir():
            place.mkdir()
            continue
        with file.open("rb") as old, place.open("wb") as new:
            while block := old.read(BLOCK):
                if block != bytes(len(block)):
                    new.write(block)
                else:
                    new.seek(len(block), os.SEEK_CUR)
            new.truncate()
