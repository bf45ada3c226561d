"""The errors that this package raises on purpose.

All of them have one root, so ``except QdrantRerankError`` catches them all. The built-in exception
in brackets is a second base: callers who catch that one catch ours too::

    QdrantRerankError
    ├── InvalidInputError (ValueError)          an argument or a document is wrong
    │   ├── MissingTextError                    a hit has no text to rerank
    │   └── UnknownDocumentError                a judged document is not in the corpus
    ├── MissingDependencyError (ImportError)    an optional package is not installed
    ├── DeadlineError (TimeoutError)            the time was up; holds the scores so far
    ├── ModelError                              a model cannot be found, loaded or trusted
    │   ├── UnknownModelError (ValueError)      there is no model of that name
    │   ├── ModelFileError                      a file is missing, damaged or does not fit
    │   │   ├── DamagedFileError                its bytes are not the published ones
    │   │   └── MissingPrecisionError (InvalidInputError)  no file of that precision
    │   ├── ModelOutputError                    the model ran, but did not return valid scores
    │   ├── ModelConnectionError (ConnectionError)  its server is unreachable, too slow, or unclear
    │   └── ModelRequestError                   its server refused: key, quota, or a bad request
    ├── CollectionError                         a collection is not what the call needs
    │   ├── CollectionNotFoundError             there is no such collection
    │   └── SchemaMismatchError                 its vectors do not fit the embedder
    └── QdrantError                             Qdrant did not do what was asked
        ├── QdrantConnectionError (ConnectionError)  unreachable, too slow, or no valid answer
        ├── QdrantRequestError                  it refused: key, quota, or an invalid request
        └── IncompleteAddError                  some batches of an ``add`` were not stored

Two warnings can be told from others by their class::

    LicenseWarning (UserWarning)                the model's license forbids commercial use
    MissingTextWarning (UserWarning)            no hit of a query has text to rerank

Each message says what was seen, what was expected, and how to fix it. No message holds a secret:
the root class redacts keys, tokens and the passwords of URLs, and so must all other output that
holds text from elsewhere, by :func:`redact`.
"""

import os
import re
import shlex
from typing import TYPE_CHECKING, ClassVar

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
    "MissingTextWarning",
    "ModelConnectionError",
    "ModelError",
    "ModelFileError",
    "ModelOutputError",
    "ModelRequestError",
    "QdrantConnectionError",
    "QdrantError",
    "QdrantRequestError",
    "QdrantRerankError",
    "SchemaMismatchError",
    "UnknownDocumentError",
    "UnknownModelError",
]

#: The site of the manual, which is in ``docs/``.
MANUAL = "https://qdrant-rerank.github.io/qdrant-rerank/"
HIDDEN = "***"
#: Environment variables whose values are secrets.
SECRET_VARIABLES = ("QDRANT_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY")
SHORTEST_SECRET = 6  # characters; a shorter value is part of ordinary words
SECRET_NAME = (
    r"(?:[\w.-]*[-_.])?(?:api[-_]?key|key|token|secret|password|passwd|pwd|auth|authorization"
    r"|signature|sig|credentials?|jwt)"
)
# What a secret looks like, with the part that stays before it.
SECRETS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(://)[^\s/?#'\"<>]*@",  # the user and the password of a URL
        r"(://)[^\s/?#'\":@]+:(?!\d+(?:[/?#]|$))[^\s'\"@]*@",  # a password with a slash
        rf"([?&;]{SECRET_NAME}=)[^&#\s'\"<>]+",  # a parameter of a URL
        r"(['\"](?:api[-_]?key|authorization|password|secret)['\"]\s*[:,=]\s*b?['\"])[^'\"]+",
        r"(illegal header value\s+b?)(?:'[^']*'|\"[^\"]*\")",  # as h11 says it
        r"(authorization['\"]?\s*[:=]\s*b?['\"]?bearer\s+)[^\s'\",<]+",
        # A word such as "token" may follow, too: a secret has a digit, or is longer than a word.
        r"(bearer\s+)(?=[a-z_.~+/=-]*\d|[\w.~+/=-]{20})[\w.~+/=-]{6,}",
        r"()\beyJ[\w-]{8,}\.[\w-]+\.[\w-]+",  # a JSON web token
        r"()\bhf_[a-z0-9]{16,}",
    )
)


def redact(text: str, *secrets: str | None) -> str:
    """Replace the secrets in a text by three stars.

    Secrets are the user and password of a URL, parameters such as ``?api_key=``, headers with a
    key, bearer tokens, JSON web tokens, Hugging Face tokens, and the values of ``QDRANT_API_KEY``,
    ``OPENAI_API_KEY``, ``HF_TOKEN`` and ``HUGGING_FACE_HUB_TOKEN``.

    Args:
        text: any text.
        secrets: further values to replace, if they have at least 6 characters.

    >>> redact("http://me:pass@host:6333/?api_key=abc refused")
    'http://***@host:6333/?api_key=*** refused'
    """
    for secret in (*secrets, *map(os.environ.get, SECRET_VARIABLES)):
        plain = (secret or "").strip()
        if len(plain) >= SHORTEST_SECRET:
            for written in {plain, repr(plain)[1:-1]}:  # as it is, and as a repr escapes it
                text = text.replace(written, HIDDEN)
    for pattern in SECRETS:
        text = pattern.sub(lambda found: found[1] + HIDDEN + "@" * found[0].endswith("@"), text)
    return text


class QdrantRerankError(Exception):
    """The root of every error that this package raises on purpose. Its message has no secrets.

    Attributes:
        help_url: page of the manual that explains errors of this class, and says what to do.
        command_message: what the command line prints, with options in the place of Python's
            arguments; "" if it prints the message itself and the notes.
        stored: number of documents that an ``add`` had stored before the error; None if the error
            is not of an ``add`` that had begun.
    """

    help_url: ClassVar[str] = f"{MANUAL}errors.html#errors"
    command_message = ""
    stored: int | None = None

    def __init_subclass__(cls) -> None:
        """Give each class of this module the address of its own heading."""
        super().__init_subclass__()
        if cls.__module__ == __name__:
            cls.help_url = f"{MANUAL}errors.html#{cls.__name__.lower()}"

    def __init__(self, *args: object, command: str = "") -> None:
        super().__init__(*(redact(arg) if isinstance(arg, str) else arg for arg in args))
        if command:
            self.command_message = redact(command)

    def add_note(self, note: str, command: str | None = None) -> None:
        """Add a line to the traceback, without secrets.

        Args:
            note: the line.
            command: what the command line prints instead; None for the line itself.
        """
        if command is not None or self.command_message:
            told = self.command_message or " ".join([str(self), *getattr(self, "__notes__", [])])
            self.command_message = redact(f"{told} {note if command is None else command}")
        super().add_note(redact(note))


class InvalidInputError(QdrantRerankError, ValueError):
    """An argument or a document is wrong.

    Nothing was done, except that ``add`` may have stored batches before the wrong document.
    """


class _MissingText(Exception):  # noqa: N818 - of an error and of a warning
    """A text that is missing, and the fields to read instead.

    Attributes:
        reason: the message without its advice.
        fields: payload fields that have text, the longest first; the advice names them.
    """

    def __init__(self, reason: str, fields: "Sequence[str]" = ()) -> None:
        advice = f" Pass text={' or '.join(map(repr, fields))}." if fields else ""
        super().__init__(redact(reason + advice))
        self.reason = redact(reason)
        self.fields = tuple(fields)
        option = f" Pass --text {' or '.join(map(shlex.quote, fields))}." if fields else ""
        self.command_message = self.reason + option


class MissingTextError(_MissingText, InvalidInputError):
    """A hit has no text in the place that the text source names."""


class UnknownDocumentError(InvalidInputError):
    """A judgment or a run names a document that the corpus does not have."""


class MissingDependencyError(QdrantRerankError, ImportError):
    """An optional package is not installed. The message holds the pip command."""


class DeadlineError(QdrantRerankError, TimeoutError):
    """The time was up before all documents were scored.

    Attributes:
        scores: scores of the first documents, in input order; may be empty.
    """

    def __init__(self, message: str, scores: "Sequence[float]" = ()) -> None:
        super().__init__(message)
        self.scores = list(scores)


class ModelError(QdrantRerankError):
    """A model cannot be found, loaded or trusted."""


class UnknownModelError(ModelError, ValueError):
    """No registered, bundled, local or hub model has that name."""


class ModelFileError(ModelError):
    """A file of a model is missing, damaged, or does not fit the other files."""


class DamagedFileError(ModelFileError):
    """The bytes of a file are not the published ones."""


class MissingPrecisionError(ModelFileError, InvalidInputError):
    """The model has no file of the requested precision. The message lists those it has."""


class ModelOutputError(ModelError):
    """A model ran, but did not return one finite score per pair."""


class ModelConnectionError(ModelError, ConnectionError):
    """A server that runs a model cannot be reached, is too slow, or sent no valid answer."""


class ModelRequestError(ModelError):
    """A server that runs a model refused: wrong key, too many requests, or an invalid request."""


class CollectionError(QdrantRerankError):
    """A Qdrant collection is not what the call needs."""


class CollectionNotFoundError(CollectionError):
    """The collection does not exist in the client's Qdrant."""


class SchemaMismatchError(CollectionError):
    """The collection's vectors do not fit the embedder, or lack one that the search needs."""


class QdrantError(QdrantRerankError):
    """Qdrant did not do what was asked. ``__cause__`` is the client's own exception."""


class QdrantConnectionError(QdrantError, ConnectionError):
    """Qdrant cannot be reached, did not answer in time, or did not send a valid answer."""


class QdrantRequestError(QdrantError):
    """Qdrant refused the request: wrong key, too many requests, or an invalid request."""


class IncompleteAddError(QdrantError):
    """Some batches of an ``add`` were not stored; all others were.

    Attributes:
        stored: number of documents that were stored.
        failed_ids: ids of the documents that were not stored, in the order of the documents.
        causes: the error of each batch that failed, in the same order.
    """

    def __init__(
        self,
        message: str,
        *,
        stored: int = 0,
        failed_ids: "Sequence[int | str]" = (),
        causes: "Sequence[Exception]" = (),
        command: str = "",
    ) -> None:
        super().__init__(message, command=command)
        self.stored = stored
        self.failed_ids = list(failed_ids)
        self.causes = list(causes)


class LicenseWarning(UserWarning):
    """The license of a model that is being loaded forbids commercial use."""


class MissingTextWarning(_MissingText, UserWarning):
    """No hit of a query has text in the place that the text source names."""
