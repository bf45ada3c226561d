"""What a server does: its models, its limits, who may ask."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.precision import RunPrecision
from qdrant_rerank.hub.specs import DEFAULT_EMBEDDER, DEFAULT_RERANKER
from qdrant_rerank.inference.request import Engine
from qdrant_rerank.utils.loopback import is_loopback
from qdrant_rerank.utils.validation import a_type, require_choice, require_positive, shown

__all__ = ["ServeSettings"]

ServedActivation = Literal["sigmoid", "softmax", "auto"]
LongTexts = Literal["truncate", "windows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Settings of a server. A field has the name of its key in the configuration file.

    Attributes:
        models: names, hub repositories or paths of cross-encoders. "name=model" gives a model
            another name, by which clients ask for it. Requests that name no model get the first.
        collections: names of the collections that can be searched; the first model reranks.
        url: of a Qdrant server, whose key is ``QDRANT_API_KEY``; None for the environment's.
        path: directory of an embedded Qdrant, instead of a server.
        text: payload fields with the text, or one template, preset or "auto"; for all collections.
        embedder: dense encoder of all collections: a name, a directory, or "none".
        language: of BM25; None for the one that a collection records.
        host: address to listen on.
        port: to listen on; 0 for any free one.
        api_keys: a request must have one of them as its bearer token; empty for no check.
        insecure: whether the server may listen without keys on an address that others reach.
        certfile: file with the certificate for TLS; None for plain HTTP.
        keyfile: file with the certificate's key; None if ``certfile`` holds it, too.
        max_documents: per request.
        max_body_bytes: per request.
        max_total_bytes: of the bodies of all requests that are read or wait.
        queue_tokens: tokens that may wait at one model, estimated from the lengths of the texts.
        timeout_s: seconds that a request may take from its last byte to its answer; a request may
            ask for less in its header X-Request-Timeout.
        client_timeout_s: seconds without progress after which a client that sends its request, or
            reads its answer, is given up.
        keep_alive_s: seconds after which a connection without requests is closed.
        shutdown_s: seconds that accepted requests have to finish after SIGTERM.
        threads: batches at the same time; None for one per core.
        precision: see :class:`~qdrant_rerank.TextCrossEncoder`.
        engine: see :class:`~qdrant_rerank.TextCrossEncoder`.
        device: see :class:`~qdrant_rerank.TextCrossEncoder`.
        max_length: tokens of a pair at most; None for the model's limit.
        long_documents: see :class:`~qdrant_rerank.TextCrossEncoder`.
        activation: makes scores of logits: "sigmoid" for scores of 0 to 1; "softmax" over the
            labels of a model with several; "auto" for the model's own, which may be raw logits.
        cache_dir: where downloads are kept; None for the default.
        local_files_only: whether no model may be downloaded at the start.

    Raises:
        InvalidInputError: a value is of the wrong type or out of range.
    """

    collections: Sequence[str] = ()
    url: str | None = None
    path: str | None = None
    text: Sequence[str] = ("auto",)
    embedder: str = DEFAULT_EMBEDDER
    language: str | None = None
    models: Sequence[str] = (DEFAULT_RERANKER,)
    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: Sequence[str] = field(default=(), repr=False)
    insecure: bool = False
    certfile: str | None = None
    keyfile: str | None = None
    max_documents: int = 1000
    max_body_bytes: int = 16 << 20
    max_total_bytes: int = 256 << 20
    queue_tokens: int = 1_000_000
    timeout_s: float = 60.0
    client_timeout_s: float = 10.0
    keep_alive_s: float = 30.0
    shutdown_s: float = 60.0
    threads: int | None = None
    precision: RunPrecision = "auto"
    engine: Engine = "auto"
    device: str | None = None
    max_length: int | None = None
    long_documents: LongTexts = "truncate"
    activation: ServedActivation = "sigmoid"
    cache_dir: str | None = None
    local_files_only: bool = False

    def __post_init__(self) -> None:
        for name in ("models", "api_keys", "collections", "text"):
            several = getattr(self, name)
            if (
                isinstance(several, str)
                or not isinstance(several, Sequence)
                or not all(isinstance(one, str) and one.strip() for one in several)
            ):
                # A key is not shown.
                raise InvalidInputError(
                    f"{name} is {a_type(several)}; expected a list of texts, none of them blank."
                )
            object.__setattr__(self, name, tuple(several))
        self._require_numbers()
        if not self.text:
            raise InvalidInputError("text is empty; expected a payload field, or 'auto'.")
        if not self.models:
            raise InvalidInputError("models is empty; expected one model or more.")
        for name in (
            "host",
            "embedder",
            "certfile",
            "keyfile",
            "device",
            "cache_dir",
            "url",
            "path",
            "language",
        ):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name in {"host", "embedder"}):
                raise InvalidInputError(f"{name} is {a_type(value)}; expected a str.")
        for name in ("insecure", "local_files_only"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidInputError(
                    f"{name} is {shown(getattr(self, name))}; expected true or false."
                )
        if self.keyfile is not None and self.certfile is None:
            raise InvalidInputError("keyfile is given without certfile. Pass both, or neither.")
        require_choice("precision", self.precision, RunPrecision)
        require_choice("engine", self.engine, Engine)
        require_choice("activation", self.activation, ServedActivation)
        require_choice("long_documents", self.long_documents, LongTexts)

    def _require_numbers(self) -> None:
        for name in ("max_documents", "max_body_bytes", "max_total_bytes", "queue_tokens"):
            require_positive(name, getattr(self, name), optional=False)
        for name in ("threads", "max_length"):
            require_positive(name, getattr(self, name))
        for name in ("timeout_s", "client_timeout_s", "keep_alive_s", "shutdown_s"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (is_number and 0 < value < math.inf):
                raise InvalidInputError(
                    f"{name} is {shown(value)}; expected seconds above 0, such as 10."
                )
        if isinstance(self.port, bool) or not isinstance(self.port, int):
            raise InvalidInputError(f"port is {shown(self.port)}; expected a whole number.")
        if not 0 <= self.port < 2**16:
            raise InvalidInputError(f"port is {self.port}; expected 0 to 65535.")

    @classmethod
    def read(cls, path: str | Path) -> "ServeSettings":
        """Read a configuration file: TOML with the names of the attributes as keys.

        Raises:
            InvalidInputError: the file cannot be read, is not TOML, or has an unknown key.
        """
        try:
            content = tomllib.loads(Path(path).read_text("utf-8"))
        except OSError as error:
            raise InvalidInputError(
                f"The configuration file {path} cannot be read: {error.strerror or error}. "
                "Expected a TOML file with settings such as port = 8080."
            ) from error
        except ValueError as error:
            raise InvalidInputError(f"{path} is not TOML: {error}") from error
        return cls().changed(content, str(path))

    def changed(self, given: Mapping[str, Any], source: str) -> "ServeSettings":
        """Return these settings with some fields of other values.

        Raises:
            InvalidInputError: there is no such field, or a value is wrong.
        """
        known = {each.name for each in fields(self)} - {"api_keys"}
        unknown = sorted(set(given) - known)
        if "api_keys" in unknown:
            raise InvalidInputError(
                f"{source} holds api_keys. Keys are kept in a file of their own: --api-key-file."
            )
        if unknown:
            raise InvalidInputError(
                f"{source} has the unknown key {unknown[0]!r}; expected some of "
                f"{', '.join(sorted(known))}."
            )
        try:
            return replace(self, **given)
        except InvalidInputError as error:
            raise InvalidInputError(f"{source}: {error}") from error

    def with_keys(self, keys: Sequence[str]) -> "ServeSettings":
        """Return these settings with the keys that clients need."""
        return replace(self, api_keys=keys)

    def require_safe(self) -> None:
        """Refuse to listen without keys where others can connect, unless ``insecure`` is set.

        Raises:
            InvalidInputError: the address is not of this machine alone, and there are no keys.
        """
        if not (self.api_keys or self.insecure or is_loopback(self.host)):
            raise InvalidInputError(
                f"host is {self.host}, which others can reach, and there are no keys. Pass "
                "--api-key-file FILE with one key per line; or --insecure if everybody who can "
                "reach the address may ask."
            )
