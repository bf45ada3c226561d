"""Payloads: the text that a reranker reads, the paths that fetch it, and the groups of a point."""

from qdrant_rerank.payload.choice import SAMPLE, TextChoice
from qdrant_rerank.payload.groups import GroupId, group_ids, lookup_ids
from qdrant_rerank.payload.paths import field_paths, require_path, whole_field
from qdrant_rerank.payload.text import PayloadText, TextSource
from qdrant_rerank.payload.writers import AUTO

__all__ = [
    "AUTO",
    "SAMPLE",
    "GroupId",
    "PayloadText",
    "TextChoice",
    "TextSource",
    "field_paths",
    "group_ids",
    "lookup_ids",
    "require_path",
    "whole_field",
]
