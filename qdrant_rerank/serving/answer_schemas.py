"""The answers of the calls, as OpenAPI describes them."""

from typing import Any

__all__ = ["ANSWERS", "ERROR"]

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
ANYTHING: Schema = {}


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """Describe an object; further fields may be there."""
    return {
        "type": "object",
        "required": list(required),
        "properties": required | (optional or {}),
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(kind: str) -> Schema:
    return {"type": [kind, "null"]}


ERROR = _object(
    {
        "error": {"type": "string", "description": "What was seen, and what was expected."},
        "error_type": TEXT,
        "message": TEXT,
        "detail": TEXT,
    }
)
USAGE = _object({"prompt_tokens": COUNT, "total_tokens": COUNT, "completion_tokens": COUNT})
RESULTS = _list(
    _object(
        {"index": COUNT, "relevance_score": NUMBER}, {"document": {"type": ["object", "string"]}}
    )
)
META = _object({"api_version": _object({"version": TEXT}), "billed_units": {"type": "object"}})
POINT = _object(
    {
        "id": {"type": ["integer", "string"]},
        "retrieval_score": NUMBER,
        "retrieval_rank": COUNT,
        "rerank_score": _or_null("number"),
        "payload": _or_null("object"),
    }
)
TRACE = _object({"status": TEXT, "pairs": COUNT, "recall_s": NUMBER})
ANSWERS: dict[str, Schema] = {
    "Scores": _list(NUMBER),
    "TeiAnswer": _list(_object({"index": COUNT, "score": NUMBER}, {"text": TEXT})),
    "JinaAnswer": _object(
        {
            "id": TEXT,
            "object": {"const": "rerank"},
            "created": COUNT,
            "model": TEXT,
            "usage": USAGE,
            "results": RESULTS,
            "meta": META,
        }
    ),
    "CohereAnswer": _object({"id": TEXT, "results": RESULTS, "meta": META}),
    "ScoreAnswer": _object(
        {
            "id": TEXT,
            "object": {"const": "list"},
            "created": COUNT,
            "model": TEXT,
            "data": _list(_object({"index": COUNT, "object": {"const": "score"}, "score": NUMBER})),
            "usage": USAGE,
        }
    ),
    "Points": _object({"collection": TEXT, "points": _list(POINT), "trace": TRACE}),
    "Groups": _object(
        {
            "collection": TEXT,
            "groups": _list(_object({"id": ANYTHING, "hits": _list(POINT)})),
            "trace": TRACE,
        }
    ),
    "Status": _object({"status": {"enum": ["ok", "ready"]}}),
    "Info": _object(
        {
            "model_id": TEXT,
            "model_dtype": TEXT,
            "max_input_length": COUNT,
            "max_client_batch_size": COUNT,
            "version": TEXT,
            "models": _list(_object({"name": TEXT, "precision": TEXT, "max_length": COUNT})),
            "collections": _list(TEXT),
            "limits": {"type": "object", "additionalProperties": NUMBER},
        }
    ),
    "ModelList": _object(
        {
            "object": {"const": "list"},
            "data": _list(_object({"id": TEXT, "object": {"const": "model"}, "created": COUNT})),
        }
    ),
}
