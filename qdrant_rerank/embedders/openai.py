"""Embeddings of a server that speaks OpenAI's call: OpenAI itself, vLLM, TEI, Ollama, LiteLLM, ...

Written from the reference of the call, https://platform.openai.com/docs/api-reference/embeddings.
"""

import asyncio
import base64
import binascii
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import httpx
import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.embedders.batched import AsyncEmbedder, BatchedEmbedder
from qdrant_rerank.errors import DeadlineError, InvalidInputError, ModelOutputError
from qdrant_rerank.inference.tokenization import well_formed
from qdrant_rerank.utils.background import run_in_background, wait_in_background
from qdrant_rerank.utils.deadline import Deadline, deadline_of_call
from qdrant_rerank.utils.model_server import ModelServer, Wording
from qdrant_rerank.utils.server_arguments import further_fields
from qdrant_rerank.utils.validation import (
    a_type,
    require_choice,
    require_flag,
    require_positive,
    shown,
)

__all__ = ["OpenAIEmbedder"]

OPENAI = "https://api.openai.com/v1"
CALL = "/embeddings"
#: How the numbers of a vector are written.
Encoding = Literal["float", "base64"]
BLANK = " "  # in the place of an empty text, which OpenAI refuses
WORDING = Wording(
    call="embeddings",
    answer="vectors",
    not_found="Check model, and base_url, whose path is /v1 on most servers.",
    too_large="If it is too large, pass a smaller batch_size or batch_characters; if one text is "
    "too long, cut it, or pass what the server has for it, such as "
    "parameters={'truncate_prompt_tokens': 512} for vLLM.",
)


class OpenAIEmbedder(BatchedEmbedder, AsyncEmbedder):
    """Embeds texts by a server with OpenAI's ``/embeddings``. An ``Embedder``, sync and async.

    Vectors are stored as the server makes them. Texts go in several requests at the same time.
    Redirects are not followed, so that the key goes to one host alone. ``AsyncHybridSearcher``
    awaits it; with ``deadline_s``, both searchers stop it in time. Many threads may call it.

    Args:
        base_url: address of the server, such as ``"http://localhost:8000/v1"``; ``/v1`` is added
            to one without a path. None for ``OPENAI_BASE_URL``, or else OpenAI's own.
        model: name of the model.
        api_key: the key. None for ``OPENAI_API_KEY``, but only if ``base_url`` is OpenAI's, or is
            that of ``OPENAI_BASE_URL``: the key is not sent anywhere else unasked.
        dimension: length that vectors must have; None to learn it from the first one.
        shorten: asks the server for vectors of ``dimension``, which some models can make of their
            longer ones (OpenAI's ``dimensions``).
        query_prompt: is put before a query, such as ``"query: "`` for E5.
        document_prompt: is put before a document.
        encoding: asks for numbers as "base64", which is shorter, or "float"; None leaves it to the
            server. An answer is read either way.
        batch_size: texts per request.
        batch_characters: characters of all texts of a request; a longer text goes alone.
        concurrency: requests at the same time, at most.
        timeout_s: seconds that one request may take, from the connection to the last byte.
        retries: how often a request is sent again: after 429, 502, 503, 504, a connection that
            failed or one that broke. The waits grow and have jitter; a server's Retry-After is
            kept.
        headers: further headers of each request.
        parameters: further fields of each request.

    Attributes:
        name: the model.
        dimension: length of a vector.

    Raises:
        InvalidInputError: an argument is wrong. No message shows the key.

    Examples:
        >>> OpenAIEmbedder("http://localhost:8000/v1", "intfloat/e5-small", dimension=384)
        OpenAIEmbedder('http://localhost:8000/v1/embeddings', 'intfloat/e5-small', dimension=384)
    """

    def __init__(
        self,
        base_url: str | None,
        model: str,
        api_key: str | None = None,
        *,
        dimension: int | None = None,
        shorten: bool = False,
        query_prompt: str = "",
        document_prompt: str = "",
        encoding: Encoding | None = None,
        batch_size: int = 32,
        batch_characters: int = 100_000,
        concurrency: int = 4,
        timeout_s: float = 60.0,
        retries: int = 3,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(model, str) or not model.strip():
            raise InvalidInputError(f"model is {shown(model)}; expected the name of a model.")
        if not isinstance(base_url, str | None):
            raise InvalidInputError(f"base_url is {shown(base_url)}; expected a URL, or None.")
        require_flag("shorten", shorten)
        require_positive("dimension", dimension)
        require_positive("batch_size", batch_size, optional=False)
        require_positive("batch_characters", batch_characters, optional=False)
        require_positive("concurrency", concurrency, optional=False)
        if encoding is not None:
            require_choice("encoding", encoding, Encoding)
        if shorten and dimension is None:
            raise InvalidInputError("shorten is True without a dimension; pass dimension=.")
        for name, prompt in (("query_prompt", query_prompt), ("document_prompt", document_prompt)):
            if not isinstance(prompt, str):
                raise InvalidInputError(f"{name} is {a_type(prompt)}; expected a str.")
        super().__init__(model, dimension)
        self._query_prompt = query_prompt
        self._document_prompt = document_prompt
        self._batch_size = batch_size
        self._batch_characters = batch_characters
        self._fields: dict[str, Any] = {"model": model}
        if encoding is not None:
            self._fields["encoding_format"] = encoding
        if shorten:
            self._fields["dimensions"] = dimension
        self._fields |= further_fields(parameters, [*self._fields, "input"])
        own = os.environ.get("OPENAI_BASE_URL") or OPENAI
        url = own if base_url is None else base_url
        if api_key is None and url in {own, OPENAI}:
            api_key = os.environ.get("OPENAI_API_KEY")
        self._server = ModelServer(
            _call_of(url),
            WORDING,
            path=f"/v1{CALL}",
            api_key=api_key,
            headers=headers,
            timeout_s=timeout_s,
            retries=retries,
            at_once=concurrency,
        )

    @property
    def url(self) -> str:
        """Where requests are sent, without a password."""
        return self._server.shown

    def close(self) -> None:
        """Close the connections; a later call opens others."""
        run_in_background(self._server.close())

    def _queries(self, texts: list[str]) -> Any:
        return run_in_background(self._embed(self._query_prompt, texts, deadline_of_call()))

    def _documents(self, texts: list[str]) -> Any:
        return run_in_background(self._embed(self._document_prompt, texts, deadline_of_call()))

    async def _aqueries(self, texts: list[str]) -> Any:
        return await wait_in_background(self._embed(self._query_prompt, texts, deadline_of_call()))

    async def _adocuments(self, texts: list[str]) -> Any:
        return await wait_in_background(
            self._embed(self._document_prompt, texts, deadline_of_call())
        )

    async def _embed(
        self, prompt: str, texts: Sequence[str], deadline: Deadline
    ) -> NDArray[np.float32]:
        """Return the vectors of one or more texts: shape (n, dimension), on the background loop.

        Raises:
            DeadlineError: the deadline has passed.
            ModelError: as :meth:`ModelServer.post`, or the answer is not one vector per text.
        """
        parts = list(self._parts([well_formed(f"{prompt}{text}") or BLANK for text in texts]))
        tasks = [asyncio.ensure_future(self._one_request(part, deadline)) for part in parts]
        try:
            async with asyncio.timeout(deadline.remaining):
                vectors = await asyncio.gather(*tasks)
        except TimeoutError as error:
            raise DeadlineError(
                f"The time was up before {self.url} had embedded {len(texts)} texts. Give it "
                "longer: deadline_s."
            ) from error
        finally:
            for task in tasks:
                task.cancel()  # of the others, if one failed
            await asyncio.gather(*tasks, return_exceptions=True)
        lengths = {array.shape[1] for array in vectors}
        if len(lengths) > 1:
            raise ModelOutputError(
                f"{self.url} sent vectors of the lengths {sorted(lengths)} for one model; expected "
                "one length."
            )
        return np.concatenate(vectors)

    def _parts(self, texts: Sequence[str]) -> Iterator[list[str]]:
        """Yield the texts of each request."""
        part: list[str] = []
        characters = 0
        for text in texts:
            full = len(part) == self._batch_size
            if part and (full or characters + len(text) > self._batch_characters):
                yield part
                part, characters = [], 0
            part.append(text)
            characters += len(text)
        yield part

    async def _one_request(self, texts: list[str], deadline: Deadline) -> NDArray[np.float32]:
        answer = await self._server.post({**self._fields, "input": texts}, deadline)
        return self._read(answer, len(texts))

    def _read(self, answer: Any, count: int) -> NDArray[np.float32]:
        """Return the vectors of an answer in the order of the texts; shape (count, dimension).

        Raises:
            ModelOutputError: the answer is not one vector of finite numbers per text.
        """
        items = answer.get("data") if isinstance(answer, Mapping) else None
        if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
            raise self._unclear(f"{str(answer)!r:.200}", 'an object with the list "data"')
        if len(items) != count:
            raise self._unclear(f"{len(items)} vectors for {count} texts", "one per text")
        places = [item.get("index", place) for place, item in enumerate(items)]
        if sorted(map(repr, places)) != sorted(map(repr, range(count))):
            raise self._unclear(f"the indexes {places!r:.80}", f"each of 0 to {count - 1} once")
        rows: list[Any] = [None] * count
        for place, item in zip(places, items, strict=True):
            rows[place] = self._numbers(item.get("embedding"), place)
        lengths = sorted({len(row) for row in rows})
        if len(lengths) > 1:
            raise self._unclear(f"vectors of the lengths {lengths}", "one length")
        vectors = np.stack(rows)
        broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(broken):
            raise self._unclear(
                f"NaN or infinity in the vector of text {broken[0]}", "finite numbers"
            )
        return vectors

    def _numbers(self, written: Any, place: int) -> NDArray[np.float32]:
        """Return the numbers of a vector, written as a list or as base64 of float32."""
        try:
            if isinstance(written, str):
                return np.frombuffer(base64.b64decode(written, validate=True), dtype="<f4")
            with np.errstate(over="ignore"):  # becomes infinity, which is refused later
                numbers = np.asarray(written, dtype=np.float32)
            if isinstance(written, list) and numbers.ndim == 1 and len(numbers):
                return numbers
        except (binascii.Error, TypeError, ValueError):
            pass
        raise self._unclear(
            f"{str(written)!r:.80} as the vector of text {place}", "a list of numbers, or base64"
        )

    def _unclear(self, seen: str, expected: str) -> ModelOutputError:
        return ModelOutputError(
            self._server.hidden(
                f"{self.url} sent {seen} as embeddings of {self.name!r}; expected {expected}. Is "
                "it an embedding model, behind OpenAI's call?"
            )
        )

    def __repr__(self) -> str:
        return f"OpenAIEmbedder({self.url!r}, {self.name!r}, dimension={self._dimension})"


def _call_of(base_url: Any) -> Any:
    """Return the address of the call; what is no text is told by the server's own check."""
    if not isinstance(base_url, str):
        return base_url
    try:
        url = httpx.URL(base_url.strip())
    except (httpx.InvalidURL, UnicodeError):
        return base_url
    path = url.path.rstrip("/")
    if not path or path.endswith(CALL):
        return str(url.copy_with(path=path or "/"))
    return str(url.copy_with(path=f"{path}{CALL}"))
