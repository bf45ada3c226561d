"""The calls that rerank: TEI's, Cohere's, Jina's, vLLM's and Infinity's."""

from collections.abc import Mapping, Sequence

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from qdrant_rerank.cross_encoder.pair_scores import PairScores
from qdrant_rerank.serving.answers import (
    cohere_answer,
    infinity_answer,
    jina_answer,
    score_answer,
    tei_answer,
)
from qdrant_rerank.serving.facts import note
from qdrant_rerank.serving.http_errors import HttpError, Json, answering
from qdrant_rerank.serving.limits import BodyReader, deadline_of
from qdrant_rerank.serving.metrics import Metrics
from qdrant_rerank.serving.models import Models, ServedModel
from qdrant_rerank.serving.scoring import score, unless_gone
from qdrant_rerank.serving.settings import ServeSettings
from qdrant_rerank.serving.wire import (
    CohereBody,
    RerankRequest,
    ScoreBody,
    SimilarityBody,
    TeiBody,
    parse,
    parse_rerank,
    rerank_request,
    score_pairs,
    tei_request,
)

__all__ = ["RerankRoutes"]


class RerankRoutes:
    """The handlers, with what they share.

    Args:
        settings: have the limits.
        models: score.
        bodies: reads requests.
        metrics: counts pairs.
    """

    def __init__(
        self, settings: ServeSettings, models: Models, bodies: BodyReader, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._models = models
        self._bodies = bodies
        self._metrics = metrics

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/", answering(self.similarity), methods=["POST"]),
            Route("/rerank", answering(self.rerank), methods=["POST"]),
            Route("/v1/rerank", answering(self.rerank), methods=["POST"]),
            Route("/v2/rerank", answering(self.rerank_v2), methods=["POST"]),
            Route("/infinity/rerank", answering(self.rerank_infinity), methods=["POST"]),
            Route("/score", answering(self.score), methods=["POST"]),
            Route("/v1/score", answering(self.score), methods=["POST"]),
        ]

    async def rerank(self, request: Request) -> Response:
        """Rerank for a client of TEI, or of Jina, vLLM, Infinity and Cohere's first version."""
        async with self._bodies.json_of(request) as content:
            body = parse_rerank(content)
            if isinstance(body, TeiBody):
                asked = tei_request(body)
                return Json(tei_answer(asked, (await self._scores(request, asked))[1]))
            asked = rerank_request(body)
            model, found = await self._scores(request, asked)
            return Json(jina_answer(asked, found, model.name))

    async def rerank_v2(self, request: Request) -> Response:
        """Rerank for a client of Cohere."""
        async with self._bodies.json_of(request) as content:
            asked = rerank_request(parse(CohereBody, content))
            return Json(cohere_answer(asked, (await self._scores(request, asked))[1], "2"))

    async def rerank_infinity(self, request: Request) -> Response:
        """Rerank for a client that reads documents as Infinity writes them."""
        async with self._bodies.json_of(request) as content:
            asked = rerank_request(parse(CohereBody, content))
            model, found = await self._scores(request, asked)
            return Json(infinity_answer(asked, found, model.name))

    async def score(self, request: Request) -> Response:
        """Score pairs for a client of vLLM."""
        async with self._bodies.json_of(request) as content:
            body = parse(ScoreBody, content)
            model = self._models.find(body.model)
            found = await self._score(request, model, score_pairs(body))
            return Json(score_answer(found, model.name, raw=body.raw_scores))

    async def similarity(self, request: Request) -> Response:
        """Score texts for ``InferenceClient`` of huggingface_hub, or rerank as TEI does here."""
        async with self._bodies.json_of(request) as content:
            if isinstance(content, Mapping) and "inputs" not in content:
                asked = tei_request(parse(TeiBody, content))
                return Json(tei_answer(asked, (await self._scores(request, asked))[1]))
            compared = parse(SimilarityBody, content).inputs
            pairs = [(compared.source_sentence, text) for text in compared.sentences]
            found = await self._score(request, self._models.find(None), pairs)
            return Json(found.scores.tolist())

    async def _scores(
        self, request: Request, asked: RerankRequest
    ) -> tuple[ServedModel, PairScores]:
        model = self._models.find(asked.model)
        most = asked.max_tokens_per_doc
        if most is not None and not model.reads_all and most >= model.encoder.max_length:
            most = None
        pairs = [(asked.query, text) for text in asked.texts]
        found = await self._score(request, model, pairs, most)
        if not asked.truncate and found.truncated.any():
            rows = np.flatnonzero(found.truncated)
            raise HttpError(
                413,
                f"{len(rows)} of the texts are longer than the model reads, the first at index "
                f"{rows[0]}: with the query, at most {model.encoder.max_length} tokens. Leave out "
                "truncate=false, or send shorter texts.",
            )
        return model, found

    async def _score(
        self,
        request: Request,
        model: ServedModel,
        pairs: Sequence[tuple[str, str]],
        document_tokens: int | None = None,
    ) -> PairScores:
        note(request, model=model.name, documents=len(pairs))
        documents, most = len(pairs), self._settings.max_documents
        if documents > most:
            raise HttpError(
                422,
                f"The request has {documents:,} documents; this server takes {most:,} per request "
                "(max_documents). Send several requests.",
            )
        deadline = deadline_of(request, self._settings)
        if not pairs:
            return model.encoder.score_pairs([])
        work = score(model, pairs, deadline, self._metrics, document_tokens)
        found = await unless_gone(request, work)
        note(request, tokens=found.tokens)
        return found
