"""All requests to the Hugging Face hub, with huggingface_hub's session and headers.

Whatever a hub or a mirror answers is checked before it is used: a file goes under its digest, which
is hex of the right length, and only after its bytes were checked. A hub that is down is asked once
for the listing and once per file.
"""

import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qdrant_rerank._version import __version__
from qdrant_rerank.errors import DamagedFileError, ModelFileError
from qdrant_rerank.hub.cache import CachedRepository, Listing, is_commit
from qdrant_rerank.hub.client_errors import http_errors, in_one_line, status_of
from qdrant_rerank.hub.integrity import Digest, check_file, sha256_of
from qdrant_rerank.utils.json_object import JsonObject, parse_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["current_commit", "describe", "download", "lock"]

ABANDONED_AFTER_S = 3600  # the process of a part that has not grown for an hour was killed
# Begins the name of a file that is being fetched; other tools keep theirs in the same folder.
PART = "qdrant-rerank-"
CLIENT: dict[str, Any] = {"library_name": "qdrant-rerank", "library_version": __version__}


def describe(repository: CachedRepository, revision: str | None) -> tuple[str, Listing]:
    """Ask for the commit of a revision and its files, in one request.

    Raises:
        ModelFileError: the hub does not answer, or its answer is not a listing.
    """
    from huggingface_hub import constants

    of = f"/revision/{quote(revision, safe='')}" if revision else ""
    with in_one_line(repository):
        with _session() as session:
            response = session.get(
                f"{constants.ENDPOINT}/api/models/{repository.name}{of}",
                params={"blobs": True},
                headers=_headers(),
                timeout=constants.HF_HUB_ETAG_TIMEOUT,
            )
        response.raise_for_status()
        content = parse_json(response.text)
    return _listing(content, f"The listing of {repository.name} at {constants.ENDPOINT}")


def current_commit(repository: CachedRepository, revision: str, file: str) -> str:
    """Ask which commit a branch or tag stands for now, in one HEAD request.

    Raises:
        ModelFileError: the hub does not answer, or its answer is not a commit.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    with in_one_line(repository):
        commit = get_hf_file_metadata(
            hf_hub_url(repository.name, file, revision=revision),
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
            **CLIENT,
        ).commit_hash
        if not is_commit(commit):
            raise ValueError(f"its commit is {commit!r:.80}; expected 40 hex digits")
    return commit


@contextmanager
def lock(repository: CachedRepository) -> Iterator[None]:
    """Let one process at a time fetch a repository; the others then find its files.

    On a file system without locks, and on Windows, several may fetch the same; each file is whole.

    Raises:
        ModelFileError: the cache cannot be written.
    """
    path = repository.cache / ".locks" / repository.folder.name / "qdrant-rerank.lock"
    with ExitStack() as stack:
        with in_one_line(repository):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("a", encoding="utf-8"))
            # Not by huggingface_hub's lock, which fails or waits for ever where there are none.
            if fcntl is not None:
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX)
                    # Closing alone does not do it while a forked process has the file open.
                    stack.callback(fcntl.flock, file, fcntl.LOCK_UN)
        yield


def download(
    repository: CachedRepository,
    commit: str,
    files: Mapping[str, Digest],
    *,
    force: bool = False,
) -> None:
    """Fetch files of a commit into the cache, each whole and as published or not at all.

    Args:
        repository: where the files go.
        commit: full hash.
        files: relative path -> what the hub reports about the file.
        force: fetch also the files that are in the cache.

    Raises:
        DamagedFileError: a file's bytes are not those that were published.
        ModelFileError: a file could not be fetched, or there is no room for the files.
    """
    from huggingface_hub import hf_hub_url

    blobs = repository.folder / "blobs"
    with in_one_line(repository):
        blobs.mkdir(parents=True, exist_ok=True)
        _remove_abandoned_parts(blobs)
    _require_room(repository, files)
    for name, digest in files.items():
        with in_one_line(repository, name):
            blob = blobs / digest.wanted if digest.wanted else None
            if force or blob is None or not blob.is_file():
                url = hf_hub_url(repository.name, name, revision=commit)
                part = blobs / f"{PART}{secrets.token_hex(8)}.incomplete"
                try:
                    _fetch(url, part, name, digest.size)
                    check_file(part, digest, name=f"{name} of {repository.name}")
                    blob = blob or blobs / sha256_of(part)
                    part.replace(blob)
                except DamagedFileError as error:
                    raise DamagedFileError(
                        f"{error} It arrived like this and was removed: a proxy or mirror may "
                        "alter files."
                    ) from error
                finally:
                    part.unlink(missing_ok=True)
            _link(repository.snapshot(commit) / name, blob)


def _headers() -> dict[str, str]:
    # In the package's documentation, but not in its types.
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    headers: dict[str, str] = build_hf_headers(**CLIENT)
    return headers


@contextmanager
def _session() -> Iterator[Any]:
    """Give huggingface_hub's client; before 1.0 that is one of requests, and httpx is used."""
    import httpx
    from huggingface_hub import get_session

    session: Any = get_session()
    if callable(session.stream):
        yield session
        return
    with httpx.Client(follow_redirects=True) as made:
        yield made


def _listing(content: object, source: str) -> tuple[str, Listing]:
    """Check a listing; returns its commit and its files."""
    advice = "Check HF_ENDPOINT: this is not the answer of a hub."
    info = JsonObject.of(content, source, advice)
    commit = info.text("sha")
    if not is_commit(commit):
        raise info.wrong("sha", "40 hex digits")
    files = {}
    for number, entry in enumerate(info.list_of("siblings", dict)):
        file = JsonObject(f"{source}, siblings[{number}]", entry, advice)
        lfs = file.object("lfs")
        name = file.text("rfilename")
        if name is None:
            raise file.wrong("rfilename", "a path")
        digest = file.whole("size"), lfs.text("sha256"), file.text("blobId")
        with _checked(file):
            files[name] = Digest(digest[0], digest[1], None if lfs.fields else digest[2])
    licenses = [tag for tag in info.list_of("tags", str) if tag.startswith("license:")]
    with _checked(info):
        return commit, Listing(files, licenses[0].removeprefix("license:") if licenses else "")


@contextmanager
def _checked(entry: JsonObject) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ModelFileError(f"{entry.source}: {error}. {entry.advice}") from error


def _fetch(url: str, part: Path, name: str, size: int | None) -> None:
    """Fetch a URL into a new file; a connection that drops is resumed where it broke.

    An attempt that brings nothing is the last one.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    headers = {**_headers(), "Accept-Encoding": "identity"}
    bar = tqdm(  # type: ignore[no-untyped-call]
        total=size, unit="B", unit_scale=True, desc=name, disable=None
    )
    with part.open("xb") as file, bar, _session() as session:
        while True:
            start = file.tell()
            ranged = {"Range": f"bytes={start}-"} if start else {}
            try:
                with session.stream(
                    "GET", url, headers=headers | ranged, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
                ) as response:
                    response.raise_for_status()
                    if start and response.status_code != 206:  # the whole file again
                        file.seek(0)
                        file.truncate()
                    for chunk in response.iter_bytes():
                        file.write(chunk)
                        bar.update(len(chunk))
                        if size is not None and file.tell() > size:
                            return  # too long, so it will not pass the check
                return
            except http_errors() as error:
                if status_of(error) is not None or file.tell() <= start:
                    raise


def _link(path: Path, blob: Path) -> None:
    """Make a snapshot's file lead to a blob, or be a copy of it on a disk without links."""
    if path.exists() and path.samefile(blob):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{secrets.token_hex(8)}")
    try:
        made.symlink_to(os.path.relpath(blob, path.parent))
    except OSError:
        shutil.copyfile(blob, made)
    made.replace(path)


def _remove_abandoned_parts(blobs: Path) -> None:
    for part in blobs.glob(f"{PART}*.incomplete"):
        with suppress(FileNotFoundError):  # its process has just finished it
            if time.time() - part.stat().st_mtime > ABANDONED_AFTER_S:
                part.unlink()


def _require_room(repository: CachedRepository, files: Mapping[str, Digest]) -> None:
    needed = sum(digest.size or 0 for digest in files.values())
    free = shutil.disk_usage(repository.folder).free
    if free < needed:
        raise ModelFileError(
            f"{repository.name} needs {_megabytes(needed)}, and {repository.cache} has "
            f"{_megabytes(free)} left. Make room, or pass another cache_dir (QDRANT_RERANK_CACHE)."
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
