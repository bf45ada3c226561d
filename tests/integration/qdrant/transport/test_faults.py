"""Every fault of a server: one of our errors, as many requests as may help, and nothing left."""

import asyncio
import gc
import re
import subprocess
import sys
import time
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc import StatusCode as Code
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client import grpc as pb

from qdrant_rerank import AsyncHybridSearcher, HybridSearcher, SearchOptions
from qdrant_rerank.errors import (
    CollectionNotFoundError,
    QdrantConnectionError,
    QdrantError,
    QdrantRequestError,
)
from tests import fault_grpc
from tests.fault_grpc import serving_grpc, status
from tests.fault_server import Script, answer, dripping, dripping_headers, hanging, serving
from tests.faults import (
    EVERY_FAULT,
    FOUND,
    GOOD,
    QUERY,
    SCHEMA,
    STORED,
    Held,
    grpc_address,
    in_trouble,
    left_behind,
    refusal,
)

ROOT = Path(__file__).parents[4]


CANARY = "canary-7f3a91"
# As an API key is sent; the client warns of one over plain HTTP.
KEY = {"headers": {"api-key": CANARY}}


def sync_call(address, call, **options):
    """What one call of a sync searcher returns or raises."""
    client = QdrantClient(**{"timeout": 1} | KEY | address, check_compatibility=False)
    searcher = HybridSearcher(
        "docs", text="text", client=client, reranker=None, options=SearchOptions(**options)
    )
    try:
        return call(searcher)
    except Exception as error:
        return error
    finally:
        client.close()


def async_call(address, call, **options):
    """The same of an async one; no task is left in its loop."""

    async def main():
        client = AsyncQdrantClient(**{"timeout": 1} | KEY | address, check_compatibility=False)
        async with AsyncHybridSearcher(
            "docs", text="text", client=client, reranker=None, options=SearchOptions(**options)
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
def nothing_is_left(caplog):
    """No thread, socket or other descriptor that was not there before."""
    before = Held.now()
    yield
    caplog.get_records("call").clear()  # gRPC logs tracebacks, which hold what they ran through
    assert left_behind(before) == []


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", EVERY_FAULT, ids=lambda fault: fault.name)
def test_a_fault_is_our_error_and_is_asked_again_if_that_may_help(call, fault):
    """Within the time that a request may take; its cause is the client's own exception."""
    with in_trouble(fault) as trouble:
        began = time.monotonic()
        seen = call(
            trouble.address,
            lambda s: s.search("q"),
            retries=1,
            timeout_s=1 if "drip" in fault.name else None,
        )
        assert time.monotonic() - began < 60  # a drip lasts two minutes
    assert type(seen) is fault.error
    assert CANARY not in " ".join([str(seen), *getattr(seen, "__notes__", [])])
    assert seen.__cause__ is not None
    if fault.answer is not None:
        assert trouble.queries() == (2 if fault.again else 1)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "fault", [f for f in EVERY_FAULT if f.again and f.answer], ids=lambda fault: fault.name
)
def test_what_passes_is_a_search_like_any_other(call, fault):
    """And the trace tells how often it was asked again."""
    with in_trouble(fault, times=1) as trouble:
        found = call(
            trouble.address,
            lambda s: s.search("q"),
            retries=1,
            timeout_s=1 if "drip" in fault.name else None,
        )
    assert [hit.id for hit in found] == [1]
    assert (found.trace.retries, trouble.queries()) == (1, 2)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("over_grpc", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\x00"])
def test_a_key_that_no_header_can_hold_is_told_without_it(call, over_grpc, end):
    """Files with secrets often end in a newline."""
    fault = next(one for one in EVERY_FAULT if one.grpc == over_grpc and one.answer)
    with in_trouble(fault) as trouble:
        broken = {"headers": {"api-key": CANARY + end}}
        seen = call(trouble.address | broken, lambda s: s.search("q"))
        assert trouble.queries() == 0
    assert isinstance(seen, QdrantRequestError)
    assert "the API key, or another header" in str(seen)
    assert CANARY not in str(seen)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", [hanging, dripping, dripping_headers])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_deadline_ends_it_at_whichever_request(call, fault, method):
    """Retries included."""
    script = Script({"GET": [SCHEMA], "POST": [FOUND]} | {method: [fault]})
    with serving(script) as url:
        began = time.monotonic()
        seen = call({"url": url}, lambda s: s.search("q", deadline_s=0.9), retries=9, timeout_s=60)
        assert 0.8 < time.monotonic() - began < 30
    assert isinstance(seen, QdrantConnectionError)
    assert "in time" in str(seen)
    assert script.requests(method) == 1


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", [fault_grpc.hanging, fault_grpc.dripping])
@pytest.mark.parametrize("method", ["Collections/Get", "Points/Query"])
def test_a_deadline_ends_a_grpc_call_too(call, fault, method):
    """In fractions of a second; for the schema qdrant-client itself takes no timeout at all."""
    script = Script(GOOD | {method: [fault]})
    with serving_grpc(script) as port:
        address = grpc_address(port) | {"timeout": 60}
        began = time.monotonic()
        seen = call(address, lambda s: s.search("q", deadline_s=0.9), retries=9)
        assert 0.8 < time.monotonic() - began < 30
    assert isinstance(seen, QdrantConnectionError)
    assert "in time" in str(seen)
    assert script.requests(method) == 1


def test_a_deadline_that_is_kept_leaves_the_client_as_it_was():
    """The next gRPC call without one has the client's own timeout, here 1 s."""
    script = Script(GOOD | {QUERY: [*GOOD[QUERY], fault_grpc.hanging]})
    with serving_grpc(script) as port:

        def two(searcher):
            assert len(searcher.search("q", deadline_s=30)) == 1
            return searcher.search("q")

        seen = sync_call(grpc_address(port), two)
    assert "did not answer in time" in str(seen)


@pytest.mark.parametrize("call", CALLS)
def test_what_grpc_says_is_in_the_error(call):
    """With where it was asked, and what to do."""
    where = r"Qdrant at http://127\.0\.0\.1:\d+, gRPC port \d+ "
    for fault, said in (
        (status(Code.UNAUTHENTICATED, "Invalid API key"), "refused .*key.*QDRANT_API_KEY"),
        (status(Code.RESOURCE_EXHAUSTED, "slow", retry_after="7"), "too often .*in 7 s"),
        (status(Code.RESOURCE_EXHAUSTED, "slow"), "too often .*later"),
        (status(Code.DEADLINE_EXCEEDED, "slow"), "not answer in time.*deadline_s"),
        (status(Code.UNAVAILABLE, "starting"), "cannot be reached .*starting.*gRPC port"),
        (status(Code.UNIMPLEMENTED, ""), "does not know this call .*no older"),
        (status(Code.INTERNAL, "panic"), "answered INTERNAL: panic.*log"),
        (status(Code.OUT_OF_RANGE, "no"), r"refused the request for 'docs' \(OUT_OF_RANGE"),
        (status(Code.OUT_OF_RANGE, "message length too large"), "of this size.*batch_size"),
        (status(Code.NOT_FOUND, "Not found: Collection `docs` doesn't exist!"), "no collection"),
        (status(Code.NOT_FOUND, "Collection `other` doesn't exist!"), "refused .*`other`"),
        (fault_grpc.reply(b"\xff" * 9), "not Qdrant's|deserializing"),
    ):
        with serving_grpc(Script(GOOD | {QUERY: [fault]})) as port:
            seen = call(grpc_address(port), lambda s: s.search("q"))
        assert re.search(where + f".*({said})", str(seen)), seen


@pytest.mark.parametrize("call", CALLS)
def test_retry_after_is_obeyed(call):
    """In seconds; the backoff alone would be shorter. Too long for the deadline, it is an error."""
    for after, deadline_s, requests in (("1", None, 2), ("60", 20, 1), ("3600", None, 1)):
        busy = answer(429, refusal("slow down"), Retry_After=after)
        script = Script({"GET": [SCHEMA], "POST": [busy, FOUND]})
        with serving(script) as url:
            began = time.monotonic()
            call({"url": url}, lambda s, d=deadline_s: s.search("q", deadline_s=d), retries=2)
            took = time.monotonic() - began
        times = [when for method, _, when in script.seen if method == "POST"]
        assert len(times) == requests
        assert took < 30
        if requests == 2:
            assert times[1] - times[0] >= 1


@pytest.mark.parametrize("call", CALLS)
def test_a_request_that_cannot_be_written_is_not_an_answer_that_cannot_be_read(call):
    """qdrant-client raises a bare ValueError for both; only the second was sent."""
    script = Script(GOOD)
    with serving_grpc(script) as port:
        document = {"text": "a", "n": 2**63}  # REST holds it, a gRPC message does not
        seen = call(grpc_address(port), lambda s: s.add([document], progress=False))
    assert type(seen) is QdrantRequestError
    assert "cannot be asked that of 'docs'" in str(seen)
    assert type(seen.__cause__) is ValueError
    assert script.requests("Points/Upsert") == 0


@pytest.mark.parametrize("call", CALLS)
def test_adding_retries_too(call):
    """Ids are made of the texts, so a batch that arrives twice is stored once."""
    script = Script({"GET": [SCHEMA], "PUT": [answer(503, b""), answer(502, b""), STORED]})
    with serving(script) as url:
        assert call({"url": url}, lambda s: s.add(["a"], progress=False), retries=2) == 1
    assert script.requests("PUT") == 3


@pytest.mark.parametrize("call", CALLS)
def test_adding_retries_over_grpc_too(call):
    """What broke off may have been stored; sent again, it is stored once."""
    done = pb.PointsOperationResponse(
        result=pb.UpdateResult(operation_id=1, status=pb.UpdateStatus.Completed)
    )
    stored = fault_grpc.reply(done.SerializeToString())
    busy = status(Code.UNAVAILABLE, "starting")
    script = Script(GOOD | {"Points/Upsert": [busy, fault_grpc.broken_off, stored]})
    with serving_grpc(script) as port:
        assert call(grpc_address(port), lambda s: s.add(["a"], progress=False), retries=2) == 1
    assert script.requests("Points/Upsert") == 3


@pytest.mark.parametrize("call", CALLS)
def test_retry_after_is_obeyed_over_grpc(call):
    """It is in the call's trailers; too long for the deadline, it is an error at once."""
    for after, deadline_s, requests in (("1", None, 2), ("0.5", None, 2), ("60", 20, 1)):
        busy = status(Code.RESOURCE_EXHAUSTED, "slow down", retry_after=after)
        script = Script(GOOD | {QUERY: [busy, *GOOD[QUERY]]})
        with serving_grpc(script) as port:
            began = time.monotonic()
            call(grpc_address(port), lambda s, d=deadline_s: s.search("q", deadline_s=d), retries=2)
            assert time.monotonic() - began < 20
        times = [when for method, _, when in script.seen if method == QUERY]
        assert len(times) == requests
        assert requests == 1 or times[1] - times[0] >= float(after)


@pytest.mark.parametrize("call", CALLS)
def test_the_names_of_the_collections_do_not_hold_up_an_error(call):
    """They are a courtesy; asked for within the deadline, and left out where nobody answers."""
    missing = answer(404, refusal("Collection `docs` doesn't exist"))
    script = Script({"GET": [missing, hanging]})
    with serving(script) as url:
        began = time.monotonic()
        seen = call({"url": url}, lambda s: s.search("q", deadline_s=1.5))
        assert time.monotonic() - began < 30
    assert isinstance(seen, CollectionNotFoundError)
    assert str(seen).endswith("no collection 'docs'. HybridSearcher.add(documents) creates it.")


def test_a_cancelled_search_closes_its_connection():
    """At once, during the body."""

    async def main(url):
        client = AsyncQdrantClient(url=url, timeout=60, check_compatibility=False)
        async with AsyncHybridSearcher(
            "docs", client=client, reranker=None, text="text"
        ) as searcher:
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


def test_a_cancelled_search_gives_up_its_grpc_call():
    """The server is told, and nothing is left of it."""
    calls = []

    def respond(call):
        calls.append(call)
        fault_grpc.dripping(call)

    async def main(port):
        client = AsyncQdrantClient(**grpc_address(port), timeout=60, check_compatibility=False)
        async with AsyncHybridSearcher(
            "docs", client=client, reranker=None, text="text"
        ) as searcher:
            task = asyncio.create_task(searcher.search("q"))
            while not calls:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(calls[0].gone.wait, 10)  # the client's timeout is 60
            assert asyncio.all_tasks() == {asyncio.current_task()}
        await client.close()

    with serving_grpc(Script(GOOD | {QUERY: [respond]})) as port:
        asyncio.run(main(port))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("prefer_grpc", [False, True])
@pytest.mark.parametrize("used", [False, True])
def test_a_client_that_was_closed_is_named(call, prefer_grpc, used):
    """Before its first call or after; not a bare error of four kinds."""

    async def closed_async(searcher):
        await searcher.client.close()
        return await searcher.search("q")

    def closed(searcher):
        searcher.client.close()
        return searcher.search("q")

    async def used_async(searcher):
        await searcher.search("q")
        return await closed_async(searcher)

    def used_sync(searcher):
        searcher.search("q")
        return closed(searcher)

    calls = (closed_async, used_async) if call is async_call else (closed, used_sync)
    with (
        serving_grpc(Script(GOOD)) as port,
        serving(Script({"GET": [SCHEMA], "POST": [FOUND]})) as url,
    ):
        seen = call({"url": url, "grpc_port": port, "prefer_grpc": prefer_grpc}, calls[used])
    assert isinstance(seen, QdrantConnectionError)
    assert "was closed, or the event loop" in str(seen)


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
                "docs", text="text", client=client, reranker=None, options=options
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
    """One line per fault, the same for both searchers."""
    only = ["503", "403", "gRPC: UNAVAILABLE"]
    command = [sys.executable, "-m", "benchmarks.faults", "--markdown", "--only", *only]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[2:] == [
        "| 403 | QdrantRequestError | UnexpectedResponse | 1 | QdrantRequestError, 1 request |",
        "| 503 | QdrantConnectionError | UnexpectedResponse | 3 | 1 hit, 2 requests |",
        "| gRPC: UNAVAILABLE | QdrantConnectionError | RpcError(UNAVAILABLE) | 3 | "
        "1 hit, 2 requests |",
        "left behind: no thread, no socket, no other descriptor",
    ]
