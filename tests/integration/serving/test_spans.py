"""Spans of OpenTelemetry: make serving-clients."""

import httpx
import pytest

from tests.serving import served

pytest.importorskip("opentelemetry.sdk", reason="make serving-clients")

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_request_is_a_part_of_what_its_client_does(tiny_bert):
    """Its reranking is a part of it; no attribute has a text."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(provider)
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
