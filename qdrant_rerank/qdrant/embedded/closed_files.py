"""What the files of a collection were when it was closed, to see damage when it is opened.

The engine opens a file that was cut short, and finds fewer points. So a record of the files is
written when a collection is closed: the number of points, the sizes of all files, and checksums of
the smallest ones, as many as are read in a few hundredths of a second. It is compared when the
collection is opened, before the engine maps the files into memory, where a missing page ends the
process. An open collection has no record, so a killed process leaves none: then the engine's log
says what was written.
"""

import errno
import json
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qdrant_rerank.qdrant.embedded.places import sync_folder
from qdrant_rerank.utils.atomic_files import write_whole

__all__ = ["record", "recorded_points", "require_points", "require_whole", "without_record"]

logger = logging.getLogger(__name__)

RECORD = ".closed.json"
FORMAT = 1
CHECKED = 64 * 2**20  # bytes of a collection, without the holes in its files, that have checksums
BLOCK = 2**16
ZEROS = bytes(BLOCK)


def record(folder: Path, points: int) -> None:
    """Record the files of a collection that was closed.

    Args:
        folder: of the collection.
        points: that it has.
    """
    with suppress(OSError):  # without a record, the next open checks nothing
        content = {"format": FORMAT, "points": points, "files": _described(folder)}
        write_whole(folder / RECORD, json.dumps(content))


@contextmanager
def without_record(folder: Path) -> Iterator[int | None]:
    """Remove the record while a collection is opened, and for good if that succeeds.

    Returns:
        The number of points that was recorded; None if there was no record.
    """
    file, points = folder / RECORD, recorded_points(folder)
    kept = file.read_bytes() if file.is_file() else None
    file.unlink(missing_ok=True)
    sync_folder(folder)  # or a crash of the system could bring it back
    try:
        yield points
    except BaseException:
        if kept is not None:  # the next try is told the same
            write_whole(file, kept.decode("utf-8", "replace"))
        raise


def recorded_points(folder: Path) -> int | None:
    """Return how many points a collection had when it was closed; None if that is not known."""
    content = _read(folder)
    return None if content is None else content["points"]


def require_whole(folder: Path) -> None:
    """Raise ValueError, with the file, if a file is not what it was when it was closed."""
    content = _read(folder)
    if content is None:
        return
    for name, (size, checksum) in content["files"].items():
        file = folder / name
        then = "when the collection was closed"
        if not file.is_file():
            raise ValueError(f"{name} is missing, which was there {then}")
        now = file.stat().st_size
        if now != size:
            raise ValueError(f"{name} has {now:,} bytes; it had {size:,} {then}")
        if checksum is not None and _checksum(file) != checksum:
            raise ValueError(f"the content of {name} is not what it was {then}")


def require_points(recorded: int | None, points: int) -> None:
    """Raise ValueError if the engine finds fewer points than were there."""
    if recorded is not None and points < recorded:
        raise ValueError(
            f"the engine finds {points:,} points; there were {recorded:,} when the collection was "
            "closed"
        )


def _described(folder: Path) -> dict[str, list[int | None]]:
    """Return the sizes of all files by name, with checksums of the smallest ones."""
    # What is written beside a folder's files is none of the engine's.
    found = [file for file in folder.rglob("*") if file.is_file() and file.name[0] != "."]
    described: dict[str, list[int | None]] = {}
    room = CHECKED
    for file in sorted(found, key=_on_disk):
        room -= _on_disk(file)
        checksum = _checksum(file) if room >= 0 else None
        described[file.relative_to(folder).as_posix()] = [file.stat().st_size, checksum]
    return described


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((folder / RECORD).read_bytes())
        if content["format"] != FORMAT:
            return None
        int(content["points"])
        for name, (size, checksum) in content["files"].items():
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"{name!r} is not in the folder")
            int(size) + int(checksum or 0)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s cannot be read, so damage is not looked for: %s", folder / RECORD, error)
        return None
    made: dict[str, Any] = content
    return made


def _on_disk(file: Path) -> int:
    found = file.stat()
    return getattr(found, "st_blocks", -(-found.st_size // 512)) * 512


def _checksum(file: Path) -> int:
    """Return a checksum that is the same whether zeros are holes in the file or not."""
    checksum = 0
    for place, block in _blocks(file):
        if block != ZEROS[: len(block)]:
            checksum = zlib.crc32(block, zlib.crc32(place.to_bytes(8, "little"), checksum))
    return checksum


def _blocks(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks of a file with their places, without those in its holes."""
    place = 0
    with file.open("rb", buffering=0) as opened:
        while True:
            if hasattr(os, "SEEK_DATA"):
                try:
                    data = os.lseek(opened.fileno(), place, os.SEEK_DATA)
                except OSError as error:
                    if error.errno == errno.ENXIO:  # holes alone
                        return
                else:
                    place = data // BLOCK * BLOCK
            opened.seek(place)
            block = opened.read(BLOCK)
            if not block:
                return
            yield place, block
            place += BLOCK
