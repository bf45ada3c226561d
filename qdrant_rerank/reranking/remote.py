"""A reranker that runs on a server: Cohere's, Jina's, Voyage's, TEI, vLLM, Infinity, LiteLLM."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qdrant_rerank.errors import DeadlineError, InvalidInputError, ModelOutputError
from qdrant_rerank.inference.tokenization import well_formed
from qdrant_rerank.reranking.answers import items_of, scores_by_index
from qdrant_rerank.reranking.rerank_api import APIS, ApiName
from qdrant_rerank.utils.background import run_in_background, wait_in_background
from qdrant_rerank.utils.deadline import NO_DEADLINE, Deadline
from qdrant_rerank.utils.model_server import ModelServer, Wording
from qdrant_rerank.utils.server_arguments import further_fields
from qdrant_rerank.utils.validation import a_type, as_texts, require_choice, require_positive, shown

__all__ = ["RemoteReranker"]

WORDING = Wording(
    call="reranking",
    answer="scores",
    not_found="Check the path of the url, the model, and api.",
    too_large="If it is too large, pass a smaller batch_size; if a text is too long, see the "
    "server's options, such as parameters={'truncate': True}.",
)


class RemoteReranker:
    """A reranking server as a ``Reranker``, for threads and for event loops.

    Many documents are sent in several requests at the same time. Redirects are not followed, so
    the key goes to the host of ``url`` alone. Many threads may call it at once.

    Args:
        url: address of the server. If it has a path, requests go to it as it is; otherwise the
            path of the ``api`` is added, such as ``/v2/rerank``.
        model: name of the model; None if the server has only one.
        api_key: sent as a bearer token, or as the ``api`` wants it; None for none.
        api: what the server speaks: "cohere", "jina", "tei" (text-embeddings-inference), "vllm",
            "vllm-score" (its ``/score``), "infinity", "litellm", "voyage" or "elastic" (an
            inference endpoint, whose path the url has).
        timeout_s: seconds that one request may take, from the connection to the last byte.
        retries: how often a request is sent again: after 429, 502, 503, 504, a connection that
            failed or one that broke. The waits grow and have jitter; a server's Retry-After is
            kept.
        batch_size: documents per request; None for the limit of the ``api`` (32 for "tei", else
            1,000).
        concurrency: requests at the same time, at most.
        headers: further headers of each request.
        parameters: further fields of each request, such as ``{"max_tokens_per_doc": 4096}``.

    Raises:
        InvalidInputError: an argument is wrong, or the ``api`` needs a model and there is none.

    Examples:
        >>> RemoteReranker("http://localhost:8080", api="tei")
        RemoteReranker('http://localhost:8080/rerank', api='tei')
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        api_key: str | None = None,
        *,
        api: ApiName = "cohere",
        timeout_s: float = 30.0,
        retries: int = 2,
        batch_size: int | None = None,
        concurrency: int = 4,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        require_choice("api", api, ApiName)
        if model is not None and (not isinstance(model, str) or not model):
            raise InvalidInputError(f"model is {shown(model)}; expected the name of a model.")
        self._api = APIS[api]
        if model is None and self._api.needs_model:
            raise InvalidInputError(f"model is None; api={api!r} needs the name of a model.")
        require_positive("batch_size", batch_size)
        require_positive("concurrency", concurrency, optional=False)
        self.api = api
        self.model = model
        self.batch_size = self._api.batch_size if batch_size is None else batch_size
        self._parameters = further_fields(parameters, self._api.own_fields)
        self._server = ModelServer(
            url,
            WORDING,
            path=self._api.path,
            api_key=api_key,
            scheme=self._api.key,
            headers=headers,
            timeout_s=timeout_s,
            retries=retries,
            at_once=concurrency,
        )

    @property
    def url(self) -> str:
        """Where requests are sent, without a password."""
        return self._server.shown

    def rerank(
        self, query: str, documents: Iterable[str], *, deadline_s: float | None = None
    ) -> list[float]:
        """Score documents for one query.

        Args:
            query: a text.
            documents: texts.
            deadline_s: seconds that the call may take, retries included; None for no limit.

        Returns:
            One score per document, in input order; higher is more relevant. The scores are the
            server's, mostly 0 to 1.

        Raises:
            InvalidInputError: a text is not a str, or ``deadline_s`` is not above 0.
            DeadlineError: the time was up; its ``scores`` are those of the first documents.
            ModelConnectionError: the server cannot be reached, is too slow, or its answer is not
                JSON.
            ModelRequestError: the server refused: its key, its quota, or the request.
            ModelOutputError: its answer is not one finite score per document.
        """
        deadline = Deadline.after(deadline_s)
        texts = _texts(query, documents)
        scores, _ = self.rerank_until(query, texts, deadline)
        return _complete(scores, texts, deadline_s)

    async def rerank_async(
        self, query: str, documents: Iterable[str], *, deadline_s: float | None = None
    ) -> list[float]:
        """Score documents as :meth:`rerank` does, for an event loop."""
        deadline = Deadline.after(deadline_s)
        texts = _texts(query, documents)
        scores, _ = await self.rerank_until_async(query, texts, deadline)
        return _complete(scores, texts, deadline_s)

    def rerank_until(
        self, query: str, documents: Sequence[str], deadline: Deadline = NO_DEADLINE
    ) -> tuple[list[float], int]:
        """Score as many documents as a deadline allows.

        Returns:
            The scores of the first documents, and how many documents have none.

        Raises:
            ModelError: as :meth:`rerank`.
        """
        return run_in_background(self._score(query, documents, deadline))

    async def rerank_until_async(
        self, query: str, documents: Sequence[str], deadline: Deadline = NO_DEADLINE
    ) -> tuple[list[float], int]:
        """Score documents as :meth:`rerank_until` does, for an event loop."""
        return await wait_in_background(self._score(query, documents, deadline))

    def close(self) -> None:
        """Close the connections; a later call opens others."""
        run_in_background(self._server.close())

    def __enter__(self) -> "RemoteReranker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        model = "" if self.model is None else f", {self.model!r}"
        return f"RemoteReranker({self.url!r}{model}, api={self.api!r})"

    async def _score(
        self, query: str, documents: Sequence[str], deadline: Deadline
    ) -> tuple[list[float], int]:
        """Send the documents in parts, and join the scores of the first ones that came."""
        starts = range(0, len(documents), self.batch_size)
        asking = [
            asyncio.ensure_future(
                self._part(query, documents[start : start + self.batch_size], deadline)
            )
            for start in starts
        ]
        scores: list[float] = []
        if not asking or deadline.passed:
            await _abandon(asking)
            return scores, len(documents)
        try:
            await asyncio.wait(
                asking, timeout=deadline.remaining, return_when=asyncio.FIRST_EXCEPTION
            )
            for part in asking:
                if part.done() and (error := part.exception()) is not None:
                    raise error
            for part in asking:
                if not part.done():
                    break
                scores += part.result()
        finally:
            await _abandon(asking)
        return scores, len(documents) - len(scores)

    async def _part(self, query: str, documents: Sequence[str], deadline: Deadline) -> list[float]:
        body = self._api.body(
            self.model, well_formed(query), [well_formed(text) for text in documents]
        )
        answer = await self._server.post({**body, **self._parameters}, deadline)
        who = self._server.shown
        try:
            found = scores_by_index(items_of(answer, who), len(documents), who)
        except ModelOutputError as error:
            raise ModelOutputError(self._server.hidden(str(error))) from None
        scores: list[float] = found.tolist()
        return scores


async def _abandon(asking: "Sequence[asyncio.Future[list[float]]]") -> None:
    """Stop the requests that are still under way."""
    for one in asking:
        one.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


def _texts(query: Any, documents: Any) -> list[str]:
    if not isinstance(query, str):
        raise InvalidInputError(f"query is {a_type(query)}; expected a str.")
    return as_texts("documents", documents)


def _complete(scores: list[float], texts: Sequence[str], deadline_s: float | None) -> list[float]:
    if len(scores) < len(texts):
        raise DeadlineError(
            f"{len(scores)} of {len(texts)} documents were scored in {deadline_s} s. Their scores "
            "are in this error's scores. Give it longer, or fewer documents.",
            scores,
        )
    return scores
