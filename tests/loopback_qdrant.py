"""The embedded engine behind the REST endpoints that a searcher uses, on a loopback socket.

No Qdrant server: it keeps local mode's limits. What it is for: clients that talk HTTP, sync and
async, with real sockets in between, and faults on them.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, TypeAdapter
from qdrant_client import QdrantClient, models

from tests.fault_server import Answer, answer, serving

Body = dict[str, Any]
#: Called with a request's method and path once it was done; what it returns, if anything, is
#: answered instead, so that a write may have happened whose answer is lost.
Sabotage = Callable[[str, str], Answer | None]
# What the embedded engine's methods call the fields of a request.
RENAMED = {"filter": "query_filter", "params": "search_params", "with_vector": "with_vectors"}
UPDATE = models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)
POINTS: TypeAdapter[list[models.PointStruct]] = TypeAdapter(list[models.PointStruct])


class LoopbackQdrant:
    """Answers requests from an embedded engine, one at a time.

    Args:
        client: the engine.
        sabotage: puts faults in place of answers; None for none.
    """

    def __init__(self, client: QdrantClient, sabotage: Sabotage | None = None) -> None:
        self.client = client
        self.sabotage = sabotage
        self.lock = threading.Lock()

    def __call__(self, handler: Any) -> None:
        """Answer one request."""
        method, path = handler.command, handler.path.partition("?")[0]
        try:
            with self.lock:
                result = self._result(method, path, json.loads(handler.body or b"{}"))
        except KeyError as error:
            said = _refusal(404, f"Not found: Collection `{error.args[0]}` doesn't exist!")
        except (ValueError, TypeError) as error:
            said = _refusal(400, str(error))
        else:
            body = json.dumps({"result": _plain(result), "status": "ok", "time": 0.0})
            said = answer(200, body.encode(), Content_Type="application/json")
        fault = None if self.sabotage is None else self.sabotage(method, path)
        (fault or said)(handler)

    def _result(self, method: str, path: str, body: Body) -> Any:
        if path == "/collections":
            return self.client.get_collections()
        found = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
        if found is None:
            raise ValueError(f"no endpoint {path}")
        name, rest = found.groups()
        if (method, rest) == ("PUT", None):
            given = models.CreateCollection.model_validate(body)
            return self.client.create_collection(
                name,
                vectors_config=given.vectors,
                sparse_vectors_config=given.sparse_vectors,
                metadata=given.metadata,
            )
        if not self.client.collection_exists(name):
            raise KeyError(name)
        if rest is None:
            return self.client.get_collection(name)
        return self._points(method, name, rest, body)

    def _points(self, method: str, name: str, rest: str, body: Body) -> Any:
        client = self.client
        match method, rest:
            case "PUT", "/points":
                client.upsert(name, POINTS.validate_python(body["points"]))
                return UPDATE
            case "POST", "/points":
                wanted = models.PointRequest.model_validate(body)
                return client.retrieve(
                    name,
                    wanted.ids,
                    with_payload=True if wanted.with_payload is None else wanted.with_payload,
                    with_vectors=wanted.with_vector or False,
                )
            case "POST", "/points/delete":
                client.delete(name, models.PointIdsList.model_validate(body))
                return UPDATE
            case "POST", "/points/query":
                return client.query_batch_points(name, [models.QueryRequest.model_validate(body)])[
                    0
                ]
            case "POST", "/points/query/batch":
                batch = models.QueryRequestBatch.model_validate(body)
                return client.query_batch_points(name, batch.searches)
            case "POST", "/points/query/groups":
                groups = models.QueryGroupsRequest.model_validate(body)
                given = {field: getattr(groups, field) for field in groups.model_fields_set}
                return client.query_points_groups(
                    name, **{RENAMED.get(field, field): value for field, value in given.items()}
                )
        raise ValueError(f"no endpoint {method} {rest}")


@contextmanager
def loopback_qdrant(sabotage: Sabotage | None = None) -> Iterator[tuple[str, LoopbackQdrant]]:
    """The URL of an empty engine behind a socket, and the engine."""
    client = QdrantClient(location=":memory:")
    qdrant = LoopbackQdrant(client, sabotage)
    try:
        with serving(qdrant) as url:
            yield url, qdrant
    finally:
        client.close()


def _refusal(status: int, said: str) -> Answer:
    return answer(status, json.dumps({"status": {"error": said}, "time": 0.0}).encode())


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    return [_plain(item) for item in value] if isinstance(value, list) else value
