"""Errors of the hub, the network and the disk -> one line: what happened, and what to do."""

import errno
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from qdrant_rerank.errors import ModelFileError
from qdrant_rerank.hub.cache import CachedRepository

__all__ = ["http_errors", "in_one_line", "is_not_found", "status_of"]


@contextmanager
def in_one_line(repository: CachedRepository, file: str | None = None) -> Iterator[None]:
    """Raise the errors of a block as one ModelFileError about a repository or one of its files."""
    try:
        yield
    except _told() as error:
        what = repository.name if file is None else f"{file} of {repository.name}"
        causes = _causes(error)
        reason = _reason(causes, repository)
        raise ModelFileError(f"{what} could not be fetched: {reason}") from error


def http_errors() -> tuple[type[Exception], ...]:
    """Return the bases of all errors of huggingface_hub's client and of httpx.

    That client is requests before huggingface_hub 1.0, httpx, and httpx2 from 2.0 on.
    """
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    names = {"RequestException", "HTTPError"}
    bases = [base for base in HfHubHTTPError.__mro__ if base.__name__ in names]
    return httpx.HTTPError, bases[-1]


def _told() -> tuple[type[Exception], ...]:
    return (*http_errors(), OSError, ValueError)


def _timeouts() -> tuple[type[Exception], ...]:
    packages = {error.__module__.partition(".")[0] for error in http_errors()}
    modules = [importlib.import_module(name) for name in sorted(packages)]
    return tuple(getattr(m, "TimeoutException", None) or m.Timeout for m in modules)


def is_not_found(error: ModelFileError) -> bool:
    """Return whether the hub has no such repository, or does not show it to this user."""
    return any(status_of(cause) in {401, 404} for cause in _causes(error))


def _causes(error: BaseException) -> list[BaseException]:
    """Return the error and its causes: huggingface_hub wraps the one that tells the reason."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    return causes


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error came from, or None."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _reason(causes: Sequence[BaseException], repository: CachedRepository) -> str:
    """Say what happened and how to fix it, in one line."""
    from huggingface_hub import constants

    late = _timeouts()
    hub = constants.ENDPOINT
    for error in causes:
        if (status := status_of(error)) is not None:
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
