"""The embedded engine behind the REST endpoints that a searcher uses, on a loopback socket.

No Qdrant server: it keeps the limits of the engine, local mode unless it is given another. What it
is for: clients that talk HTTP, sync and async, with real sockets in between, and faults on them.
The same over gRPC is in :mod:`tests.loopback_grpc`.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel, TypeAdapter
from qdrant_client import QdrantClient, models

from qdrant_rerank.errors import QdrantRerankError
from tests.fault_server import Answer, answer, serving

Body = dict[str, Any]
#: Called with a request's method and path once it was done; what it returns, if anything, is
#: answered instead, so that a write may have happened whose answer is lost.
Sabotage = Callable[[str, str], Answer | None]
#: What the server says that it is.
VERSION = "1.20.0"
LARGEST_BODY = 32 * 2**20  # bytes of a request, as of a server that is not set otherwise
# What the embedded engine's methods call the fields of a request.
RENAMED = {
    "filter": "query_filter",
    "params": "search_params",
    "with_vector": "with_vectors",
    "vectors": "vectors_config",
    "sparse_vectors": "sparse_vectors_config",
}
UPDATE = models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)
SELECTOR: TypeAdapter[Any] = TypeAdapter(models.PointsSelector)
GONE = re.compile(r"has no collection '(.+?)'|Collection (.+) not found")
NO_POINT = re.compile(r"Point (\S+) is not found|no point (\S+)")


def require_known(given: Iterable[str], known: set[str]) -> None:
    """Raise ValueError for a field that would be ignored: a double that ignores it proves nothing.

    Shards of an embedded engine are one, so a shard key may be in ``known`` without being used.
    """
    ignored = set(given) - known
    if ignored:
        raise ValueError(f"the loopback server does not know {', '.join(sorted(ignored))}")


def _selected(body: Body) -> Any:
    """The points that a write is about."""
    return SELECTOR.validate_python({k: body[k] for k in ("points", "filter") if k in body})


def _conditions(request: Any) -> dict[str, Any]:
    """Which points a write may change, as the engine's methods take it."""
    names = ("update_filter", "update_mode")
    found = {name: getattr(request, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def refusal(error: Exception) -> tuple[int, str]:
    """The HTTP status and the words with which a server refuses what the engine refused."""
    said = str(error)
    if gone := GONE.search(said):
        return 404, f"Not found: Collection `{gone[1] or gone[2]}` doesn't exist!"
    if no_point := NO_POINT.search(said):
        return 404, f"Not found: No point with id {no_point[1] or no_point[2]} found"
    return 400, f"Wrong input: {said}"


class LoopbackQdrant:
    """Answers requests from an embedded engine, one at a time.

    Args:
        client: the engine.
        sabotage: puts faults in place of answers; None for none.
        key: that each request has to bring; None for none.
    """

    def __init__(
        self, client: QdrantClient, sabotage: Sabotage | None = None, key: str | None = None
    ) -> None:
        self.client = client
        self.sabotage = sabotage
        self.key = key
        self.lock = threading.Lock()

    def __call__(self, handler: Any) -> None:
        """Answer one request."""
        method, path = handler.command, handler.path.partition("?")[0]
        if path == "/":  # the one that is not wrapped
            version = {"title": "a loopback Qdrant", "version": VERSION}
            answer(200, json.dumps(version).encode())(handler)
            return
        if self.key is not None and handler.headers.get("api-key") != self.key:
            answer(401, b"Invalid API key or JWT")(handler)
            return
        if len(handler.body) > LARGEST_BODY:
            words = f"JSON payload ({len(handler.body)} bytes) is larger than allowed (limit: "
            body = json.dumps({"status": {"error": f"{words}{LARGEST_BODY} bytes)."}, "time": 0.0})
            answer(400, body.encode())(handler)
            return
        try:
            with self.lock:
                result = self._result(method, path, json.loads(handler.body or b"{}"))
        except (ValueError, TypeError, QdrantRerankError) as error:
            status, words = refusal(error)
            body = json.dumps({"status": {"error": words}, "time": 0.0})
            said = answer(status, body.encode())
        else:
            body = json.dumps({"result": _plain(result), "status": "ok", "time": 0.0})
            said = answer(200, body.encode(), Content_Type="application/json")
        fault = None if self.sabotage is None else self.sabotage(method, path)
        (fault or said)(handler)

    def _result(self, method: str, path: str, body: Body) -> Any:
        client = self.client
        match method, path:
            case "GET", "/collections":
                return client.get_collections()
            case "GET", "/aliases":
                return client.get_aliases()
            case "POST", "/collections/aliases":
                changes = models.ChangeAliasesOperation.model_validate(body)
                return client.update_collection_aliases(changes.actions)
        found = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
        if found is None:
            raise ValueError(f"no endpoint {path}")
        name, rest = unquote(found[1]), found[2]
        match method, rest:
            case "PUT", None:
                return client.create_collection(
                    name, **_given(models.CreateCollection.model_validate(body))
                )
            case "DELETE", None:
                return client.delete_collection(name)
            case "GET", "/exists":
                return {"exists": client.collection_exists(name)}
        if not client.collection_exists(name):
            raise ValueError(f"Collection {name} not found")
        match method, rest:
            case "GET", None:
                return client.get_collection(name)
            case "GET", "/aliases":
                return client.get_collection_aliases(name)
            case "PATCH", None:
                require_known(body, {"metadata", "sparse_vectors"})
                changed = models.UpdateCollection.model_validate(body)
                return client.update_collection(name, **_given(changed))
        return self._points(method, name, rest, body)

    def _points(self, method: str, name: str, rest: str, body: Body) -> Any:
        client = self.client
        match method, rest:
            case "PUT", "/index":
                made = models.CreateFieldIndex.model_validate(body)
                return client.create_payload_index(name, made.field_name, made.field_schema)
            case "PUT", "/points":
                require_known(body, {"points", "update_filter", "update_mode"})
                given = models.PointsList.model_validate(body)
                client.upsert(name, given.points, **_conditions(given))
                return UPDATE
            case "PUT", "/points/vectors":
                require_known(body, {"points", "update_filter"})
                moved = models.UpdateVectors.model_validate(body)
                client.update_vectors(name, moved.points, **_conditions(moved))
                return UPDATE
            case "POST", "/points/vectors/delete":
                require_known(body, {"points", "filter", "vector"})
                client.delete_vectors(name, body["vector"], _selected(body))
                return UPDATE
            case "POST" | "PUT", "/points/payload":
                require_known(body, {"points", "filter", "payload", "key"})
                write = client.set_payload if method == "POST" else client.overwrite_payload
                at = {"key": body["key"]} if "key" in body else {}
                write(name, body["payload"], _selected(body), **at)
                return UPDATE
            case "POST", "/points/payload/delete":
                require_known(body, {"points", "filter", "keys"})
                client.delete_payload(name, body["keys"], _selected(body))
                return UPDATE
            case "POST", "/points/payload/clear":
                client.clear_payload(name, SELECTOR.validate_python(body))
                return UPDATE
            case "POST", "/points/batch":
                operations = models.UpdateOperations.model_validate(body).operations
                client.batch_update_points(name, operations)
                return [UPDATE] * len(operations)
            case "POST", "/facet":
                require_known(body, {"key", "filter", "limit", "exact"})
                faceted = models.FacetRequest.model_validate(body)
                return client.facet(
                    name,
                    faceted.key,
                    faceted.filter,
                    limit=faceted.limit or 10,
                    exact=faceted.exact or False,
                )
            case "POST", "/points":
                require_known(body, {"ids", "with_payload", "with_vector", "shard_key"})
                wanted = models.PointRequest.model_validate(body)
                return client.retrieve(
                    name,
                    wanted.ids,
                    with_payload=True if wanted.with_payload is None else wanted.with_payload,
                    with_vectors=wanted.with_vector or False,
                )
            case "POST", "/points/delete":
                client.delete(name, SELECTOR.validate_python(body))
                return UPDATE
            case "POST", "/points/scroll":
                known = {"filter", "limit", "order_by", "offset", "with_payload", "with_vector"}
                require_known(body, known)
                scrolled = models.ScrollRequest.model_validate(body)
                records, after = client.scroll(
                    name,
                    scrolled.filter,
                    limit=scrolled.limit or 10,
                    order_by=scrolled.order_by,
                    offset=scrolled.offset,
                    with_payload=scrolled.with_payload or False,
                    with_vectors=scrolled.with_vector or False,
                )
                return models.ScrollResult(points=records, next_page_offset=after)
            case "POST", "/points/count":
                require_known(body, {"filter", "exact"})
                return client.count(name, models.CountRequest.model_validate(body).filter)
            case "POST", "/points/query":
                return client.query_batch_points(name, [models.QueryRequest.model_validate(body)])[
                    0
                ]
            case "POST", "/points/query/batch":
                batch = models.QueryRequestBatch.model_validate(body)
                return client.query_batch_points(name, batch.searches)
            case "POST", "/points/query/groups":
                return client.query_points_groups(
                    name, **_given(models.QueryGroupsRequest.model_validate(body))
                )
        raise ValueError(f"no endpoint {method} {rest}")


@contextmanager
def loopback_qdrant(
    sabotage: Sabotage | None = None,
    *,
    client: QdrantClient | None = None,
    port: int = 0,
    key: str | None = None,
) -> Iterator[tuple[str, LoopbackQdrant]]:
    """The URL of an engine behind a socket, and the engine.

    Args:
        sabotage: puts faults in place of answers; None for none.
        client: the engine; None for an empty one in local mode, closed in the end.
        port: 0 for any that is free.
        key: that each request has to bring; None for none.
    """
    engine = client or QdrantClient(location=":memory:")
    qdrant = LoopbackQdrant(engine, sabotage, key)
    try:
        with serving(qdrant, port) as url:
            yield url, qdrant
    finally:
        if client is None:
            engine.close()


def _given(request: BaseModel) -> dict[str, Any]:
    """The fields of a request that were sent, as the engine's methods call them."""
    return {RENAMED.get(name, name): getattr(request, name) for name in request.model_fields_set}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    return [_plain(item) for item in value] if isinstance(value, list) else value
