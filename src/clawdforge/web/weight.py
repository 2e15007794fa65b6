"""The weight of the bodies in hand: a bound on what all requests together keep in memory.

A body is kept whole, decoded, written down and sent to an agent: at its worst it takes ten times
its size. So a large one is let in only while the others leave room for it; else its caller is told
503 before a byte of it is kept. Small ones are let in: the number of connections bounds them.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

from clawdforge.errors import MachineFull
from clawdforge.web.inflow import STREAMED
from clawdforge.web.problems import Problem, describe_error

SMALL_BYTES: Final = 64 * 1024

BODIES: Final = 4
"""So many of the largest bodies at once: 64 MiB by default, 640 MiB at their worst."""

RETRY_SECS: Final = 2


class Scales:
    """What the large bodies in hand weigh together."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self.limit_bytes: Final = BODIES * max_body_bytes
        self.bytes = 0

    def __repr__(self) -> str:
        return f"<Scales {self.bytes} of {self.limit_bytes} bytes>"

    @contextmanager
    def carrying(self, scope: MutableMapping[str, Any]) -> Iterator[Problem | None]:
        """Count the request's body for as long as the block runs; or the refusal, uncounted."""
        weight = self._weigh(scope)
        if weight and self.bytes + weight > self.limit_bytes:
            yield describe_error(MachineFull(RETRY_SECS, "room for large bodies"))
            return
        self.bytes += weight
        try:
            yield None
        finally:
            self.bytes -= weight

    def _weigh(self, scope: MutableMapping[str, Any]) -> int:
        """What the body may come to; 0 when it is small, streamed, or too large to be taken."""
        if (scope["method"], scope["path"]) in STREAMED:
            return 0
        headers = dict(scope["headers"])
        if b"transfer-encoding" in headers:
            return self._max_body_bytes  # it does not say
        length = headers.get(b"content-length", b"0")
        size = int(length) if length.isdigit() else self._max_body_bytes
        return size if SMALL_BYTES < size <= self._max_body_bytes else 0
