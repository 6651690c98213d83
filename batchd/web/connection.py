"""One client's connection, which is closed when the client takes too long: to ask, or to read what it is told."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

LONGEST_ASKING_SECONDS = 10.0
"""From the connection, or the answer before, to the next whole request head; silence alone ends after 5 s."""

FIRST_ASKING_SECONDS = 0.5
"""How long a stop waits for the first request of a connection that was made just before it."""

LONGEST_UNREAD_SECONDS = 60.0
"""How long a client may read so little that what is to be sent to it piles up. A stream has a limit of its own."""


class Connection(H11Protocol):
    """uvicorn's, with an end for clients that send a head byte by byte or read nothing: they would stay for ever."""

    _asking: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _is_closing = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request."""
        super().connection_made(transport)
        self._expect_request()

    def data_received(self, data: bytes) -> None:
        """Take what has come; a head that is whole has come in time."""
        super().data_received(data)
        if self._is_at_work:
            self._forget_asking()

    def on_response_complete(self) -> None:
        """Expect the next request, unless it is there."""
        super().on_response_complete()
        if not self._is_at_work:
            self._expect_request()

    def pause_writing(self) -> None:
        """Begin to wait for the client to read."""
        super().pause_writing()
        self._forget_unread()
        self._unread = self.loop.call_later(LONGEST_UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: it has read."""
        self._forget_unread()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._forget_asking()
        self._forget_unread()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close, but let who has just connected ask and be answered first: nobody else would."""
        if self._cycle is None and not self._is_closing:
            self._is_closing = True
            self.loop.call_later(FIRST_ASKING_SECONDS, self.shutdown)
        elif not self.transport.is_closing():
            super().shutdown()

    @property
    def _cycle(self) -> RequestResponseCycle | None:
        """None until the first request, which uvicorn's annotation forgets."""
        return self.cycle

    @property
    def _is_at_work(self) -> bool:
        return self._cycle is not None and not self._cycle.response_complete

    def _expect_request(self) -> None:
        self._forget_asking()
        self._asking = self.loop.call_later(LONGEST_ASKING_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if not self.transport.get_write_buffer_size():
            self.transport.abort()
        elif self._unread is None:  # the end of an answer goes slowly
            self._unread = self.loop.call_later(LONGEST_UNREAD_SECONDS, self.transport.abort)

    def _forget_asking(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
