"""The server of the Model Context Protocol, asked by the SDK's own client."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager

import httpx
import pytest
from click.testing import CliRunner

from qdrant_rerank import HybridSearcher
from qdrant_rerank.cli.main import main
from tests.integration.integrations.frameworks import IRON, QUERY, TEXTS, needed

needed("mcp")

from mcp import StdioServerParameters
from qdrant_client import QdrantClient

from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.integrations.mcp import make_server

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@asynccontextmanager
async def session_with(server):
    """The SDK's client of a server in this process, at a URL, or that the client starts."""
    try:
        from mcp import Client
    except ImportError:  # mcp 1 has no such client
        async with session_of_mcp_1(server) as session:
            yield session
    else:
        async with Client(server) as session:
            yield session


@asynccontextmanager
async def session_of_mcp_1(server):
    """The same, of the SDK's parts."""
    from mcp import ClientSession
    from mcp.client.stdio import stdio_client
    from mcp.client.streamable_http import streamablehttp_client
    from mcp.shared.memory import create_connected_server_and_client_session

    if isinstance(server, str | StdioServerParameters):
        connect = streamablehttp_client if isinstance(server, str) else stdio_client
        async with connect(server) as streams, ClientSession(*streams[:2]) as session:
            await session.initialize()
            yield session
    else:
        async with create_connected_server_and_client_session(server) as session:
            yield session


async def call(session, tool, **arguments):
    """Whether a tool failed, the text of its answer, and what it returned."""
    done = await session.call_tool(tool, arguments)
    answer = done.model_dump(mode="json", by_alias=True)
    texts = " ".join(part["text"] for part in answer["content"])
    return answer["isError"], texts, (answer["structuredContent"] or {}).get("result")


def arguments(tmp_path, *more):
    """Arguments of Python that start the server on a directory."""
    place = ["--path", str(tmp_path / "db"), "--collection", "notes"]
    return ["-m", "qdrant_rerank", "mcp", *place, *more]


@asynccontextmanager
async def over_stdio(tmp_path, *more):
    """A session with a server that the client starts."""
    parameters = StdioServerParameters(
        command=sys.executable, args=arguments(tmp_path, *more), env=dict(os.environ)
    )
    async with session_with(parameters) as session:
        yield session


@asynccontextmanager
async def over_http(tmp_path, *more):
    """A session with a server on a free port of loopback."""
    with served(tmp_path, *more) as port:
        async with session_with(f"http://127.0.0.1:{port}/mcp") as session:
            yield session


@contextmanager
def served(tmp_path, *more):
    """The port of a server of its own; it prints nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, *arguments(tmp_path, "--transport", "http", "--port", str(port), *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(1200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        printed, _ = process.communicate()
        assert printed == b""


@pytest.mark.parametrize("connect", [over_stdio, over_http])
def test_an_agent_adds_and_searches(tmp_path, connect):
    """By both transports; a filter narrows, and a wrong call has an error that says why."""

    async def work():
        async with connect(tmp_path) as session:
            tools = (await session.list_tools()).model_dump(by_alias=True, exclude_none=True)[
                "tools"
            ]
            hints = {tool["name"]: tool["annotations"] for tool in tools}
            assert hints == {
                "search": {"readOnlyHint": True},
                "add": {"destructiveHint": False, "idempotentHint": True},
            }
            added = await call(session, "add", texts=TEXTS, metadata={"year": 2020})
            assert added[:2] == (False, "3 stored in 'notes'.")
            _, _, hits = await call(session, "search", query=QUERY, limit=2)
            assert hits[0]["text"] == IRON
            assert hits[0]["metadata"] == {"year": 2020}
            assert hits[0]["rerank_score"] > hits[1]["rerank_score"]
            none = {"must": [{"key": "year", "match": {"value": 1990}}]}
            assert await call(session, "search", query=QUERY, query_filter=none) == (False, "", [])
            for wrong, told in [
                ({"query": " "}, "query is empty"),
                ({"query": QUERY, "limit": 0}, "limit"),
                ({"query": QUERY, "query_filter": {"most": []}}, "is no part of a filter"),
            ]:
                failed, text, _ = await call(session, "search", **wrong)
                assert failed
                assert told in text
                assert "Traceback" not in text

    asyncio.run(work())


def test_nothing_but_the_protocol_is_on_stdout(tmp_path):
    """Whatever a model prints: an embedder that prints, in Python and below it."""
    script = tmp_path / "serve.py"
    script.write_text(
        "import os\n"
        "from qdrant_client import QdrantClient\n"
        "from qdrant_rerank import HybridSearcher\n"
        "from qdrant_rerank.integrations.mcp import make_server, serve_stdio\n"
        "def embed(texts):\n"
        "    print('printed by Python')\n"
        "    os.write(1, b'printed below\\n')\n"
        "    return [[1.0, float(len(text))] for text in texts]\n"
        "searcher = HybridSearcher('n', client=QdrantClient(':memory:'), embedder=embed)\n"
        "serve_stdio(make_server(searcher))\n"
    )
    hello = {
        "protocolVersion": "2025-03-26",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    call = {"name": "add", "arguments": {"texts": ["a text"]}}
    asked = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call},
    ]
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for message in asked:
        process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()
    answers = [json.loads(process.stdout.readline()) for _ in range(2)]
    rest, told = process.communicate()
    assert (rest, [answer["id"] for answer in answers]) == ("", [1, 2])
    assert "1 stored" in json.dumps(answers[1])
    assert "printed by Python" in told
    assert "printed below" in told


def test_a_server_that_only_reads_has_no_add():
    """Asked in the same process."""

    async def names(server):
        async with session_with(server) as session:
            return [tool.name for tool in (await session.list_tools()).tools]

    with HybridSearcher("notes", client=QdrantClient(":memory:")) as searcher:
        assert asyncio.run(names(make_server(searcher, read_only=True))) == ["search"]
        searcher.client.close()
    with pytest.raises(InvalidInputError, match="expected a HybridSearcher"):
        make_server("notes")


def test_a_page_of_another_host_is_refused(tmp_path):
    """A browser that was sent to this machine cannot use the tools."""
    with served(tmp_path) as port:
        headers = {"Accept": "application/json, text/event-stream", "Host": "evil.example"}
        answer = httpx.post(f"http://127.0.0.1:{port}/mcp", json={}, headers=headers)
    assert answer.status_code == 421


def test_an_address_that_cannot_be_listened_at_is_refused_first(tmp_path):
    """A port in use, and a host of another machine; no directory is made."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for more in (["--port", port], ["--port", port, "--host", "192.0.2.1"]):
            done = CliRunner().invoke(main, arguments(tmp_path, "--transport", "http", *more)[2:])
            assert (done.exit_code, "cannot be listened at" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("payload", "stored"),
    [
        ({"page_content": IRON, "metadata": {}}, {"page_content": "New.", "metadata": {"n": 1}}),
        ({"document": IRON, "metadata": {}}, {"document": "New.", "metadata": {"n": 1}}),
        ({"text": IRON}, {"text": "New.", "n": 1}),
    ],
)
def test_texts_are_stored_as_the_writer_of_the_collection_does(payload, stored):
    """So that LangChain and mcp-server-qdrant read what an agent added."""

    async def add(server):
        async with session_with(server) as session:
            return await call(session, "add", texts=["New."], metadata={"n": 1})

    client = QdrantClient(":memory:")
    with HybridSearcher("notes", client=client, text=next(iter(payload))) as first:
        first.add([payload])
    searcher = HybridSearcher("notes", client=client)
    failed, text, _ = asyncio.run(add(make_server(searcher)))
    assert not failed, text
    assert stored in [record.payload for record in client.scroll("notes")[0]]
    client.close()


def test_texts_without_a_place_of_their_own_are_refused():
    """A template reads several fields; a text in another one would not be found."""

    async def add(server, **metadata):
        async with session_with(server) as session:
            return await call(session, "add", texts=["New."], **metadata)

    client = QdrantClient(":memory:")
    with HybridSearcher("notes", client=client, text="{title}\n{body}") as searcher:
        searcher.add([{"title": "Metals", "body": IRON}])
        for metadata in ({}, {"metadata": {"title": "Lost"}}):
            failed, text, _ = asyncio.run(add(make_server(searcher), **metadata))
            assert failed
            assert "which is not one field" in text
    assert client.count("notes").count == 1
    client.close()
