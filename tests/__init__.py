import qdrant_rerank  # noqa: F401 - first: it switches onnxruntime's telemetry off
