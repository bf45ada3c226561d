"""What clients get: the answers of the calls, in the shapes that they parse."""

import time
import uuid
from typing import Any

import numpy as np

from qdrant_rerank.cross_encoder.pair_scores import PairScores
from qdrant_rerank.serving.wire import RerankRequest

__all__ = [
    "cohere_answer",
    "infinity_answer",
    "jina_answer",
    "order_of",
    "score_answer",
    "tei_answer",
]


def tei_answer(request: RerankRequest, found: PairScores) -> list[dict[str, Any]]:
    """Answer as text-embeddings-inference does."""
    answer = []
    for row, score in order_of(request, found):
        one: dict[str, Any] = {"index": row, "score": score}
        if request.return_documents:
            one["text"] = request.texts[row]
        answer.append(one)
    return answer


def cohere_answer(request: RerankRequest, found: PairScores, version: str) -> dict[str, Any]:
    """Answer as Cohere does.

    Args:
        request: what was asked.
        found: the scores.
        version: of the API, "1" or "2".
    """
    results = _results(request, found, documents=bool(request.return_documents))
    return _cohere_fields(version) | {"results": results}


def infinity_answer(request: RerankRequest, found: PairScores, model: str) -> dict[str, Any]:
    """Answer as Infinity does: a document is its text, and comes if it is asked for."""
    results = _results(request, found, documents=False)
    if request.return_documents:
        for one in results:
            one["document"] = request.texts[one["index"]]
    return _jina_fields(found, model) | {"results": results}


def jina_answer(request: RerankRequest, found: PairScores, model: str) -> dict[str, Any]:
    """Answer as Jina and vLLM do; with the fields of Cohere's first version."""
    results = _results(request, found, documents=request.return_documents is not False)
    return _jina_fields(found, model) | {"results": results}


def score_answer(found: PairScores, model: str, *, raw: bool) -> dict[str, Any]:
    """Answer as vLLM's ``/score`` does: in the order of the pairs."""
    scores = found.logits if raw else found.scores
    return {
        "id": f"score-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [
            {"index": row, "object": "score", "score": score}
            for row, score in enumerate(scores.tolist())
        ],
        "usage": _usage(found),
    }


def order_of(request: RerankRequest, found: PairScores) -> list[tuple[int, float]]:
    """Return (index, score) of the documents to return, the best first.

    Equal scores are in the order of their logits, then of the documents.
    """
    scores = (found.logits if request.raw_scores else found.scores).tolist()
    rows = np.lexsort((-found.logits, -found.scores))[: request.top_n].tolist()
    return [(row, scores[row]) for row in rows]


def _cohere_fields(version: str) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "meta": {"api_version": {"version": version}, "billed_units": {"search_units": 0}},
    }


def _jina_fields(found: PairScores, model: str) -> dict[str, Any]:
    return {
        **_cohere_fields("1"),
        "object": "rerank",
        "created": int(time.time()),
        "model": model,
        "usage": _usage(found),
    }


def _results(request: RerankRequest, found: PairScores, *, documents: bool) -> list[dict[str, Any]]:
    results = []
    for row, score in order_of(request, found):
        one: dict[str, Any] = {"index": row, "relevance_score": score}
        if documents:
            sent = request.documents[row]
            one["document"] = {"text": sent} if isinstance(sent, str) else sent
        results.append(one)
    return results


def _usage(found: PairScores) -> dict[str, int]:
    return {"prompt_tokens": found.tokens, "total_tokens": found.tokens, "completion_tokens": 0}
