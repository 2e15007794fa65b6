"""Who may live: whether the pool takes one more session. A pure decision; no waiting, no state."""

from __future__ import annotations

from typing import Final

from clawdforge.errors import CapacityError, PoolFull, ShuttingDown

RETRY_FULL_SECS: Final = 5
"""Retry-After of a full pool: the cancel grace, after which a session being closed is gone."""

RETRY_DRAINING_SECS: Final = 30
"""Retry-After while draining: the default drain deadline, after which a restart may be up."""


def refuse_admission(*, live: int, limit: int, is_draining: bool) -> CapacityError | None:
    """Why one more session is refused, or None if it is admitted.

    ``live`` counts every session from its admission until its process tree is proved dead.
    """
    if is_draining:
        return ShuttingDown(RETRY_DRAINING_SECS)
    if live >= limit:
        return PoolFull(RETRY_FULL_SECS, limit)
    return None
