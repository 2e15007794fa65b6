"""The admin's route to a drain: the same path as SIGTERM, for who cannot send signals."""

from __future__ import annotations

from typing import Final

from clawdforge.web.answers import Done
from clawdforge.web.bodies import Nothing
from clawdforge.web.operations import Call, Operation


async def drain(call: Call[Nothing]) -> Done:
    """Begin to drain, and answer at once; under ``clawdforge serve`` the process ends after it."""
    call.service.request_drain()
    return Done()


OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/admin/drain",
        gate="admin",
        handle=drain,
        summary="Take nothing new, finish what there is, then stop",
    ),
)
