"""HTTP/1.1 that does not wait for slow clients."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from .limits import Limits


class WatchedProtocol(H11Protocol):
    """Closes connections whose client takes too long to send the head of a request, or to read an answer.

    Make the class for some limits by `watched`.
    """

    limits = Limits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the head of the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Go on waiting where the head is not whole yet: the time began with its first byte."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Let the time that idle connections have run: `timeout_keep_alive` of uvicorn."""
        super().on_response_complete()
        self._watch(idle=True)

    def pause_writing(self) -> None:
        """Begin to wait for the client to read."""
        self.flow.pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        self.flow.resume_writing()
        _stop(self._unread)
        self._unread = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        _stop(self._head)
        _stop(self._unread)
        self._head = self._unread = None
        super().connection_lost(exc)

    def _watch(self, idle: bool = False) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or idle or self.transport.is_closing():
            _stop(self._head)
            self._head = None
        elif self._head is None:
            self._head = self.loop.call_later(self.limits.header_seconds, self.transport.abort)


def watched(limits: Limits) -> type[WatchedProtocol]:
    """Return the protocol for some limits."""
    return type("LimitedProtocol", (WatchedProtocol,), {"limits": limits})


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
