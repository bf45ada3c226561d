"""All requests to the Hugging Face hub; huggingface_hub makes them.

Each failure becomes one ModelFileError that says what to do. A hub that is down is asked once for
the listing and once per file. Without ``force_download``, huggingface_hub would ask six times for a
file's metadata, and wait 60 s each time.
"""

import errno
import importlib
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from qdrant_rerank._version import __version__
from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.hub.cache import CachedRepository, Listing
from qdrant_rerank.hub.integrity import Digest

__all__ = ["current_commit", "describe", "download", "is_not_found", "lock"]

ABANDONED_AFTER_S = 3600  # the process of a part that has not grown for an hour was killed
CLIENT: dict[str, Any] = {"library_name": "qdrant-rerank", "library_version": __version__}


def describe(repository: CachedRepository, revision: str | None) -> tuple[str, Listing]:
    """Ask for the commit of a revision and its files, in one request.

    Raises:
        ModelFileError: the hub does not answer.
    """
    from huggingface_hub import HfApi, constants

    with _errors_in_one_line(repository):
        info = HfApi(**CLIENT).model_info(
            repository.name,
            revision=revision,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
            files_metadata=True,
        )
    files = {
        file.rfilename: Digest(
            size=file.size,
            sha256=file.lfs.sha256 if file.lfs else None,
            git=None if file.lfs else file.blob_id,
        )
        for file in info.siblings or []
    }
    licenses = [tag for tag in info.tags or [] if tag.startswith("license:")]
    license = licenses[0].removeprefix("license:") if licenses else ""
    return str(info.sha), Listing(files=files, license=license)


def current_commit(repository: CachedRepository, revision: str, file: str) -> str:
    """Ask which commit a branch or tag stands for now, in one HEAD request.

    Raises:
        ModelFileError: the hub does not answer.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    with _errors_in_one_line(repository):
        metadata = get_hf_file_metadata(
            hf_hub_url(repository.name, file, revision=revision),
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
            **CLIENT,
        )
    return str(metadata.commit_hash)


@contextmanager
def lock(repository: CachedRepository) -> Iterator[None]:
    """Let one process at a time fetch a repository; the others then find its files.

    Raises:
        ModelFileError: the cache cannot be written.
    """
    # Documented by the package, but not in its types.
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    path = repository.cache / ".locks" / repository.folder.name / "qdrant-rerank.lock"
    with _errors_in_one_line(repository):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with WeakFileLock(path):
        yield


def download(
    repository: CachedRepository,
    commit: str,
    files: dict[str, Digest],
    *,
    force: bool = False,
) -> None:
    """Fetch files of a commit into the cache, each whole or not at all.

    A connection that drops is resumed where it broke.

    Args:
        repository: where the files go.
        commit: full hash.
        files: relative path -> what the hub reports about the file.
        force: fetch also the files that are in the cache.

    Raises:
        ModelFileError: a file could not be fetched, or there is no room for the files.
    """
    from huggingface_hub import hf_hub_download

    with _errors_in_one_line(repository):
        blobs = repository.folder / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        _remove_abandoned_parts(blobs)
    _require_room(repository, files)
    for name, digest in files.items():
        shared = digest.wanted is not None and (blobs / digest.wanted).exists()
        with _errors_in_one_line(repository, name):
            hf_hub_download(
                repository.name,
                name,
                revision=commit,
                cache_dir=repository.cache,
                force_download=force or not shared,
                **CLIENT,
            )


def is_not_found(error: ModelFileError) -> bool:
    """Return whether the hub has no such repository, or does not show it to this user."""
    return any(_status(cause) in {401, 404} for cause in _causes(error))


def _remove_abandoned_parts(blobs: Path) -> None:
    for part in blobs.glob("*.incomplete"):
        with suppress(FileNotFoundError):  # its process has just finished it
            if time.time() - part.stat().st_mtime > ABANDONED_AFTER_S:
                part.unlink()


def _require_room(repository: CachedRepository, files: dict[str, Digest]) -> None:
    needed = sum(digest.size or 0 for digest in files.values())
    free = shutil.disk_usage(repository.folder).free
    if free < needed:
        raise ModelFileError(
            f"{repository.name} needs {_megabytes(needed)}, and {repository.cache} has "
            f"{_megabytes(free)} left. Make room, or pass another cache_dir (QDRANT_RERANK_CACHE)."
        )


@contextmanager
def _errors_in_one_line(repository: CachedRepository, file: str | None = None) -> Iterator[None]:
    try:
        yield
    except (_http_error(), OSError, ValueError) as error:
        what = repository.name if file is None else f"{file} of {repository.name}"
        causes = _causes(error)
        reason = _reason(causes, repository)
        raise ModelFileError(f"{what} could not be fetched: {reason}") from error


def _http_error() -> type[Exception]:
    """Return the base of all errors of huggingface_hub's client: httpx, or httpx2 from 2.0 on."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")


def _causes(error: BaseException) -> list[BaseException]:
    """Return the error and its causes: huggingface_hub wraps the one that tells the reason."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    return causes


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _reason(causes: Sequence[BaseException], repository: CachedRepository) -> str:
    """Say what happened and how to fix it, in one line."""
    from huggingface_hub import constants

    late = importlib.import_module(_http_error().__module__.partition(".")[0]).TimeoutException
    hub = constants.ENDPOINT
    for error in causes:
        if (status := _status(error)) is not None:
            return _refusal(status, error, repository)
        if isinstance(error, late):
            return (
                f"{hub} did not answer in time. Try again, check the network or HF_ENDPOINT, or "
                "wait longer with HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT (seconds)."
            )
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            return (
                f"no room in {repository.cache} ({error.strerror}). Make room, or pass another "
                "cache_dir (QDRANT_RERANK_CACHE)."
            )
        if isinstance(error, OSError) and error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            return (
                f"{repository.cache} cannot be written ({error.strerror}). Pass another cache_dir "
                "(QDRANT_RERANK_CACHE), or fetch it as a user who may write there."
            )
    told = " ".join(str(causes[-1]).split()) or type(causes[-1]).__name__
    return (
        f"{told.rstrip('.')}. Check the network or HF_ENDPOINT (now {hub}). "
        "The bundled models need no download."
    )


def _refusal(status: int, error: BaseException, repository: CachedRepository) -> str:
    from huggingface_hub import constants

    page = f"{constants.ENDPOINT}/{repository.name}"
    headers = getattr(getattr(error, "response", None), "headers", {})
    if status == 401:
        return (
            f"the hub answered 401: there is no {page}, or it is private. Check the name, and for "
            "a private or gated repository the token (HF_TOKEN)."
        )
    if status == 403:
        return (
            f"the hub answered 403: access is refused. Accept the terms at {page}, and set "
            "HF_TOKEN to a token that may read it."
        )
    if status == 404:
        what = {
            "RevisionNotFound": "no such revision",
            "EntryNotFound": "no such file",
        }.get(headers.get("X-Error-Code", ""), "no such repository")
        return f"the hub answered 404: {what} at {page}. Check the name and the revision."
    if status == 429:
        wait = headers.get("Retry-After")
        return (
            f"the hub answered 429: too many requests. Wait{f' {wait} s' if wait else ''}, or set "
            "HF_TOKEN, which raises the limit."
        )
    return (
        f"the hub answered {status}. Try again later, or set HF_ENDPOINT to a mirror. The bundled "
        "models need no download."
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
