"""The calls as OpenAPI describes them, from the models that check their bodies."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from qdrant_rerank._version import __version__
from qdrant_rerank.serving.answer_schemas import ANSWERS, ERROR
from qdrant_rerank.serving.front import OPEN_PATHS
from qdrant_rerank.serving.search_routes import GroupsBody, SearchBody
from qdrant_rerank.serving.wire import CohereBody, ScoreBody, SimilarityBody, TeiBody

__all__ = ["description"]

# path, summary, bodies, names of answers
POSTS: tuple[tuple[str, str, tuple[type[BaseModel], ...], tuple[str, ...]], ...] = (
    (
        "/",
        "Scores of texts for huggingface_hub's InferenceClient.",
        (SimilarityBody, TeiBody),
        ("Scores", "TeiAnswer"),
    ),
    (
        "/rerank",
        "Rerank as TEI (texts), or as Jina (documents).",
        (TeiBody, CohereBody),
        ("TeiAnswer", "JinaAnswer"),
    ),
    (
        "/v1/rerank",
        "Rerank as Jina, vLLM, Infinity and Cohere's v1.",
        (TeiBody, CohereBody),
        ("TeiAnswer", "JinaAnswer"),
    ),
    ("/v2/rerank", "Rerank as Cohere.", (CohereBody,), ("CohereAnswer",)),
    (
        "/infinity/rerank",
        "Rerank as Infinity, whose documents are texts.",
        (CohereBody,),
        ("JinaAnswer",),
    ),
    ("/score", "Scores of pairs, as vLLM.", (ScoreBody,), ("ScoreAnswer",)),
    ("/v1/score", "Scores of pairs, as vLLM.", (ScoreBody,), ("ScoreAnswer",)),
    ("/v1/search", "Search a collection, and rerank the hits.", (SearchBody,), ("Points",)),
    ("/v1/search/groups", "Search, and return the hits in groups.", (GroupsBody,), ("Groups",)),
)
PAGE = "/"
GETS = (
    (PAGE, "A page to try the server.", ""),
    ("/health", "Whether the process is alive.", "Status"),
    ("/ready", "Whether requests can be answered.", "Status"),
    ("/info", "The models and the limits.", "Info"),
    ("/v1/models", "The models, as OpenAI lists them.", "ModelList"),
    ("/metrics", "Metrics for Prometheus.", ""),
)
FAILURES = {
    "400": "The body is not JSON.",
    "401": "The key is missing or wrong.",
    "404": "There is no such model or collection here.",
    "408": "The body came too slowly.",
    "413": "The body, or with truncate=false a text, is too long.",
    "415": "The body is compressed.",
    "422": "The body is not what the call takes, or has too many documents.",
    "429": "Too much work waits; Retry-After says for how long.",
    "502": "Qdrant cannot be reached, or refused.",
    "504": "The time was up.",
}


def description() -> dict[str, Any]:
    """Return the OpenAPI description of all calls."""
    kinds = {body for _, _, bodies, _ in POSTS for body in bodies}
    ordered = sorted(kinds, key=lambda body: body.__name__)
    references, schemas = models_json_schema(
        [(body, "validation") for body in ordered], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, Any] = {}
    for path, summary, bodies, answers in POSTS:
        wanted = [references[body, "validation"] for body in bodies]
        schema = wanted[0] if len(wanted) == 1 else {"anyOf": wanted}
        paths[path] = {
            "post": {
                "summary": summary,
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": schema}},
                },
                "responses": {"200": _json("The answer.", _one_of(answers)), **_failures()},
            }
        }
    for path, summary, answer in GETS:
        content: dict[str, Any] = {"text/html" if path == PAGE else "text/plain": {}}
        if answer:
            content = {"application/json": {"schema": _one_of((answer,))}}
        paths.setdefault(path, {})["get"] = {
            "summary": summary,
            "responses": {
                "200": {"description": "The answer.", "content": content},
                **({} if path in OPEN_PATHS else {"401": _failure(FAILURES["401"])}),
                **({"503": _failure("Not now.")} if path == "/ready" else {}),
            },
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "qdrant-rerank", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**schemas["$defs"], **ANSWERS, "Error": ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _one_of(answers: tuple[str, ...]) -> dict[str, Any]:
    named = [{"$ref": f"#/components/schemas/{name}"} for name in answers]
    return named[0] if len(named) == 1 else {"anyOf": named}


def _failures() -> dict[str, Any]:
    return {status: _failure(about) for status, about in FAILURES.items()}


def _failure(about: str) -> dict[str, Any]:
    return _json(about, {"$ref": "#/components/schemas/Error"})


def _json(about: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": schema}}}
