"""uvicorn's HTTP connection, which also gives up clients that send or read nothing."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["timed_protocol"]


def timed_protocol(client_timeout_s: float) -> type[H11Protocol]:
    """Return uvicorn's protocol with a limit of time for headers, and for reading an answer.

    uvicorn itself waits for ever for the end of a header, and for a client that does not read.

    Args:
        client_timeout_s: seconds from the first wait for a header to its end, and seconds without
            progress of an answer.
    """

    class TimedProtocol(H11Protocol):
        _header_timer: asyncio.TimerHandle | None = None
        _write_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait_for_header()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop_header_timer()
            elif self._header_timer is None:
                self._wait_for_header()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            # From here on uvicorn's own timer counts, until the next request begins.
            if self.conn.their_state is h11.IDLE:
                self._stop_header_timer()

        def timeout_keep_alive_handler(self) -> None:
            if self.transport.get_write_buffer_size():
                self.transport.abort()  # the last answer was not read
            super().timeout_keep_alive_handler()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._write_timer = self.loop.call_later(client_timeout_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._write_timer is not None:
                self._write_timer.cancel()
                self._write_timer = None

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_header_timer()
            super().connection_lost(exc)  # which resumes writing

        def _wait_for_header(self) -> None:
            self._header_timer = self.loop.call_later(client_timeout_s, self.transport.abort)

        def _stop_header_timer(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

    return TimedProtocol
