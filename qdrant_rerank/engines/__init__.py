"""The embedded Qdrant engine behind qdrant-client's calls.

:mod:`~qdrant_rerank.engines.edge` has the client. Importing this package loads no engine.
"""
