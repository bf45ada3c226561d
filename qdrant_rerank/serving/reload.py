"""An application that is replaced between requests: none is dropped, none waits."""

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Reloadable"]


class Reloadable:
    """Runs an ASGI application, and the next one after :meth:`replace`.

    A request belongs to the application that was there when it came. An application ends its
    lifespan when the last of its requests has its answer.

    Args:
        app: the first application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._current = _Generation(app)
        self._ending: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the lifespan, or one connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            # A copy, since the application enters itself: a connection keeps the scope of its last
            # request, and would keep the application in memory after a reload.
            await self._current.handle({**scope}, receive, send)

    async def replace(self, make: Callable[[], ASGIApp]) -> asyncio.Task[None]:
        """Make an application in a thread, and give it all requests from then on.

        Returns a task that is done when the old application has ended.

        Raises:
            Exception: it cannot be made; the old one stays.
        """
        following = _Generation(await asyncio.to_thread(make))
        await following.start()
        old, self._current = self._current, following
        ending = asyncio.create_task(old.end())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        return ending

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._current.start()
        except RuntimeError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.gather(self._current.end(), *self._ending)
        await send({"type": "lifespan.shutdown.complete"})


class _Generation:
    """An application, its lifespan, and its requests without an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._requests += 1
        self._idle.clear()
        try:
            await self._app(scope, receive, send)
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle.set()

    async def start(self) -> None:
        """Start the lifespan.

        Raises:
            RuntimeError: the application refused.
        """
        scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        lifespan = self._app(scope, self._to_app.get, self._from_app.put)
        self._task = asyncio.ensure_future(lifespan)
        await self._to_app.put({"type": "lifespan.startup"})
        answer = await self._from_app.get()
        if answer["type"] != "lifespan.startup.complete":
            raise RuntimeError(answer.get("message", "the application did not start"))

    async def end(self) -> None:
        """End the lifespan after the last request."""
        await self._idle.wait()
        if self._task is not None:
            await self._to_app.put({"type": "lifespan.shutdown"})
            await self._task
