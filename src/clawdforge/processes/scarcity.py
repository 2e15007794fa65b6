"""Telling a machine that is full from an agent that is broken: by the error the kernel gave."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

from clawdforge.domain.ids import AgentName
from clawdforge.errors import AgentNotStarted, ClawdforgeError, MachineFull

RETRY_SECS: Final = 5
"""Retry-After: sessions come and go in seconds."""

SCARCE: Final[Mapping[int, str]] = {
    errno.EMFILE: "open files",
    errno.ENFILE: "open files",
    errno.EAGAIN: "processes",
    errno.ENOMEM: "memory",
    errno.ENOSPC: "room on the disk",
    errno.EDQUOT: "room on the disk",
}
"""fork(2), pipe(2), write(2)."""


def describe_failed_start(agent: AgentName, what: str, error: OSError) -> ClawdforgeError:
    """What to raise (``from error``) when ``what`` failed: MachineFull, else AgentNotStarted."""
    scarce = SCARCE.get(error.errno or 0)
    if scarce is not None:
        return MachineFull(RETRY_SECS, scarce)
    return AgentNotStarted(agent, f"{what}: {error.strerror or 'it could not be started'}")
