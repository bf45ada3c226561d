"""Metrics of a server, in the format of Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from qdrant_rerank.cross_encoder.pair_scores import PairScores

__all__ = ["Metrics"]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SHARES = tuple(tenth / 10 for tenth in range(1, 11))
PREFIX = "qdrant_rerank_"


class Metrics:
    """Counts what a server does. Safe to use from many threads."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(PREFIX + name, about, labels, registry=self._registry)

        def histogram(
            name: str, about: str, *labels: str, buckets: tuple[float, ...] = SECONDS
        ) -> Histogram:
            return Histogram(PREFIX + name, about, labels, registry=self._registry, buckets=buckets)

        self._requests = counter("requests", "Requests by route and status.", "route", "status")
        self._seconds = histogram("request_seconds", "Seconds from header to answer.", "route")
        self._stages = histogram("stage_seconds", "Seconds by stage of a request.", "stage")
        self._pairs = counter("pairs", "Pairs that were scored.")
        self._tokens = counter("tokens", "Tokens that the model read, without padding.")
        self._padding = counter("padding_tokens", "Tokens of padding that the model read.")
        self._truncated = counter("truncated_pairs", "Pairs that were cut to the max length.")
        self._batches = histogram("batch_seconds", "Seconds per batch of the model.")
        self._fill = histogram("batch_fill", "Share of a batch that is no padding.", buckets=SHARES)

    def watch(self, name: str, about: str, read: Callable[[], float]) -> None:
        """Add a gauge whose value is read when the metrics are asked for."""
        Gauge(PREFIX + name, about, registry=self._registry).set_function(read)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, pairs: int, tokens: int, padded_tokens: int, seconds: float) -> None:
        """Count a batch that the model has run."""
        self._batches.observe(seconds)
        self._fill.observe(tokens / max(padded_tokens, 1))
        self._padding.inc(padded_tokens - tokens)

    def scored(self, found: PairScores, waited_s: float) -> None:
        """Count the pairs of a request."""
        self._pairs.inc(len(found.scores))
        self._tokens.inc(found.tokens)
        self._truncated.inc(int(found.truncated.sum()))
        self._stages.labels("wait").observe(waited_s)
        self._stages.labels("tokenize").observe(found.tokenize_s)
        self._stages.labels("infer").observe(max(0.0, found.infer_s))

    def text(self) -> bytes:
        """Write all metrics."""
        return generate_latest(self._registry)
