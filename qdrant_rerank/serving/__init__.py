"""Reranking over HTTP, in the shapes that existing clients send.

``create_app(settings)`` makes the ASGI application; ``qdrant-rerank serve`` runs it. It needs
``pip install "qdrant-rerank[serve]"``.

::

    settings           what the server does
    keys               who may ask
    wire               what clients send, checked
    answers            what they get
    answer_schemas     the same, as OpenAPI describes it
    scheduler          requests take turns at one model
    models             the models of the server
    collections        its collections
    qdrant_refusals    whose mistake it was that Qdrant refused
    http_errors        errors as answers
    limits             reads bodies, within limits
    metrics            counts, for Prometheus
    scoring            the scores of a request, unless its client hangs up
    rerank_routes      the calls that rerank
    search_routes      the calls that search
    operation_routes   the calls that tell how the server is
    openapi, pages     the description of all calls, and pages for people
    front              keys, log and metrics of every request
    app                puts these together
    json_logs          logs as lines of JSON
    reload             replaces the application between requests
    protocol           gives up clients that are too slow
    run                listens
"""

from qdrant_rerank.errors import MissingDependencyError

try:
    from qdrant_rerank.serving.app import create_app
except ModuleNotFoundError as error:
    if (error.name or "").startswith("qdrant_rerank"):
        raise
    raise MissingDependencyError(
        f"The server needs {error.name}, which is not installed. Run: "
        'pip install "qdrant-rerank[serve]"'
    ) from error
from qdrant_rerank.serving.settings import ServeSettings

__all__ = ["ServeSettings", "create_app"]
