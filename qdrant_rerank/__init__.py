"""Rerank Qdrant hits with an ONNX cross-encoder.

Names are loaded on first use, so importing the package takes milliseconds and imports neither
onnxruntime nor qdrant-client.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# onnxruntime 1.29 and later sends telemetry on Linux, and its thread makes a forked child hang at
# exit. It reads this variable when it is imported, which `import qdrant_client` does, too.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from qdrant_rerank import errors
from qdrant_rerank._version import __version__
from qdrant_rerank.hub.specs import (
    DEFAULT_EMBEDDER,
    DEFAULT_RERANKER,
    ModelFile,
    ModelSource,
    ModelSpec,
)

if TYPE_CHECKING:
    from qdrant_rerank.cross_encoder.calibration import Calibrator
    from qdrant_rerank.cross_encoder.document_states import DocumentStates
    from qdrant_rerank.cross_encoder.pair_scores import PairScores
    from qdrant_rerank.cross_encoder.prompts import PromptTemplate
    from qdrant_rerank.cross_encoder.score_cache import ScoreCache
    from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
    from qdrant_rerank.cross_encoder.windows import Windows
    from qdrant_rerank.embedders import (
        Bm25Encoder,
        OnnxEmbedder,
        OpenAIEmbedder,
        QdrantInference,
        SpladeEncoder,
        StaticEmbedder,
        TextIndex,
    )
    from qdrant_rerank.evaluation import Evaluation
    from qdrant_rerank.evaluation.evaluate import evaluate
    from qdrant_rerank.options import SearchOptions
    from qdrant_rerank.qdrant.settings import CollectionSettings
    from qdrant_rerank.reranking.adapters import ClientReranker
    from qdrant_rerank.reranking.cascade import Cascade
    from qdrant_rerank.reranking.grouping import GroupedResults, RerankedGroup
    from qdrant_rerank.reranking.late_interaction import LateInteraction
    from qdrant_rerank.reranking.remote import RemoteReranker
    from qdrant_rerank.reranking.rerank import rerank_points
    from qdrant_rerank.search.async_searcher import AsyncHybridSearcher
    from qdrant_rerank.search.searcher import HybridSearcher
    from qdrant_rerank.types import (
        Embedder,
        RerankedPoint,
        Reranker,
        SearchResults,
        SearchTrace,
        Snippet,
        SparseEncoder,
    )

# The module of each name that is loaded on first use.
_HOME = {
    "AsyncHybridSearcher": "search.async_searcher",
    "Bm25Encoder": "embedders",
    "Calibrator": "cross_encoder.calibration",
    "Cascade": "reranking.cascade",
    "ClientReranker": "reranking.adapters",
    "CollectionSettings": "qdrant.settings",
    "DocumentStates": "cross_encoder.document_states",
    "Embedder": "types",
    "Evaluation": "evaluation",
    "GroupedResults": "reranking.grouping",
    "HybridSearcher": "search.searcher",
    "LateInteraction": "reranking.late_interaction",
    "OnnxEmbedder": "embedders",
    "OpenAIEmbedder": "embedders",
    "PairScores": "cross_encoder.pair_scores",
    "PromptTemplate": "cross_encoder.prompts",
    "QdrantInference": "embedders",
    "RemoteReranker": "reranking.remote",
    "RerankedGroup": "reranking.grouping",
    "RerankedPoint": "types",
    "Reranker": "types",
    "ScoreCache": "cross_encoder.score_cache",
    "SearchOptions": "options",
    "SearchResults": "types",
    "SearchTrace": "types",
    "Snippet": "types",
    "SparseEncoder": "types",
    "SpladeEncoder": "embedders",
    "StaticEmbedder": "embedders",
    "TextCrossEncoder": "cross_encoder.text_cross_encoder",
    "TextIndex": "embedders",
    "Windows": "cross_encoder.windows",
    "evaluate": "evaluation.evaluate",
    "rerank_points": "reranking.rerank",
}

__all__ = [
    "DEFAULT_EMBEDDER",
    "DEFAULT_RERANKER",
    "AsyncHybridSearcher",
    "Bm25Encoder",
    "Calibrator",
    "Cascade",
    "ClientReranker",
    "CollectionSettings",
    "DocumentStates",
    "Embedder",
    "Evaluation",
    "GroupedResults",
    "HybridSearcher",
    "LateInteraction",
    "ModelFile",
    "ModelSource",
    "ModelSpec",
    "OnnxEmbedder",
    "OpenAIEmbedder",
    "PairScores",
    "PromptTemplate",
    "QdrantInference",
    "RemoteReranker",
    "RerankedGroup",
    "RerankedPoint",
    "Reranker",
    "ScoreCache",
    "SearchOptions",
    "SearchResults",
    "SearchTrace",
    "Snippet",
    "SparseEncoder",
    "SpladeEncoder",
    "StaticEmbedder",
    "TextCrossEncoder",
    "TextIndex",
    "Windows",
    "__version__",
    "errors",
    "evaluate",
    "rerank_points",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(f"{__name__}.utils.progress")  # before qdrant_client imports tqdm.auto
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
