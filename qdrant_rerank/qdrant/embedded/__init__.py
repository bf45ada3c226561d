"""The embedded Qdrant engine behind qdrant-client's calls; importing this loads no engine.

Where a change goes, from the caller inwards::

    choice              which engine: the real one, or qdrant-client's local mode
    edge                EdgeClient, a QdrantClient: opened, optimised, closed
    edge_engine           its calls, in three parts:
      edge_collections      collections, aliases, payload indexes
      edge_writes           points stored, changed, deleted
      edge_reads            qdrant-client's arguments of searches, for
        edge_search           the Query API, groups, scroll, count
    edge_shards           collections opened and locked; the engine's errors as ours
    directory             their list on disk, and who may open it

Conversions between both sides' models, pure: ``edge_config`` (settings), ``edge_points`` (points
and vectors), ``edge_query`` (queries and filters), ``edge_formula``, ``edge_groups``, ``enums``.
"""
