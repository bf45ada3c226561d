"""The traceback of a search that fails: short, and gone with its error."""

import asyncio
import gc
import traceback
from contextlib import suppress
from pathlib import Path
from types import FrameType

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient

import qdrant_rerank
from qdrant_rerank import AsyncHybridSearcher, HybridSearcher
from qdrant_rerank.errors import CollectionNotFoundError
from qdrant_rerank.qdrant.embedded.client import EdgeClient
from tests.loopback_qdrant import loopback_qdrant

PACKAGE = str(Path(qdrant_rerank.__file__).parent)
MOST_FRAMES = 8


@pytest.fixture(scope="module")
def clients():
    """By engine: a client of the sync kind, and what makes one for an event loop."""
    engine = EdgeClient()
    with loopback_qdrant() as (url, _):
        server = QdrantClient(url=url, check_compatibility=False)
        yield {
            "embedded": (engine, lambda: engine),
            "server": (server, lambda: AsyncQdrantClient(url=url, check_compatibility=False)),
        }
        server.close()
    engine.close()


def search(clients, engine, kind, seen):
    """Search in a collection that is not there, and look at what is raised."""
    client, make = clients[engine]

    async def main():
        async_client = make()
        async with AsyncHybridSearcher("absent", client=async_client, reranker=None) as searcher:
            try:
                await searcher.search("q")
            except CollectionNotFoundError as error:
                seen(error)
        if async_client is not client:
            await async_client.close()

    if kind == "async":
        asyncio.run(main())
        return
    try:
        HybridSearcher("absent", client=client, reranker=None).search("q")
    except CollectionNotFoundError as error:
        seen(error)


def frames_in_garbage():
    """Names of the functions of ours whose frames only the garbage collector frees."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return [
            one.f_code.co_name
            for one in gc.garbage
            if isinstance(one, FrameType) and one.f_code.co_filename.startswith(PACKAGE)
        ]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


@pytest.mark.parametrize("engine", ["embedded", "server"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_missing_collection_raises_through_few_frames(clients, engine, kind):
    """A reader sees the way of the query, not the machinery around it."""
    names = []

    def note(error):
        names.extend(
            frame.name
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename.startswith(PACKAGE)
        )

    search(clients, engine, kind, note)
    assert "_rank" in names
    assert len(names) <= MOST_FRAMES, names


@pytest.mark.parametrize("engine", ["embedded", "server"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_no_frame_outlives_the_error(clients, engine, kind):
    """No frame of ours waits for the garbage collector, which would keep all that it refers to."""

    search(clients, engine, kind, id)  # once before, for all that is made once
    gc.collect()
    gc.disable()
    try:
        search(clients, engine, kind, id)
        left = frames_in_garbage()
    finally:
        gc.enable()
    assert left == []


class Failing:
    """A reranker that is out of order."""

    def rerank(self, query, documents):
        raise RuntimeError("out of order")


def test_no_frame_outlives_the_error_of_a_thread():
    """The error of a reranker comes from another thread into the event loop."""

    async def main():
        async with AsyncHybridSearcher("docs", reranker=Failing()) as searcher:
            await searcher.add(["iron"], progress=False)
            gc.collect()
            gc.disable()
            try:
                with suppress(RuntimeError):
                    await searcher.search("iron")
                return frames_in_garbage()
            finally:
                gc.enable()

    assert asyncio.run(main()) == []
