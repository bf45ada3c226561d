"""The embedded engine's calls about collections, their aliases and their payload indexes."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from qdrant_rerank.errors import QdrantRequestError
from qdrant_rerank.qdrant.embedded.config import full_config, index_info, to_index
from qdrant_rerank.qdrant.embedded.points import DONE, shallow_json
from qdrant_rerank.qdrant.embedded.shards import Shards
from qdrant_rerank.qdrant.embedded.vector_changes import (
    changed_sparse,
    require_new_vectors,
    with_vector,
    without_vector,
)
from qdrant_rerank.utils.client_models import IdTrackerParams, PayloadStorageParams
from qdrant_rerank.utils.validation import shown

__all__ = ["CollectionCalls"]


# The engine's own; QdrantClient.migrate asks for it.
WAL = models.WalConfig(wal_capacity_mb=32, wal_segments_ahead=0)


class CollectionCalls:
    """Calls of :class:`~qdrant_rerank.qdrant.embedded.engine.EmbeddedEngine` on collections."""

    _shards: Shards

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
        payload: PayloadStorageParams | None = None,
        id_tracker: IdTrackerParams | None = None,
        replacing: bool = False,
        **kwargs: Any,
    ) -> bool:
        """Create a collection. Shards, replicas and strict mode are a server's, and ignored."""
        config = full_config(
            vectors_config,
            sparse_vectors_config,
            hnsw=hnsw_config,
            optimizers=optimizers_config,
            quantization=quantization_config,
            metadata=_metadata(metadata),
            params={
                "on_disk_payload": on_disk_payload,
                "payload": payload,
                "id_tracker": id_tracker,
            },
        )
        require_new_vectors(config.params)
        self._shards.create(collection_name, config, replacing=replacing)
        return True

    def recreate_collection(self, collection_name: str, *args: Any, **kwargs: Any) -> bool:
        """Remove a collection, if there is one, and create it again."""
        kwargs["replacing"] = True
        return self.create_collection(collection_name, *args, **kwargs)

    def delete_collection(self, collection_name: str, **kwargs: Any) -> bool:
        """Remove a collection and its aliases."""
        return self._shards.delete(collection_name)

    def collection_exists(self, collection_name: str, **kwargs: Any) -> bool:
        """Return whether there is a collection or an alias of that name."""
        listing = self._shards.listing
        return collection_name in listing.collections or collection_name in listing.aliases

    def get_collections(self, **kwargs: Any) -> models.CollectionsResponse:
        """List the collections."""
        names = self._shards.listing.collections
        return models.CollectionsResponse(
            collections=[models.CollectionDescription(name=name) for name in names]
        )

    def get_collection(self, collection_name: str, **kwargs: Any) -> models.CollectionInfo:
        """Return the settings of a collection, and how much it holds."""
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
            config=entry.config.model_copy(deep=True, update={"wal_config": WAL}),
            payload_schema={
                key: found.model_copy(update={"points": points.get(key, 0)})
                for key, found in entry.indexes.items()
            },
        )

    def update_collection(
        self,
        collection_name: str,
        sparse_vectors_config: Mapping[str, models.SparseVectorParams] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> bool:
        """Add to the metadata, or change sparse vectors; that stores all points again.

        Other settings are fixed when a collection is created.
        """
        wrong = sorted(name for name, value in kwargs.items() if value is not None)
        if set(wrong) - {"timeout"}:
            raise QdrantRequestError(
                f"The embedded Qdrant cannot change {', '.join(wrong)} of a collection that "
                "exists. Create another with these settings, and switch an alias to it."
            )
        with self._shards.writing:
            entry = self._shards.entry(collection_name)
            merged = {
                **(entry.config.metadata or {}),
                **_metadata(metadata or {}),
            }
            config = entry.config.model_copy(update={"metadata": merged or None})
            params = changed_sparse(config.params, sparse_vectors_config or {})
            if params == config.params:
                self._shards.change(collection_name, replace(entry, config=config))
            else:
                config = config.model_copy(update={"params": params})
                self._shards.rebuild(collection_name, config)
        return True

    def create_vector_name(
        self, collection_name: str, vector_name: str, vector_name_config: Any, **kwargs: Any
    ) -> models.UpdateResult:
        """Add a vector, which no point has yet; that stores all points again."""
        return self._change_vectors(
            collection_name, lambda params: with_vector(params, vector_name, vector_name_config)
        )

    def delete_vector_name(
        self, collection_name: str, vector_name: str, **kwargs: Any
    ) -> models.UpdateResult:
        """Remove a vector, and what all points have for it; that stores all points again."""
        return self._change_vectors(
            collection_name, lambda params: without_vector(params, vector_name)
        )

    def _change_vectors(
        self,
        collection_name: str,
        change: Callable[[models.CollectionParams], models.CollectionParams],
    ) -> models.UpdateResult:
        with self._shards.writing:
            config = self._shards.entry(collection_name).config
            params = change(config.params)
            if params != config.params:
                config = config.model_copy(update={"params": params})
                self._shards.rebuild(collection_name, config)
        return DONE

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
                    _require_alias(new)
                    aliases[new] = target.collection_name
                elif isinstance(operation, models.RenameAliasOperation):
                    new, old = (
                        operation.rename_alias.new_alias_name,
                        operation.rename_alias.old_alias_name,
                    )
                    _require_alias(new)
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
        """List the aliases of all collections."""
        return models.CollectionsAliasesResponse(
            aliases=[
                models.AliasDescription(alias_name=alias, collection_name=name)
                for alias, name in self._shards.listing.aliases.items()
            ]
        )

    def get_collection_aliases(
        self, collection_name: str, **kwargs: Any
    ) -> models.CollectionsAliasesResponse:
        """List the aliases of one collection."""
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
            operation = edge.UpdateOperation.create_field_index(field_name, to_index(info))
            self._shards.update(collection_name, [operation])
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
            self._shards.update(collection_name, [operation])
            entry = self._shards.entry(collection_name)
            indexes = {key: one for key, one in entry.indexes.items() if key != field_name}
            self._shards.change(collection_name, replace(entry, indexes=indexes))
        return DONE


def _metadata(given: Any) -> Any:
    """Return metadata as JSON has it.

    Raises:
        QdrantRequestError: JSON cannot hold it.
    """
    made = shallow_json(given, "The metadata")
    try:
        json.dumps(made)
    except ValueError as error:  # a number of more digits than Python writes
        raise QdrantRequestError(
            f"The metadata cannot be stored: {error}. Nothing was done."
        ) from error
    return made


def _require_alias(name: Any) -> None:
    """Refuse an alias that is no text; a server takes any text."""
    if not isinstance(name, str):
        raise QdrantRequestError(f"The alias is {shown(name)}; expected a str.")
