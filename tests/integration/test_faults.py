"""Every fault of a server: one of our errors, as many requests as may help, and nothing left."""

import asyncio
import gc
import subprocess
import sys
import time
from pathlib import Path

import grpc
import grpc.aio
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient

from qdrant_rerank import AsyncHybridSearcher, HybridSearcher, SearchOptions
from qdrant_rerank.errors import CollectionNotFoundError, QdrantConnectionError, QdrantError
from tests.fault_server import Script, answer, dripping, hanging, serving
from tests.faults import FAULTS, FOUND, SCHEMA, STORED, Held, in_trouble, refusal

ROOT = Path(__file__).parents[2]


def sync_call(url, call, **options):
    """What one call of a sync searcher returns or raises."""
    client = QdrantClient(url=url, timeout=1, check_compatibility=False)
    searcher = HybridSearcher(
        "docs", client=client, reranker=None, options=SearchOptions(**options)
    )
    try:
        return call(searcher)
    except Exception as error:
        return error
    finally:
        client.close()


def async_call(url, call, **options):
    """The same of an async one; no task is left in its loop."""

    async def main():
        client = AsyncQdrantClient(url=url, timeout=1, check_compatibility=False)
        async with AsyncHybridSearcher(
            "docs", client=client, reranker=None, options=SearchOptions(**options)
        ) as searcher:
            try:
                result = await call(searcher)
            except Exception as error:
                result = error
            assert asyncio.all_tasks() == {asyncio.current_task()}
        await client.close()
        return result

    return asyncio.run(main())


CALLS = [pytest.param(sync_call, id="sync"), pytest.param(async_call, id="async")]


@pytest.fixture(autouse=True)
def nothing_is_left():
    """No thread, socket or other descriptor that was not there before."""
    before = Held.now()
    yield
    give_up = time.monotonic() + 5  # the server's own threads end once their clients are gone
    while (left := Held.now().left_since(before)) and time.monotonic() < give_up:
        time.sleep(0.01)
    assert left == []


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_our_error_and_is_asked_again_if_that_may_help(call, fault):
    """Within the time that a request may take; its cause is the client's own exception."""
    with in_trouble(fault) as (url, script):
        began = time.monotonic()
        seen = call(
            url, lambda s: s.search("q"), retries=1, timeout_s=1 if "drip" in fault.name else None
        )
        assert time.monotonic() - began < 60  # a drip lasts two minutes
    assert type(seen) is fault.error
    assert seen.__cause__ is not None
    if fault.answer is not None:
        assert script.requests("POST") == (2 if fault.again else 1)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "fault", [f for f in FAULTS if f.again and f.answer], ids=lambda fault: fault.name
)
def test_what_passes_is_a_search_like_any_other(call, fault):
    """And the trace tells how often it was asked again."""
    with in_trouble(fault, times=1) as (url, script):
        found = call(
            url, lambda s: s.search("q"), retries=1, timeout_s=1 if "drip" in fault.name else None
        )
    assert [hit.id for hit in found] == [1]
    assert (found.trace.retries, script.requests("POST")) == (1, 2)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", [hanging, dripping])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_deadline_ends_it_at_whichever_request(call, fault, method):
    """Retries included."""
    script = Script({"GET": [SCHEMA], "POST": [FOUND]} | {method: [fault]})
    with serving(script) as url:
        began = time.monotonic()
        seen = call(url, lambda s: s.search("q", deadline_s=0.9), retries=9, timeout_s=60)
        assert 0.8 < time.monotonic() - began < 30
    assert isinstance(seen, QdrantConnectionError)
    assert "in time" in str(seen)
    assert script.requests(method) == 1


@pytest.mark.parametrize("call", CALLS)
def test_retry_after_is_obeyed(call):
    """In seconds; the backoff alone would be shorter. Too long for the deadline, it is an error."""
    for after, deadline_s, requests in (("1", None, 2), ("60", 20, 1), ("3600", None, 1)):
        busy = answer(429, refusal("slow down"), Retry_After=after)
        script = Script({"GET": [SCHEMA], "POST": [busy, FOUND]})
        with serving(script) as url:
            began = time.monotonic()
            call(url, lambda s, d=deadline_s: s.search("q", deadline_s=d), retries=2)
            took = time.monotonic() - began
        times = [when for method, _, when in script.seen if method == "POST"]
        assert len(times) == requests
        assert took < 30
        if requests == 2:
            assert times[1] - times[0] >= 1


@pytest.mark.parametrize("call", CALLS)
def test_adding_retries_too(call):
    """Ids are made of the texts, so a batch that arrives twice is stored once."""
    script = Script({"GET": [SCHEMA], "PUT": [answer(503, b""), answer(502, b""), STORED]})
    with serving(script) as url:
        assert call(url, lambda s: s.add(["a"], progress=False), retries=2) == 1
    assert script.requests("PUT") == 3


@pytest.mark.parametrize("call", CALLS)
def test_the_names_of_the_collections_do_not_hold_up_an_error(call):
    """They are a courtesy; asked for within the deadline, and left out where nobody answers."""
    missing = answer(404, refusal("Collection `docs` doesn't exist"))
    script = Script({"GET": [missing, hanging]})
    with serving(script) as url:
        began = time.monotonic()
        seen = call(url, lambda s: s.search("q", deadline_s=1.5))
        assert time.monotonic() - began < 30
    assert isinstance(seen, CollectionNotFoundError)
    assert str(seen).endswith("no collection 'docs'. HybridSearcher.add(documents) creates it.")


def test_a_cancelled_search_closes_its_connection():
    """At once, amid the body."""

    async def main(url):
        client = AsyncQdrantClient(url=url, timeout=60, check_compatibility=False)
        async with AsyncHybridSearcher("docs", client=client, reranker=None) as searcher:
            before = Held.now()
            task = asyncio.create_task(searcher.search("q"))
            while not script.requests("POST"):
                await asyncio.sleep(0.01)
            began = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began < 10  # the client's timeout is 60
            assert asyncio.all_tasks() == {asyncio.current_task()}
            ours = [left for left in Held.now().left_since(before) if "socket" in left]
            # The server, in the same process, may not have noticed yet.
            assert len(ours) <= 1
        await client.close()

    script = Script({"GET": [SCHEMA], "POST": [dripping]})
    with serving(script) as url:
        asyncio.run(main(url))


@pytest.mark.parametrize(
    ("code", "again"),
    [("UNAVAILABLE", 2), ("RESOURCE_EXHAUSTED", 2), ("INVALID_ARGUMENT", 1), ("NOT_FOUND", 1)],
)
def test_grpc_asks_again_when_unavailable(code, again):
    """The async client's own family of exceptions."""
    asked = []

    async def refuse(request, context):
        await context.abort(grpc.StatusCode[code], "no")

    class Refusing(grpc.GenericRpcHandler):
        def service(self, details):
            asked.append(details.method)
            return grpc.unary_unary_rpc_method_handler(refuse)

    async def main():
        server = grpc.aio.server(handlers=[Refusing()])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        client = AsyncQdrantClient(
            host="127.0.0.1", grpc_port=port, prefer_grpc=True, check_compatibility=False, timeout=5
        )
        options = SearchOptions(retries=1)
        try:
            async with AsyncHybridSearcher(
                "docs", client=client, reranker=None, options=options
            ) as searcher:
                with pytest.raises((QdrantError, CollectionNotFoundError)) as caught:
                    await searcher.search("q")
        finally:
            await client.close()
            await server.stop(None)
        return caught.value

    assert asyncio.run(main()).__cause__ is not None
    gc.collect()  # gRPC's own objects refer to each other, and hold its threads
    assert sum(method.endswith("Collections/Get") for method in asked) == again


def test_the_table_of_faults_is_printed():
    """One line a fault, the same for both searchers."""
    command = [sys.executable, "-m", "benchmarks.faults", "--only", "503", "403", "--markdown"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[2:] == [
        "| 403 | QdrantRequestError | UnexpectedResponse | 1 | QdrantRequestError, 1 request |",
        "| 503 | QdrantConnectionError | UnexpectedResponse | 3 | 1 hit, 2 requests |",
        "left behind: no thread, no socket, no other descriptor",
    ]
