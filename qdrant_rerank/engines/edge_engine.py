"""qdrant-edge behind the interface that qdrant-client's own engines implement.

Here are the calls; :mod:`~qdrant_rerank.engines.edge_shards` has the collections, and the modules
beside it turn qdrant-client's models into the engine's and back. Calls that only make sense of a
server (snapshots, clusters, shard keys) raise NotImplementedError, as in qdrant-client's base.
"""

import importlib.metadata
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from pydantic_core import to_jsonable_python
from qdrant_client import models
from qdrant_client.client_base import QdrantBase
from qdrant_client.http.models import QueryResponse

from qdrant_rerank.engines.edge_config import edge_index, full_config, index_info
from qdrant_rerank.engines.edge_points import edge_id, edge_points, edge_vectors
from qdrant_rerank.engines.edge_query import edge_filter
from qdrant_rerank.engines.edge_search import EdgeSearch
from qdrant_rerank.engines.edge_shards import Shards
from qdrant_rerank.errors import QdrantRequestError

__all__ = ["EdgeEngine"]

UPLOAD_BATCH = 256
DONE = models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)
UPDATE_MODES = {
    None: None,
    models.UpdateMode.UPSERT: edge.UpdateMode.Upsert,
    models.UpdateMode.INSERT_ONLY: edge.UpdateMode.InsertOnly,
    models.UpdateMode.UPDATE_ONLY: edge.UpdateMode.UpdateOnly,
}


class EdgeEngine(QdrantBase):
    """The engine of an :class:`~qdrant_rerank.engines.edge.EdgeClient`.

    Arguments are those of ``QdrantClient``; timeouts, consistency and shard keys mean nothing here.

    Args:
        folder: of the collections.
        durable: whether every write is logged, to survive a crash.
    """

    def __init__(self, folder: Path, *, durable: bool) -> None:
        super().__init__()
        self._shards = Shards(folder, durable=durable)
        self._search = EdgeSearch(self._shards)

    def close(self, **kwargs: Any) -> None:
        """Write everything out and let others open the directory."""
        self._shards.close()

    def info(self) -> models.VersionInfo:
        """Which engine this is; the version is that of the client, whose calls it answers."""
        return models.VersionInfo(
            title=f"qdrant-edge-py {importlib.metadata.version('qdrant-edge-py')}",
            version=importlib.metadata.version("qdrant-client"),
            commit=None,
        )

    # --- collections

    def create_collection(
        self,
        collection_name: str,
        vectors_config: Any = None,
        sparse_vectors_config: Mapping[str, models.SparseVectorParams] | None = None,
        metadata: dict[str, Any] | None = None,
        hnsw_config: models.HnswConfigDiff | None = None,
        optimizers_config: models.OptimizersConfigDiff | None = None,
        quantization_config: models.QuantizationConfig | None = None,
        on_disk_payload: bool | None = None,
        payload: models.PayloadStorageParams | None = None,
        id_tracker: models.IdTrackerParams | None = None,
        **kwargs: Any,
    ) -> bool:
        """Make a collection; shards, replicas and strict mode are a server's and left out."""
        config = full_config(
            vectors_config,
            sparse_vectors_config,
            hnsw=hnsw_config,
            optimizers=optimizers_config,
            quantization=quantization_config,
            metadata=to_jsonable_python(metadata),
            params={
                "on_disk_payload": on_disk_payload,
                "payload": payload,
                "id_tracker": id_tracker,
            },
        )
        self._shards.create(collection_name, config)
        return True

    def delete_collection(self, collection_name: str, **kwargs: Any) -> bool:
        """Remove a collection and its aliases."""
        return self._shards.delete(collection_name)

    def collection_exists(self, collection_name: str, **kwargs: Any) -> bool:
        """Whether there is one of that name, or an alias."""
        listing = self._shards.listing
        return collection_name in listing.collections or collection_name in listing.aliases

    def get_collections(self, **kwargs: Any) -> models.CollectionsResponse:
        """All of them."""
        names = self._shards.listing.collections
        return models.CollectionsResponse(
            collections=[models.CollectionDescription(name=name) for name in names]
        )

    def get_collection(self, collection_name: str, **kwargs: Any) -> models.CollectionInfo:
        """Settings and sizes."""
        entry = self._shards.entry(collection_name)
        with self._shards.errors(collection_name):
            info = self._shards.shard(collection_name).info()
            points = {key: found.points for key, found in info.payload_schema.items()}
        return models.CollectionInfo(
            status=models.CollectionStatus.GREEN,
            optimizer_status=models.OptimizersStatusOneOf.OK,
            indexed_vectors_count=info.indexed_vectors_count,
            points_count=info.points_count,
            segments_count=info.segments_count,
            config=entry.config.model_copy(deep=True),
            payload_schema={
                key: found.model_copy(update={"points": points.get(key, 0)})
                for key, found in entry.indexes.items()
            },
        )

    def update_collection(
        self, collection_name: str, metadata: dict[str, Any] | None = None, **kwargs: Any
    ) -> bool:
        """Add to the metadata; other settings are fixed when a collection is made."""
        wrong = sorted(name for name, value in kwargs.items() if value is not None)
        if set(wrong) - {"timeout"}:
            raise QdrantRequestError(
                f"The embedded Qdrant cannot change {', '.join(wrong)} of a collection that "
                "exists. Create another with these settings, and switch an alias to it."
            )
        with self._shards.writing:
            entry = self._shards.entry(collection_name)
            merged = {**(entry.config.metadata or {}), **to_jsonable_python(metadata or {})}
            config = entry.config.model_copy(update={"metadata": merged})
            self._shards.change(collection_name, replace(entry, config=config))
        return True

    def update_collection_aliases(
        self, change_aliases_operations: Sequence[models.AliasOperations], **kwargs: Any
    ) -> bool:
        """Change aliases, all of them or, if one cannot be, none."""
        with self._shards.writing:
            listing = self._shards.listing
            aliases = dict(listing.aliases)
            for operation in change_aliases_operations:
                new = None
                if isinstance(operation, models.CreateAliasOperation):
                    new, target = operation.create_alias.alias_name, operation.create_alias
                    if target.collection_name not in listing.collections:
                        self._shards.entry(target.collection_name)  # raises, or it is an alias
                        raise QdrantRequestError(
                            f"{target.collection_name!r} is an alias; expected a collection."
                        )
                    aliases[new] = target.collection_name
                elif isinstance(operation, models.RenameAliasOperation):
                    new, old = (
                        operation.rename_alias.new_alias_name,
                        operation.rename_alias.old_alias_name,
                    )
                    if old not in aliases:
                        raise QdrantRequestError(f"There is no alias {old!r}.")
                    aliases[new] = aliases.pop(old)
                else:
                    aliases.pop(operation.delete_alias.alias_name, None)
                if new in listing.collections:
                    raise QdrantRequestError(
                        f"{new!r} is a collection, so it cannot be an alias. Take another name."
                    )
            self._shards.rename(aliases)
        return True

    def get_aliases(self, **kwargs: Any) -> models.CollectionsAliasesResponse:
        """All of them."""
        return models.CollectionsAliasesResponse(
            aliases=[
                models.AliasDescription(alias_name=alias, collection_name=name)
                for alias, name in self._shards.listing.aliases.items()
            ]
        )

    def get_collection_aliases(
        self, collection_name: str, **kwargs: Any
    ) -> models.CollectionsAliasesResponse:
        """Those of one collection."""
        every = self.get_aliases().aliases
        return models.CollectionsAliasesResponse(
            aliases=[alias for alias in every if alias.collection_name == collection_name]
        )

    def create_payload_index(
        self,
        collection_name: str,
        field_name: str,
        field_schema: Any = None,
        field_type: Any = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Index a payload field."""
        schema = field_type if field_schema is None else field_schema
        if schema is None:
            raise QdrantRequestError(
                f"The index of {field_name!r} has no type. Pass field_schema='keyword', 'integer', "
                "'text' or another of models.PayloadSchemaType."
            )
        with self._shards.writing, self._shards.errors(collection_name):
            info = index_info(schema)
            operation = edge.UpdateOperation.create_field_index(field_name, edge_index(info))
            self._shards.shard(collection_name).update(operation)
            entry = self._shards.entry(collection_name)
            indexes = {**entry.indexes, field_name: info}
            self._shards.change(collection_name, replace(entry, indexes=indexes))
        return DONE

    def delete_payload_index(
        self, collection_name: str, field_name: str, **kwargs: Any
    ) -> models.UpdateResult:
        """Drop the index of a payload field."""
        with self._shards.writing, self._shards.errors(collection_name):
            operation = edge.UpdateOperation.delete_field_index(field_name)
            self._shards.shard(collection_name).update(operation)
            entry = self._shards.entry(collection_name)
            indexes = {key: one for key, one in entry.indexes.items() if key != field_name}
            self._shards.change(collection_name, replace(entry, indexes=indexes))
        return DONE

    def optimize(self, collection_name: str) -> bool:
        """Build the graphs of what was added; whether there was anything to do."""
        with self._shards.writing, self._shards.errors(collection_name):
            return self._shards.shard(collection_name).optimize()

    # --- writing points

    def upsert(
        self,
        collection_name: str,
        points: models.Batch | Sequence[models.PointStruct],
        update_filter: models.Filter | None = None,
        update_mode: models.UpdateMode | None = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Store points, in the place of those with the same ids."""
        return self._update(
            collection_name,
            lambda: edge.UpdateOperation.upsert_points(
                edge_points(points),
                condition=edge_filter(update_filter),
                update_mode=UPDATE_MODES[update_mode],
            ),
        )

    def upload_points(
        self,
        collection_name: str,
        points: Iterable[models.PointStruct],
        batch_size: int = UPLOAD_BATCH,
        update_filter: models.Filter | None = None,
        update_mode: models.UpdateMode | None = None,
        **kwargs: Any,
    ) -> None:
        """Store points from any iterable."""
        remaining = iter(points)
        while batch := list(islice(remaining, batch_size)):
            self.upsert(collection_name, batch, update_filter, update_mode)

    def upload_collection(
        self,
        collection_name: str,
        vectors: Any,
        payload: Iterable[dict[Any, Any]] | None = None,
        ids: Iterable[models.ExtendedPointId] | None = None,
        **kwargs: Any,
    ) -> None:
        """Store points given as columns."""
        if isinstance(vectors, Mapping):
            columns = zip(*vectors.values(), strict=True)
            vectors = (dict(zip(vectors, column, strict=True)) for column in columns)
        found = iter(ids) if ids is not None else iter(lambda: str(uuid.uuid4()), None)
        payloads = iter(payload) if payload is not None else iter(dict, None)
        self.upload_points(
            collection_name,
            (
                models.PointStruct(id=i, vector=to_jsonable_python(_listed(v)), payload=p)
                for v, i, p in zip(vectors, found, payloads, strict=False)
            ),
            **kwargs,
        )

    def update_vectors(
        self,
        collection_name: str,
        points: Sequence[models.PointVectors],
        update_filter: models.Filter | None = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Replace vectors of points."""
        return self._update(
            collection_name,
            lambda: edge.UpdateOperation.update_vectors(
                [edge.PointVectors(edge_id(p.id), edge_vectors(p.vector)) for p in points],
                condition=edge_filter(update_filter),
            ),
        )

    def delete_vectors(
        self, collection_name: str, vectors: Sequence[str], points: Any, **kwargs: Any
    ) -> models.UpdateResult:
        """Remove vectors of points."""
        return self._update_some(collection_name, points, "delete_vectors", list(vectors))

    def delete(
        self, collection_name: str, points_selector: Any, **kwargs: Any
    ) -> models.UpdateResult:
        """Remove points."""
        return self._update_some(collection_name, points_selector, "delete_points")

    def set_payload(
        self,
        collection_name: str,
        payload: dict[str, Any],
        points: Any,
        key: str | None = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Add to the payload of points."""
        given = to_jsonable_python(payload)
        return self._update_some(collection_name, points, "set_payload", given, key)

    def overwrite_payload(
        self,
        collection_name: str,
        payload: dict[str, Any],
        points: Any,
        key: str | None = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Replace the payload of points."""
        given = to_jsonable_python(payload)
        return self._update_some(collection_name, points, "overwrite_payload", given, key)

    def delete_payload(
        self, collection_name: str, keys: Sequence[str], points: Any, **kwargs: Any
    ) -> models.UpdateResult:
        """Remove payload fields of points."""
        return self._update_some(collection_name, points, "delete_payload", list(keys))

    def clear_payload(
        self, collection_name: str, points_selector: Any, **kwargs: Any
    ) -> models.UpdateResult:
        """Remove the payload of points."""
        return self._update_some(collection_name, points_selector, "clear_payload")

    def batch_update_points(
        self, collection_name: str, update_operations: Sequence[Any], **kwargs: Any
    ) -> list[models.UpdateResult]:
        """Not in one step here."""
        raise QdrantRequestError(
            "The embedded Qdrant has no batch of mixed changes. Make them one by one."
        )

    def _update(
        self, collection_name: str, operation: Callable[[], edge.UpdateOperation]
    ) -> models.UpdateResult:
        shard = self._shards.shard(collection_name)
        with self._shards.errors(collection_name):
            made = operation()
            with self._shards.writing:
                shard.update(made)
        return DONE

    def _update_some(
        self, collection_name: str, selector: Any, operation: str, *args: Any
    ) -> models.UpdateResult:
        """Change the points that a selector names.

        Args:
            collection_name: of the collection.
            selector: ids, a filter, or a ``models.PointsSelector``.
            operation: what the engine calls it for ids; ``_by_filter`` is added for a filter.
            args: of the operation.
        """
        selected: Any = selector
        if isinstance(selected, models.FilterSelector):
            selected = selected.filter
        elif isinstance(selected, models.PointIdsList):
            selected = selected.points
        if isinstance(selected, models.Filter):
            method = getattr(edge.UpdateOperation, f"{operation}_by_filter")
            return self._update(collection_name, lambda: method(edge_filter(selected), *args))
        ids = [edge_id(one) for one in selected]
        method = getattr(edge.UpdateOperation, operation)
        return self._update(collection_name, lambda: method(ids, *args))

    # --- reading points

    def query_points(
        self,
        collection_name: str,
        query: Any = None,
        using: str | None = None,
        prefetch: Any = None,
        query_filter: models.Filter | None = None,
        search_params: models.SearchParams | None = None,
        limit: int = 10,
        offset: int | None = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        score_threshold: float | None = None,
        lookup_from: models.LookupLocation | None = None,
        **kwargs: Any,
    ) -> QueryResponse:
        """The Query API: search, recommend, discover, fuse, order, sample, rescore."""
        # Not validated again: a vector of 1,000 numbers takes longer to check than to search.
        request = models.QueryRequest.model_construct(
            query=query,
            using=using,
            prefetch=prefetch,
            filter=query_filter,
            params=search_params,
            limit=limit,
            offset=offset,
            with_payload=with_payload,
            with_vector=with_vectors,
            score_threshold=score_threshold,
            lookup_from=lookup_from,
        )
        [answer] = self._search.query(collection_name, [request])
        return answer

    def query_batch_points(
        self, collection_name: str, requests: Sequence[models.QueryRequest], **kwargs: Any
    ) -> list[QueryResponse]:
        """Several queries in one pass."""
        return self._search.query(collection_name, requests)

    def query_points_groups(
        self,
        collection_name: str,
        group_by: str,
        query: Any = None,
        using: str | None = None,
        prefetch: Any = None,
        query_filter: models.Filter | None = None,
        search_params: models.SearchParams | None = None,
        limit: int = 10,
        group_size: int = 3,
        with_payload: Any = True,
        with_vectors: Any = False,
        score_threshold: float | None = None,
        with_lookup: Any = None,
        lookup_from: models.LookupLocation | None = None,
        **kwargs: Any,
    ) -> models.GroupsResult:
        """The best groups, each with its best points."""
        request = models.QueryRequest.model_construct(
            query=query,
            using=using,
            prefetch=prefetch,
            filter=query_filter,
            params=search_params,
            score_threshold=score_threshold,
            lookup_from=lookup_from,
            with_payload=with_payload,
            with_vector=with_vectors,
        )
        groups = self._search.groups(
            collection_name, request, group_by=group_by, limit=limit, group_size=group_size
        )
        if with_lookup is not None:
            lookup = (
                models.WithLookup(collection=with_lookup)
                if isinstance(with_lookup, str)
                else with_lookup
            )
            self._search.look_up(groups, lookup)
        return models.GroupsResult(groups=groups)

    def scroll(
        self,
        collection_name: str,
        scroll_filter: models.Filter | None = None,
        limit: int = 10,
        order_by: Any = None,
        offset: Any = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        **kwargs: Any,
    ) -> tuple[list[models.Record], Any]:
        """Points by id, or by a payload field; and where the next page starts."""
        return self._search.scroll(
            collection_name,
            scroll_filter,
            limit=limit,
            order_by=order_by,
            offset=offset,
            with_payload=with_payload,
            with_vectors=with_vectors,
        )

    def retrieve(
        self,
        collection_name: str,
        ids: Sequence[Any],
        with_payload: Any = True,
        with_vectors: Any = False,
        **kwargs: Any,
    ) -> list[models.Record]:
        """Points by id, in the order asked for; those that do not exist are left out."""
        return self._search.retrieve(collection_name, ids, with_payload, with_vectors)

    def count(
        self,
        collection_name: str,
        count_filter: Any = None,
        exact: bool = True,
        **kwargs: Any,
    ) -> models.CountResult:
        """How many points pass a filter."""
        return self._search.count(collection_name, count_filter)

    def facet(
        self,
        collection_name: str,
        key: str,
        facet_filter: models.Filter | None = None,
        limit: int = 10,
        exact: bool = False,
        **kwargs: Any,
    ) -> models.FacetResponse:
        """The most frequent values of an indexed payload field."""
        return self._search.facet(collection_name, key, facet_filter, limit=limit, exact=exact)


def _listed(vector: Any) -> Any:
    return vector.tolist() if hasattr(vector, "tolist") else vector
