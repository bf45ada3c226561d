"""Spans of OpenTelemetry: make serving-clients."""

import asyncio

import httpx
import pytest
from qdrant_client import QdrantClient

from qdrant_rerank import AsyncHybridSearcher, HybridSearcher
from tests.serving import served

pytest.importorskip("opentelemetry.sdk", reason="make serving-clients")

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def kept():
    """What the process has recorded."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


def test_a_request_is_a_part_of_what_its_client_does(tiny_bert, kept):
    """Its reranking is a part of it; no attribute has a text."""
    kept.clear()
    with served(models=[str(tiny_bert)]) as url:
        body = {"query": "zebra", "texts": ["zebra one", "zebra two"]}
        httpx.post(url + "/rerank", json=body, headers={"traceparent": CALLER})
    rerank, request = kept.get_finished_spans()
    assert (rerank.name, request.name) == ("rerank", "POST /rerank")
    assert f"{request.parent.span_id:016x}" == CALLER.split("-")[2]
    assert f"{request.context.trace_id:032x}" == CALLER.split("-")[1]
    assert rerank.parent.span_id == request.context.span_id
    assert rerank.attributes["pairs"] == 2
    assert request.attributes["http.response.status_code"] == 200
    assert "zebra" not in request.to_json() + rerank.to_json()


def test_a_search_of_the_library_is_a_part_of_what_its_caller_does(tiny_bert, kept):
    """With its reranking as a part of it; also in an event loop, and without any text."""
    from opentelemetry import trace

    client = QdrantClient(":memory:")
    options = {"client": client, "reranker": str(tiny_bert)}
    HybridSearcher("docs", **options).add(["zebra one", "zebra two"], progress=False)

    async def search_async():
        async with AsyncHybridSearcher("docs", **options) as searcher:
            await searcher.search("zebra")

    for search in (
        lambda: HybridSearcher("docs", **options).search("zebra"),
        lambda: asyncio.run(search_async()),
    ):
        kept.clear()
        with trace.get_tracer("caller").start_as_current_span("caller"):
            search()
        rerank, found, caller = kept.get_finished_spans()
        assert (rerank.name, found.name) == ("qdrant_rerank.rerank", "qdrant_rerank.search")
        assert rerank.parent.span_id == found.context.span_id
        assert found.parent.span_id == caller.context.span_id
        assert (found.attributes["collection"], rerank.attributes["pairs"]) == ("docs", 2)
        assert "zebra" not in found.to_json() + rerank.to_json()
