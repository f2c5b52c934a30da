"""The HTTP server: h11 with limits on the size and the time of headers, and an end that answers what was accepted."""

from __future__ import annotations

import asyncio
from types import FrameType
from typing import final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ptv2kit.serve.guard import Guard
from ptv2kit.serve.settings import Settings

_AFTER_GRACE = 5
"""Seconds for sending the last answers."""


def build_server(app: Guard, settings: Settings) -> uvicorn.Server:
    """A server of the application.

    h11 is used even where httptools is installed, which takes headers of any size.
    """

    class Protocol(_LimitedProtocol):
        header_timeout = settings.header_timeout

    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        h11_max_incomplete_event_size=settings.max_header,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(settings.grace) + _AFTER_GRACE,
    )
    return _Server(config, app, settings.grace)


@final
class _Server(uvicorn.Server):
    """Ends in order: requests that were accepted are answered for `grace` seconds, the rest of them get a 503."""

    def __init__(self, config: uvicorn.Config, app: Guard, grace: float) -> None:
        super().__init__(config)
        self._app = app
        self._grace = grace
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, *args: object, **kwargs: object) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(*args, **kwargs)  # pyright: ignore[reportArgumentType]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._app.drain, self._grace)


class _LimitedProtocol(H11Protocol):
    """Closes a connection on which the headers of a request do not come in time."""

    header_timeout: float
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._expect_headers()
        else:
            self._forget_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.header_timeout, self._cut_off)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut_off(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()
