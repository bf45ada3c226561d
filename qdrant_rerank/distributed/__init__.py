"""Reranking and indexing on many machines, with Ray. Needs ``pip install "qdrant-rerank[ray]"``.

::

    sources      what a job reads: Parquet and JSON-lines files, Hugging Face datasets
    partitions   parts of it that one worker reads at a time
    cluster      a Ray that runs, and workers that fit its machines
    output       the directory of a job: what is done, what is left
    scorers      models in workers
    rerank       scores of pairs
    index        documents into a Qdrant cluster
    replicas     processes of the server on Ray Serve
    deployment   the server, on Ray Serve
"""

import os

from qdrant_rerank.errors import MissingDependencyError

# Before ray is imported: a Ray that this package starts tells nobody that it runs.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

try:
    import pyarrow  # noqa: F401
    import ray.data  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        f"Work on many machines needs {error.name}, which is not installed. Run: "
        'pip install "qdrant-rerank[ray]"'
    ) from error

from qdrant_rerank.distributed.index import Indexed, index_dataset
from qdrant_rerank.distributed.rerank import RerankedFiles, rerank_dataset

__all__ = ["Indexed", "RerankedFiles", "index_dataset", "rerank_dataset"]
