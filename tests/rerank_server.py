"""A reranking server on loopback that speaks every API, with known scores."""

import json
import threading
import zlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.fault_server import answer

#: Where each API is asked, the field of its documents, and the list of its answer.
SHAPES: dict[str, tuple[str, str, str]] = {
    "cohere": ("/v2/rerank", "documents", "results"),
    "jina": ("/v1/rerank", "documents", "results"),
    "tei": ("/rerank", "texts", ""),
    "vllm": ("/v1/rerank", "documents", "results"),
    "vllm-score": ("/score", "text_2", "data"),
    "infinity": ("/rerank", "documents", "results"),
    "litellm": ("/rerank", "documents", "results"),
    "voyage": ("/v1/rerank", "documents", "data"),
    "elastic": ("/_inference/rerank/mine", "input", "rerank"),
}


def relevance(query: str, document: str) -> float:
    """The score of a pair: 0 to 1, the same in every process."""
    pair = f"{query}\0{document}".encode("utf-8", "replace")
    return zlib.crc32(pair) % 100_000 / 100_000


@dataclass
class RerankServer:
    """Answers best first, as the real ones do.

    Attributes:
        api: what it speaks.
        seen: the body of each request.
        paths: the path of each request.
        keys: the header Authorization of each request.
        busy: requests at the same time, now and at most.
    """

    api: str
    seen: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    busy: int = 0
    busiest: int = 0

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.body)  # type: ignore[attr-defined]
        with self.lock:
            self.busy += 1
            self.busiest = max(self.busy, self.busiest)
            self.seen.append(body)
            self.paths.append(handler.path)
            self.keys.append(handler.headers.get("Authorization"))
        try:
            send = answer(200, json.dumps(self.scores(body)).encode())
        finally:
            with self.lock:  # before the answer, after which the caller may send the next request
                self.busy -= 1
        send(handler)

    def scores(self, body: dict[str, Any]) -> Any:
        """The answer to a request."""
        _, documents, answered = SHAPES[self.api]
        query = body["text_1"] if self.api == "vllm-score" else body["query"]
        name = "score" if self.api in {"tei", "vllm-score"} else "relevance_score"
        items = [
            {"index": row, name: relevance(query, text)} for row, text in enumerate(body[documents])
        ]
        if self.api != "vllm-score":  # which keeps the order of the documents
            items.sort(key=lambda item: -item[name])
        return {answered: items, "usage": {"total_tokens": 1}} if answered else items
