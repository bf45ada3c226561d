"""Every error this package raises on purpose.

One root, so that ``except QdrantRerankError`` catches all of them. Where Python or a
peer library has a built-in that callers already catch, the error is that as well::

    QdrantRerankError
    ├── InvalidInputError (ValueError)          an argument or a document is wrong
    │   ├── MissingTextError                    a hit has no text to rerank
    │   └── UnknownDocumentError                a judged document is not in the corpus
    ├── MissingDependencyError (ImportError)    an optional package is not installed
    ├── DeadlineError (TimeoutError)            the time given was up; it holds the scores so far
    ├── ModelError
    │   ├── UnknownModelError (ValueError)      no model of that name
    │   ├── ModelFileError                      a file is missing, truncated or does not fit
    │   │   ├── DamagedFileError                its bytes are not those that were published
    │   │   └── MissingPrecisionError (InvalidInputError) no file of the precision asked for
    │   └── ModelOutputError                    the model ran, and what it returned is no score
    ├── CollectionError
    │   ├── CollectionNotFoundError             no such collection
    │   └── SchemaMismatchError                 the collection's vectors do not fit the embedder
    └── QdrantError                             Qdrant did not do what was asked
        ├── QdrantConnectionError (ConnectionError) it is down, too slow, or answers nonsense
        ├── QdrantRequestError                  it refused the request: rights, quota, a bad filter
        └── IncompleteAddError                  some batches of an ``add`` were not stored

And one warning, once a model::

    LicenseWarning (UserWarning)                the model's licence forbids commercial use

A message says what was seen, what was expected, and how to mend it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "CollectionError",
    "CollectionNotFoundError",
    "DamagedFileError",
    "DeadlineError",
    "IncompleteAddError",
    "InvalidInputError",
    "LicenseWarning",
    "MissingDependencyError",
    "MissingPrecisionError",
    "MissingTextError",
    "ModelError",
    "ModelFileError",
    "ModelOutputError",
    "QdrantConnectionError",
    "QdrantError",
    "QdrantRequestError",
    "QdrantRerankError",
    "SchemaMismatchError",
    "UnknownDocumentError",
    "UnknownModelError",
]


class QdrantRerankError(Exception):
    """The root of every error raised by this package."""


class InvalidInputError(QdrantRerankError, ValueError):
    """An argument or a document is wrong; nothing was done."""


class MissingTextError(InvalidInputError):
    """A hit has no text at the place that the text source names."""


class UnknownDocumentError(InvalidInputError):
    """A judgment or a run names a document that the corpus does not have."""


class MissingDependencyError(QdrantRerankError, ImportError):
    """An optional package is not installed; the message holds the pip command."""


class DeadlineError(QdrantRerankError, TimeoutError):
    """The time given was up before all documents were scored.

    Attributes:
        scores: of the first documents, in input order; fewer than documents, maybe none.
    """

    def __init__(self, message: str, scores: "Sequence[float]" = ()) -> None:
        super().__init__(message)
        self.scores = list(scores)


class ModelError(QdrantRerankError):
    """A model cannot be found, loaded or trusted."""


class UnknownModelError(ModelError, ValueError):
    """No registered, bundled, local or hub model goes by that name."""


class ModelFileError(ModelError):
    """A file of a model is missing, truncated, or does not fit the others."""


class DamagedFileError(ModelFileError):
    """A file's bytes are not those that were published."""


class MissingPrecisionError(ModelFileError, InvalidInputError):
    """The model has no file of the precision asked for; the message lists what it has."""


class ModelOutputError(ModelError):
    """A model ran, and what it returned is not one finite score a pair."""


class CollectionError(QdrantRerankError):
    """A Qdrant collection is not what the call needs."""


class CollectionNotFoundError(CollectionError):
    """The collection does not exist on that client."""


class SchemaMismatchError(CollectionError):
    """The collection's vectors do not fit the embedder, or lack what recall needs."""


class QdrantError(QdrantRerankError):
    """Qdrant did not do what was asked; the cause is the client's own exception."""


class QdrantConnectionError(QdrantError, ConnectionError):
    """Qdrant cannot be reached, did not answer in time, or answered nonsense."""


class QdrantRequestError(QdrantError):
    """Qdrant answered, and refused: wrong key, too many requests, or a request it cannot run."""


class IncompleteAddError(QdrantError):
    """Some batches of an ``add`` were not stored, while those before and after them were.

    Attributes:
        stored: documents that were stored.
        failed_ids: ids of those that were not, in the order of the documents.
        causes: the error of each batch that failed, in that order.
    """

    def __init__(
        self,
        message: str,
        *,
        stored: int = 0,
        failed_ids: "Sequence[int | str]" = (),
        causes: "Sequence[Exception]" = (),
    ) -> None:
        super().__init__(message)
        self.stored = stored
        self.failed_ids = list(failed_ids)
        self.causes = list(causes)


class LicenseWarning(UserWarning):
    """The licence of a model that is being loaded forbids commercial use."""
