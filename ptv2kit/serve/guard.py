"""What stands between the network and the routes: who may ask, how much, how long; and no fault of ours gets out."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ptv2kit.serve.meters import Meters
from ptv2kit.serve.settings import Settings

_NOTES = logging.getLogger("ptv2kit.serve")
INTERNAL = "internal error; the server's log tells more"
_OPEN = ("/health",)
"""What needs no token: what watches over the process asks it."""
_SINGLE = ("host", "authorization", "content-length", "content-type")
_LOCAL = ("localhost", "127.0.0.1", "[::1]")


@final
class _RefusedError(Exception):
    """A request that goes no further.

    Args:
        detail: shown to the client.
        headers: of the answer, besides.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


@final
class Guard:
    """Wraps an application; a request that it refuses does not reach it.

    Args:
        app: what answers.
        settings: the token, the names of the host, the limits of body and time.
        meters: told of each request.
        drain: called with the seconds after which the requests that still wait are refused.
        debug: whether a fault of ours is noted with its traceback.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        meters: Meters,
        drain: Callable[[float], None],
        *,
        debug: bool = False,
    ) -> None:
        self._app = app
        self._settings = settings
        self._meters = meters
        self._debug = debug
        self.drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; other kinds of connection are the application's matter."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500
        began = time.monotonic()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            await send(message)

        try:
            await self._answer(scope, receive, noted)
        finally:
            # The route's own pattern, so that a client cannot make up as many series as it likes.
            route = getattr(scope.get("route"), "path", "other")
            self._meters.requests.labels(route, str(status)).inc()
            self._meters.request_seconds.labels(route).observe(time.monotonic() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = finished = False

        async def sending(message: Message) -> None:
            nonlocal started, finished
            started = True
            await send(message)
            finished = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            self._check_size(scope["headers"])
            headers = _single_headers(scope["headers"])
            self._check_host(headers)
            self._check_token(scope["path"], headers)
            body = await self._body_in_time(headers, receive)
            await self._app(scope, _replayed(body, receive), sending)
        except _RefusedError as refused:
            await _send_fault(send, refused)
        except Exception as error:
            traced = "\n" + "".join(traceback.format_exception(error)) if self._debug else ""
            _NOTES.warning("error: internal error: %s: %s%s", type(error).__name__, error, traced)
            if finished:  # Starlette has answered 500; raising would cut the connection that the client keeps using
                return
            if started:
                raise
            await _send_fault(send, _RefusedError(500, INTERNAL))

    def _check_size(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        """h11 counts only what comes in several pieces."""
        limit = self._settings.max_header
        if sum(len(name) + len(value) + 4 for name, value in raw) > limit:
            raise _RefusedError(431, f"the headers have more than {limit} bytes", {"connection": "close"})

    def _check_host(self, headers: Mapping[str, str]) -> None:
        """Web pages reach a server of this machine through a name of their own; such a name is not a local one."""
        host = headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self._settings.local_only and name not in _LOCAL:
            raise _RefusedError(421, "this server answers to localhost only; start it with a token to use other names")

    def _check_token(self, path: str, headers: Mapping[str, str]) -> None:
        token = self._settings.token
        if token is None or path in _OPEN:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise _RefusedError(401, "expected a bearer token that this server knows", {"www-authenticate": "Bearer"})

    async def _body_in_time(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        seconds = self._settings.timeout
        try:
            return await asyncio.wait_for(self._body(headers, receive), seconds)
        except TimeoutError as error:
            raise _RefusedError(408, f"the body did not come within {seconds:g} s") from error

    async def _body(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        """The whole body, unless it is too large."""
        limit = self._settings.max_body
        too_large = _RefusedError(413, f"the body has more than {limit} bytes", {"connection": "close"})
        length = headers.get("content-length", "0")
        if length.isdigit() and len(length) < 20 and int(length) > limit:
            raise too_large
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return bytes(body)
            body += message.get("body", b"")
            if len(body) > limit:
                raise too_large
            if not message.get("more_body", False):
                return bytes(body)


def _single_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The headers of a request by their lower-case names.

    Raises:
        _RefusedError: one that must be single is there twice, so that two readers could take different ones.
    """
    headers: dict[str, str] = {}
    for name, value in raw:
        key = name.decode("latin-1").lower()
        if key in headers and key in _SINGLE:
            raise _RefusedError(400, f"the header '{key}' is there twice", {"connection": "close"})
        headers[key] = value.decode("latin-1")
    return headers


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read already, and then whatever still comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _send_fault(send: Send, refused: _RefusedError) -> None:
    body = json.dumps({"detail": refused.detail}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refused.headers}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
