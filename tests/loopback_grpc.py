"""An embedded engine behind Qdrant's gRPC services, on a loopback socket.

The services are those that qdrant-client ships, and its own converters read requests and write
answers, so what a client sends and reads is what it would with a Qdrant server. REST on the other
port is in :mod:`tests.loopback_qdrant`; ``python -m tests.loopback_grpc`` serves both until it is
interrupted, for ``make server-test``.
"""

import argparse
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

import grpc
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as pb
from qdrant_client.conversions.conversion import (
    GrpcToRest,
    RestToGrpc,
    grpc_field_type_to_payload_schema,
    grpc_to_payload,
)

from qdrant_rerank.errors import QdrantRerankError
from tests.loopback_qdrant import VERSION, loopback_qdrant, refusal, require_known
from tests.releases import CLIENT

Context = grpc.ServicerContext
CALLERS = 8  # at a time
# Of every collection of a server; an embedded engine has none.
WAL = models.WalConfig(wal_capacity_mb=32, wal_segments_ahead=0)
CODES = {400: grpc.StatusCode.INVALID_ARGUMENT, 404: grpc.StatusCode.NOT_FOUND}


class Asked:
    """One engine, one call at a time, whose refusals become those of a Qdrant server.

    Args:
        client: the engine.
        lock: held by each call.
        key: that each call has to bring; None for none.
    """

    def __init__(
        self, client: QdrantClient, lock: AbstractContextManager[Any], key: str | None
    ) -> None:
        self.client = client
        self._lock = lock
        self._key = key

    @contextmanager
    def call(self, context: Context) -> Iterator[QdrantClient]:
        """The engine, for the length of one call."""
        if self._key is not None and ("api-key", self._key) not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Invalid API key or JWT")
        try:
            with self._lock:
                yield self.client
        except (ValueError, TypeError, QdrantRerankError) as error:
            status, words = refusal(error)
            context.abort(CODES[status], words)


class Points(pb.PointsServicer):
    """Reads and writes points."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def Upsert(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            known = {"update_filter": GrpcToRest.convert_filter}
            if CLIENT >= (1, 17):
                known["update_mode"] = GrpcToRest.convert_update_mode
            _require_known(request, "points", *known)
            points = [GrpcToRest.convert_point_struct(point) for point in request.points]
            conditions = {name: _given(request, name, read) for name, read in known.items()}
            given = {name: value for name, value in conditions.items() if value is not None}
            return _updated(client.upsert(request.collection_name, points, **given))

    def Delete(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            _require_known(request, "points")
            selector = GrpcToRest.convert_points_selector(request.points)
            return _updated(client.delete(request.collection_name, selector))

    def SetPayload(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            _require_known(request, "payload", "points_selector", "key")
            changed = client.set_payload(
                request.collection_name,
                grpc_to_payload(request.payload),
                GrpcToRest.convert_points_selector(request.points_selector),
                key=_given(request, "key"),
            )
            return _updated(changed)

    def DeletePayload(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            _require_known(request, "keys", "points_selector")
            selector = GrpcToRest.convert_points_selector(request.points_selector)
            keys = list(request.keys)
            return _updated(client.delete_payload(request.collection_name, keys, selector))

    def Get(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            records = client.retrieve(
                request.collection_name,
                [GrpcToRest.convert_point_id(one) for one in request.ids],
                **_selectors(request),
            )
            return pb.GetResponse(result=_records(records))

    def Scroll(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            records, after = client.scroll(
                request.collection_name,
                scroll_filter=_given(request, "filter", GrpcToRest.convert_filter),
                limit=_given(request, "limit") or 10,
                offset=_given(request, "offset", GrpcToRest.convert_point_id),
                order_by=_given(request, "order_by", GrpcToRest.convert_order_by),
                **_selectors(request),
            )
            return pb.ScrollResponse(
                result=_records(records),
                next_page_offset=None
                if after is None
                else RestToGrpc.convert_extended_point_id(after),
            )

    def Count(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            passing = _given(request, "filter", GrpcToRest.convert_filter)
            _require_known(request, "filter", "exact")
            found = client.count(request.collection_name, passing)
            return pb.CountResponse(result=RestToGrpc.convert_count_result(found))

    def Query(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            [answer] = client.query_batch_points(
                request.collection_name, [GrpcToRest.convert_query_points(request)]
            )
            return pb.QueryResponse(result=_hits(answer))

    def QueryBatch(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            wanted = [GrpcToRest.convert_query_points(one) for one in request.query_points]
            answers = client.query_batch_points(request.collection_name, wanted)
            return pb.QueryBatchResponse(
                result=[pb.BatchResult(result=_hits(answer)) for answer in answers]
            )

    def QueryGroups(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            shared = pb.QueryPoints.DESCRIPTOR.fields_by_name
            given = {field.name: value for field, value in request.ListFields()}
            query = GrpcToRest.convert_query_points(
                pb.QueryPoints(**{name: given[name] for name in given if name in shared})
            )
            groups = client.query_points_groups(
                request.collection_name,
                group_by=request.group_by,
                group_size=_given(request, "group_size") or 3,
                limit=query.limit or 10,
                query=query.query,
                using=query.using,
                prefetch=query.prefetch,
                query_filter=query.filter,
                search_params=query.params,
                score_threshold=query.score_threshold,
                lookup_from=query.lookup_from,
                with_lookup=_given(request, "with_lookup", GrpcToRest.convert_with_lookup),
                **_selectors(request),
            )
            return pb.QueryGroupsResponse(result=RestToGrpc.convert_groups_result(groups))

    def CreateFieldIndex(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            if request.field_index_params.WhichOneof("index_params"):
                schema = GrpcToRest.convert_payload_schema_params(request.field_index_params)
            else:
                kind = grpc_field_type_to_payload_schema(request.field_type)
                schema = GrpcToRest.convert_payload_schema_type(kind)
            made = client.create_payload_index(request.collection_name, request.field_name, schema)
            return _updated(made)

    def DeleteFieldIndex(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            return _updated(
                client.delete_payload_index(request.collection_name, request.field_name)
            )


class Collections(pb.CollectionsServicer):
    """Makes, describes and removes collections and aliases."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def Get(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            found = client.get_collection(request.collection_name)
            found.config.wal_config = found.config.wal_config or WAL
            return pb.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(found))

    def List(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            found = client.get_collections().collections
            return pb.ListCollectionsResponse(
                collections=[RestToGrpc.convert_collection_description(one) for one in found]
            )

    def CollectionExists(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            exists = client.collection_exists(request.collection_name)
            return pb.CollectionExistsResponse(result=pb.CollectionExists(exists=exists))

    def Create(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            settings = {
                "vectors_config": GrpcToRest.convert_vectors_config,
                "sparse_vectors_config": GrpcToRest.convert_sparse_vector_config,
                "hnsw_config": GrpcToRest.convert_hnsw_config_diff,
                "optimizers_config": GrpcToRest.convert_optimizers_config_diff,
                "quantization_config": GrpcToRest.convert_quantization_config,
            }
            made = client.create_collection(
                request.collection_name,
                on_disk_payload=_given(request, "on_disk_payload"),
                metadata=grpc_to_payload(request.metadata) or None,
                **{name: _given(request, name, read) for name, read in settings.items()},
            )
            return pb.CollectionOperationResponse(result=made)

    def Update(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            _require_known(request, "metadata", "sparse_vectors_config")
            read = GrpcToRest.convert_sparse_vector_config
            done = client.update_collection(
                request.collection_name,
                sparse_vectors_config=_given(request, "sparse_vectors_config", read),
                metadata=grpc_to_payload(request.metadata),
            )
            return pb.CollectionOperationResponse(result=done)

    def Delete(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            done = client.delete_collection(request.collection_name)
            return pb.CollectionOperationResponse(result=done)

    def UpdateAliases(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            changes = [GrpcToRest.convert_alias_operations(one) for one in request.actions]
            done = client.update_collection_aliases(changes)
            return pb.CollectionOperationResponse(result=done)

    def ListAliases(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            return _aliases(client.get_aliases())

    def ListCollectionAliases(self, request: Any, context: Context) -> Any:
        with self._asked.call(context) as client:
            return _aliases(client.get_collection_aliases(request.collection_name))


class Root(pb.QdrantServicer):
    """Says which server this is."""

    def HealthCheck(self, request: Any, context: Context) -> Any:
        return pb.HealthCheckReply(title="a loopback Qdrant", version=VERSION)


@contextmanager
def loopback_grpc(
    client: QdrantClient,
    lock: AbstractContextManager[Any] | None = None,
    *,
    port: int = 0,
    key: str | None = None,
) -> Iterator[int]:
    """The port of a gRPC server in front of an engine.

    Args:
        client: the engine.
        lock: held by each call, where others call the engine too.
        port: 0 for any that is free.
        key: that each call has to bring; None for none.
    """
    asked = Asked(client, lock or threading.Lock(), key)
    with ThreadPoolExecutor(CALLERS) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        pb.add_PointsServicer_to_server(Points(asked), server)
        pb.add_CollectionsServicer_to_server(Collections(asked), server)
        pb.add_QdrantServicer_to_server(Root(), server)
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        try:
            yield bound
        finally:
            server.stop(None).wait()


@contextmanager
def loopback_server(
    client: QdrantClient, *, port: int = 0, grpc_port: int = 0, key: str | None = None
) -> Iterator[tuple[str, int]]:
    """URL and gRPC port of both servers, in front of one engine."""
    with (
        loopback_qdrant(client=client, port=port, key=key) as (url, qdrant),
        loopback_grpc(client, qdrant.lock, port=grpc_port, key=key) as bound,
    ):
        yield url, bound


def _given(message: Any, name: str, read: Any = lambda value: value) -> Any:
    """A field as ``read`` makes it, or None if the client did not send it."""
    return read(getattr(message, name)) if message.HasField(name) else None


def _require_known(message: Any, *known: str) -> None:
    """Refuse a field that would be ignored; waiting and ordering make no difference here."""
    fields = {field.name for field, _ in message.ListFields()}
    require_known(fields, {"collection_name", "wait", "ordering", "timeout", *known})


def _selectors(message: Any) -> dict[str, Any]:
    """What comes along: nothing but ids where the client did not say, as with a server."""
    payload = _given(message, "with_payload", GrpcToRest.convert_with_payload_selector)
    vectors = _given(message, "with_vectors", GrpcToRest.convert_with_vectors_selector)
    return {"with_payload": payload or False, "with_vectors": vectors or False}


def _records(found: Iterable[models.Record]) -> list[Any]:
    # The converter reads a payload without looking.
    return [
        RestToGrpc.convert_record(one.model_copy(update={"payload": one.payload or {}}))
        for one in found
    ]


def _hits(answer: Any) -> list[Any]:
    return [RestToGrpc.convert_scored_point(hit) for hit in answer.points]


def _updated(result: Any) -> Any:
    # Local mode has no result for an index, which it has no use for.
    status = models.UpdateStatus.COMPLETED
    result = result or models.UpdateResult(operation_id=0, status=status)
    return pb.PointsOperationResponse(result=RestToGrpc.convert_update_result(result))


def _aliases(found: models.CollectionsAliasesResponse) -> Any:
    return pb.ListAliasesResponse(
        aliases=[RestToGrpc.convert_alias_description(one) for one in found.aliases]
    )


def main() -> None:
    """Serve the real engine over REST and gRPC until interrupted."""
    from qdrant_rerank.qdrant.embedded.client import EdgeClient  # where its wheel is

    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--port", type=int, default=6333, help="of REST; gRPC has the next one")
    parser.add_argument("--key", help="that callers have to bring")
    given = parser.parse_args()
    ended = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ended)  # of every thread from here on
    with (
        closing(EdgeClient()) as client,
        loopback_server(client, port=given.port, grpc_port=given.port + 1, key=given.key) as (
            url,
            grpc_port,
        ),
    ):
        print(f"QDRANT_URL={url} (gRPC: {grpc_port})", flush=True)  # noqa: T201 - what it is for
        signal.sigwait(ended)


if __name__ == "__main__":
    main()
