"""What one sweep does: sessions to stop, to close and to delete. A pure plan; ``now`` is given.

The ledger is the truth: an actor whose row is closed, missing or of a revoked app is stopped, and
its slot is free before the row goes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import attrs

from clawdforge.domain.ids import AppName, SessionId
from clawdforge.domain.ports import SessionRow


@attrs.frozen
class LiveSession:
    """What the pool knows of a live actor: whose it is, and whether a turn waits or works."""

    app: AppName
    is_busy: bool


@attrs.frozen
class Lifetimes:
    """``idle_secs`` without a turn closes a session; ``closed_secs`` after that deletes its row."""

    idle_secs: int
    closed_secs: int


@attrs.frozen
class SweepPlan:
    """Stop first, then close, then delete. A deleted session may also be in ``stop``."""

    stop: tuple[tuple[SessionId, str], ...] = ()
    close: tuple[SessionId, ...] = ()
    delete: tuple[SessionId, ...] = ()


@attrs.frozen
class SweepCounts:
    """What one sweep did."""

    soft_closed: int = 0
    hard_deleted: int = 0


def plan_sweep(
    rows: Sequence[SessionRow],
    live: Mapping[SessionId, LiveSession],
    apps: Collection[AppName],
    lifetimes: Lifetimes,
    now: int,
) -> SweepPlan:
    """Decide for every row and every live actor. ``apps`` are those whose token is valid."""
    by_id = {row.session_id: row for row in rows}
    stop = [
        (session_id, cause)
        for session_id, actor in live.items()
        if (cause := _reason_to_stop(by_id.get(session_id), actor, apps))
    ]
    stopped = {session_id for session_id, _ in stop}
    close = [
        row.session_id
        for row in rows
        if row.session_id not in stopped and _is_idle(row, live, lifetimes, now)
    ]
    delete = [
        row.session_id
        for row in rows
        if row.closed_at is not None and now - row.closed_at > lifetimes.closed_secs
    ]
    return SweepPlan(tuple(stop), tuple(close), tuple(delete))


def _reason_to_stop(
    row: SessionRow | None, actor: LiveSession, apps: Collection[AppName]
) -> str | None:
    if row is None:
        return "deleted"
    if row.closed_at is not None:
        return row.close_cause or "closed"
    if actor.app not in apps:
        return "revoked"
    return None


def _is_idle(
    row: SessionRow, live: Mapping[SessionId, LiveSession], lifetimes: Lifetimes, now: int
) -> bool:
    """Idle since the last turn, else since creation; a turn in progress is not idle."""
    if row.closed_at is not None:
        return False
    actor = live.get(row.session_id)
    if actor is not None and actor.is_busy:
        return False
    since = row.created_at if row.last_turn_at is None else row.last_turn_at
    return now - since > lifetimes.idle_secs
