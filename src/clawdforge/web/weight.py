"""The weight of the bodies in hand: a bound on what all requests together keep in memory.

A body is kept whole, decoded, written down and sent to an agent: at its worst it takes ten times
its size. So a large one is let in only while the others leave room for it; else its caller is told
503 before a byte of it is kept. Small ones are let in: the number of connections bounds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from clawdforge.errors import MachineFull
from clawdforge.web.inflow import STREAMED
from clawdforge.web.problems import Problem, describe_error
from clawdforge.web.trace import Trace

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

    def weigh(self, scope: Mapping[str, Any], trace: Trace) -> int:
        """What the body may come to; 0 when it is small, streamed, or too large to be taken."""
        if (scope["method"], scope["path"]) in STREAMED:
            return 0
        size = 0
        for name, value in trace.headers:
            if name == "transfer-encoding":
                return self._max_body_bytes  # it does not say
            if name == "content-length":
                is_number = value.isascii() and value.isdigit()
                size = int(value) if is_number else self._max_body_bytes
        return size if SMALL_BYTES < size <= self._max_body_bytes else 0

    def find_no_room(self, weight: int) -> Problem | None:
        """The refusal of a body that does not fit beside the others."""
        if weight and self.bytes + weight > self.limit_bytes:
            return describe_error(MachineFull(RETRY_SECS, "room for large bodies"))
        return None
