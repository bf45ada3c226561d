"""Artifacts: files that are made once of a model and kept in the cache.

An artifact is a folder, named by a digest of all that it is made of: the contents of files, options
and versions. It is built under another name and then renamed, so it is always whole, and two
processes may build the same artifact at the same time. A manifest holds the digest of each of its
files; an artifact that does not match it is made again.
"""

import functools
import json
import logging
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from hashlib import file_digest, sha256
from pathlib import Path

from qdrant_rerank.errors import ModelFileError

__all__ = ["BUILDING", "artifact"]

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
BUILDING = ".building-"  # start of the names of unfinished folders
LEFT_BEHIND_S = 86_400  # age of an unfinished folder whose builder must have died


@contextmanager
def artifact(
    cache: Path,
    kind: str,
    files: Sequence[Path],
    options: Mapping[str, object],
    build: Callable[[Path], None],
) -> Iterator[Path]:
    """Give the folder of an artifact, built if it is not in the cache.

    If the cache cannot be written to, it is built in a temporary folder, which is removed after
    the ``with`` block.

    Args:
        cache: directory of all artifacts.
        kind: start of the folder's name.
        files: files that it is made of; their names and contents count.
        options: other things that decide what is made; they are compared by their ``repr``.
        build: puts the artifact's files into an empty folder.

    Raises:
        ModelFileError: there is no room for it anywhere.
    """
    folder = cache / f"{kind}-{_fingerprint(files, options)}"
    with ExitStack() as stack:
        if not _is_whole(folder):
            try:
                _build_into(folder, build)
            except OSError as error:
                _log_once(folder, f"could not be kept ({error}); it is made again each time")
                try:
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                    build(folder)
                except OSError as failure:
                    raise ModelFileError(
                        f"{kind} needs room on a disk, but neither {cache} nor {folder} can be "
                        f"written to: {error}; {failure}. Free some, or pass cache_dir=."
                    ) from failure
        yield folder


def _fingerprint(files: Sequence[Path], options: Mapping[str, object]) -> str:
    digest = sha256(repr(sorted(options.items())).encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(path.name.encode() + b"\0" + file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _build_into(folder: Path, build: Callable[[Path], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    for path in folder.parent.glob(f"{BUILDING}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFT_BEHIND_S:
                _remove(path)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=BUILDING))
    try:
        build(made)
        (made / MANIFEST).write_text(json.dumps(_digests(made)), encoding="utf-8")
        made.chmod(0o755)  # mkdtemp gives access only to the owner; caches are shared
        if folder.exists():
            if _is_whole(folder):  # another process was faster
                return
            _log_once(folder, "was damaged or not ours, and is made again")
            # Aside first: another process may replace it, too, and one of the two is the last.
            aside = folder.with_name(f"{BUILDING}{secrets.token_hex(8)}")
            with suppress(FileNotFoundError):
                folder.rename(aside)
            _remove(aside)
        try:
            made.rename(folder)
        except OSError:
            if not _is_whole(folder):
                raise
    finally:
        _remove(made)


def _is_whole(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest) and manifest == _digests(folder)
    except (OSError, ValueError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.iterdir()):
        if path.name != MANIFEST:
            with path.open("rb") as file:
                digests[path.name] = file_digest(file, "sha256").hexdigest()
    return digests


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@functools.cache
def _log_once(folder: Path, what: str) -> None:
    logger.warning("%s %s.", folder, what)
