"""The version, read by the build and by ``qdrant_rerank.__version__``."""

__version__ = "0.2.0"
