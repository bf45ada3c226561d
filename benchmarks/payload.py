"""What fetching texts first and payloads of the winners after spares: bytes that a client receives.

    python benchmarks/payload.py [--documents N] [--queries N] [--candidates N] [--limit N]
                                 [--extra BYTES ...] [--out FILE]

Docstrings of Python's standard library, each with a further payload field of so many bytes, as
pages have that carry their HTML or metadata. qdrant-client searches them over HTTP on loopback; the
bytes of the answers' bodies are counted. Qdrant's local mode answers, behind a server that speaks
the three calls needed as a real one does, uncompressed; so bytes are what is measured here, and
times are not a server's. The reranker prefers short texts, for it costs nothing.
"""

import argparse
import json
import statistics
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient, models

from qdrant_rerank import HybridSearcher, SearchOptions
from qdrant_rerank.cli.stdlib_docs import standard_library_documents

QUESTIONS = (
    "read a file line by line",
    "run a function in another process",
    "parse a date",
    "sort a list by a key",
    "compress bytes",
    "open a socket with a timeout",
    "random numbers from a distribution",
    "compare two texts",
)


class Shortest:
    """A reranker that reads nothing."""

    def rerank(self, query: str, documents: Iterable[str]) -> list[float]:
        """Shorter is better."""
        return [-float(len(document)) for document in documents]


class Served:
    """An embedded engine behind HTTP, and the bytes that it has sent."""

    def __init__(self, engine: QdrantClient) -> None:
        self.engine = engine
        self.sent = 0
        self.requests = 0

    def result(self, path: str, body: Any) -> Any:
        """What Qdrant's HTTP API answers."""
        _, _, collection, *call = path.partition("?")[0].split("/")
        if not call:
            return self.engine.get_collection(collection).model_dump(mode="json")
        if call == ["points", "query"]:
            asked = models.QueryRequest.model_validate(body)
            found = self.engine.query_points(
                collection,
                prefetch=asked.prefetch,
                query=asked.query,
                using=asked.using,
                limit=asked.limit or 10,
                with_payload=asked.with_payload or False,
            )
            return {"points": [_plain(point) for point in found.points]}
        records = self.engine.retrieve(collection, body["ids"], with_payload=body["with_payload"])
        return [_plain(record) for record in records]

    @contextmanager
    def listening(self) -> Iterator[str]:
        """The URL."""
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                result = served.result(self.path, json.loads(self.rfile.read(length) or b"null"))
                answer = {"result": result, "status": "ok", "time": 0.0}
                data = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
                served.sent += len(data)
                served.requests += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST  # noqa: N815 - http.server's name

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=len(QUESTIONS))
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--extra", type=int, action="append", help="may be repeated")
    parser.add_argument("--out", type=Path, help="JSON with the figures")
    given = parser.parse_args()
    documents = standard_library_documents()
    documents = documents[:: max(1, len(documents) // given.documents)][: given.documents]
    text = statistics.mean(len(document["text"].encode()) for document in documents)
    print(
        f"{len(documents)} documents, text of {text:.0f} bytes on average; {given.candidates} "
        f"candidates, {given.limit} returned; bytes received a query\n"
    )
    print(f"{'extra bytes':>12}{'one request':>13}{'two phases':>12}{'spared':>8}   by default")
    figures = []
    for extra in given.extra or (0, 200, 1000, 5000, 20000):
        row = measure(documents, extra, given.candidates, given.limit, QUESTIONS[: given.queries])
        figures.append({"extra": extra, **row})
        spared = 1 - row["two phases"] / row["one request"]
        print(
            f"{extra:>12,}{row['one request']:13,.0f}{row['two phases']:12,.0f}{spared:8.0%}   "
            + ("two phases" if row["default requests"] > 1 else "one request"),
            flush=True,
        )
    if given.out:
        given.out.write_text(json.dumps(figures, indent=1) + "\n")


def measure(
    documents: list[dict[str, str]],
    extra: int,
    candidates: int,
    limit: int,
    questions: Iterable[str],
) -> dict[str, float]:
    """Bytes and requests a query, by what the options say."""
    engine = QdrantClient(":memory:")
    HybridSearcher("docs", client=engine, reranker=None).add(
        ({**document, "page": ("<p>" * extra)[:extra]} for document in documents), progress=False
    )
    served = Served(engine)
    row: dict[str, float] = {}
    with served.listening() as url:
        client = QdrantClient(url=url, check_compatibility=False)
        for name, two_phase in (("one request", False), ("two phases", True), ("default", None)):
            searcher = HybridSearcher(
                "docs",
                client=client,
                reranker=Shortest(),
                candidates=candidates,
                options=SearchOptions(two_phase=two_phase),
            )
            searcher.search("the first answer tells the sizes", limit=limit)
            sent, requests, began = served.sent, served.requests, time.perf_counter()
            asked = [searcher.search(question, limit=limit) for question in questions]
            row[name] = (served.sent - sent) / len(asked)
            row[f"{name} requests"] = (served.requests - requests) / len(asked)
            row[f"{name} ms"] = (time.perf_counter() - began) * 1000 / len(asked)
        client.close()
    engine.close()
    return row


def _plain(point: models.ScoredPoint | models.Record) -> dict[str, Any]:
    """As the server writes it: without what is not there."""
    return point.model_dump(mode="json", exclude_none=True)


if __name__ == "__main__":
    main()
