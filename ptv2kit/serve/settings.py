"""What a server allows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final


@final
@dataclass(frozen=True)
class Settings:
    """Limits of a server; each request beyond one is refused with a status of its own.

    Args:
        batch_tokens: tokens per forward pass, padding included.
        max_wait: seconds that a row waits for others to share its pass.
        queue: rows that may wait for an answer, of all requests; more: 429, or 413 if one request has more.
        max_rows: of one request; more: 422.
        max_characters: of one row, all columns together; more: 422.
        max_body: bytes of a request's body; more: 413.
        max_header: bytes of a request's headers; more: 431, or 400 where they come in pieces.
        header_timeout: seconds for a request's headers to come, after which the connection is closed with 408.
        grace: seconds for which a server that is to end still answers what it has accepted; then: 503.
        timeout: seconds until a request is given up: 503, or 408 if its body has not come by then.
        token: that clients have to send; None: none.
        manage: folder from whose runs clients may add prompts; None: they may neither add nor remove any.
        local_only: whether only requests to a name of this machine are answered, so that no web page can reach a
            server without a token through a name of its own.
    """

    batch_tokens: int = 8192
    max_wait: float = 0.002
    queue: int = 1024
    max_rows: int = 256
    max_characters: int = 100_000
    max_body: int = 4_000_000
    max_header: int = 16_384
    header_timeout: float = 10.0
    grace: float = 10.0
    timeout: float = 60.0
    token: str | None = None
    manage: Path | None = None
    local_only: bool = True
