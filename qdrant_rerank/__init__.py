"""Rerank Qdrant hits with an ONNX cross-encoder.

Names are loaded on first use, so importing the package costs milliseconds and pulls in
neither onnxruntime nor qdrant-client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qdrant_rerank import errors
from qdrant_rerank._version import __version__
from qdrant_rerank.models import DEFAULT_EMBEDDER, DEFAULT_RERANKER, ModelSource

if TYPE_CHECKING:
    from qdrant_rerank.cross_encoder import PairScores, TextCrossEncoder

_HOME = {
    "PairScores": "cross_encoder",
    "TextCrossEncoder": "cross_encoder",
}

__all__ = [
    "DEFAULT_EMBEDDER",
    "DEFAULT_RERANKER",
    "ModelSource",
    "PairScores",
    "TextCrossEncoder",
    "__version__",
    "errors",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
