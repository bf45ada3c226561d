"""The engine's exceptions as ours: it raises bare ones, which differ in their texts alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from qdrant_rerank.errors import QdrantConnectionError, QdrantRequestError, QdrantRerankError
from qdrant_rerank.qdrant.embedded.recovery import is_panic
from qdrant_rerank.utils.terminal import one_line

__all__ = ["engine_errors", "opening_errors"]

# Parts of what the engine says when it cannot write.
DISK_TROUBLE = ("os error", "io error", "i/o error", "no space", "file too large")
# All that it says where a formula cannot be computed.
FORMULA_FAILED = "cancelled by service"


@contextmanager
def engine_errors(where: str, name: str) -> Iterator[None]:
    """Raise the engine's exceptions as ours, with the cause attached.

    Args:
        where: which engine, as the subject of a sentence.
        name: of the collection.

    Raises:
        QdrantConnectionError: files cannot be read or written, or the engine broke down.
        QdrantRequestError: the engine refused the request.
    """
    try:
        yield
    except QdrantRerankError:
        raise
    except Exception as error:
        said = one_line(str(error))
        if _is_disk_trouble(error):
            raise QdrantConnectionError(
                f"{where} cannot read or write its files: {said}. Is the disk full, or the "
                "directory not writable?"
            ) from error
        if FORMULA_FAILED in said:
            said = (
                "a formula divides by zero, or takes a payload value that is missing or no "
                f"number, or a root or logarithm that there is not ({said})."
            )
        raise QdrantRequestError(f"{where} cannot do that with {name!r}: {said}") from error
    except BaseException as error:
        if not is_panic(error):  # Ctrl-C and the like
            raise
        raise QdrantConnectionError(
            f"{where} broke down at {name!r}: {one_line(str(error))}. Close the client and open it "
            "again."
        ) from error


@contextmanager
def opening_errors(where: str, name: str) -> Iterator[None]:
    """Raise as ours what the engine raises when it cannot open a collection.

    Raises:
        QdrantConnectionError: its files are damaged, or its log cannot be replayed.
    """
    try:
        yield
    except BaseException as error:
        if _is_disk_trouble(error) or not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise QdrantConnectionError(
            f"{where} cannot make out the files of {name!r}: {one_line(str(error))}. They are "
            "damaged, of another version of qdrant-edge-py, or hold a change that breaks the "
            "engine down. Nothing was removed, and other collections open. Restore a copy of the "
            "directory, or get back all that was stored before the damage: "
            f"EmbeddedClient(path).recover({name!r}), from qdrant_rerank.qdrant.embedded.client."
        ) from error


def _is_disk_trouble(error: BaseException) -> bool:
    said = str(error).lower()
    return isinstance(error, OSError) or any(word in said for word in DISK_TROUBLE)
