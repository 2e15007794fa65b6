"""The event log in SQL: numbered ACP messages, the oldest dropped past a size.

Plain functions on one connection, as in :mod:`.ledger`. ``sessions.last_event`` is the last number
that is spoken for, ``sessions.event_bytes`` what the log holds: a number at or below the first that
has no row is one that was dropped or lost. What they promise is said in ``domain.ports.Store``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

import apsw

from clawdforge.domain.events import EVENT_RESERVE, EventBatch, EventPage, NumberedEvent
from clawdforge.domain.ids import SessionId

INSERT: Final = "INSERT INTO agent_events (session_id, number, message) VALUES "
ROWS: Final = 16
"""The most events that one statement inserts: each statement costs the writer's thread more than a
row does."""

READ: Final = "SELECT number, message FROM agent_events WHERE session_id = ? AND number > ?"
OLDEST: Final = "SELECT number, octet_length(message) FROM agent_events WHERE session_id = ?"


def append_events(db: apsw.Connection, batch: EventBatch, *, worked_at: int | None = None) -> None:
    """Numbers that are spoken for already are left alone, and so is a session that is gone.

    With ``worked_at`` the session has worked until then; that is noted with the same stroke.
    """
    state = _state(db, batch.session_id)
    if state is None:
        return
    last, held_bytes = state
    fresh = [event for event in batch.events if event.number > last]
    if fresh:
        _insert(db, batch.session_id, fresh)
        last = fresh[-1].number
        held_bytes += sum(event.size_bytes for event in fresh)
        held_bytes -= _trim(db, batch.session_id, held_bytes - batch.keep_bytes)
    if fresh or worked_at is not None:
        db.execute(
            "UPDATE sessions SET last_event = ?1, event_bytes = ?2,"
            " last_turn_at = coalesce(max(last_turn_at, ?3), last_turn_at, ?3)"
            " WHERE session_id = ?4",
            (last, held_bytes, worked_at, batch.session_id),
        )


def _insert(db: apsw.Connection, session_id: SessionId, events: Sequence[NumberedEvent]) -> None:
    for first in range(0, len(events), ROWS):
        some = events[first : first + ROWS]
        values = [value for event in some for value in (event.number, event.message)]
        db.execute(_insertion(len(some)), (session_id, *values))


@cache
def _insertion(count: int) -> str:
    """The statement for so many rows, at most ``ROWS``."""
    values = ", ".join(f"(?1, ?{2 * row + 2}, ?{2 * row + 3})" for row in range(count))
    return INSERT + values + " ON CONFLICT DO NOTHING"  # noqa: S608 - placeholders, no values


def _state(db: apsw.Connection, session_id: SessionId) -> tuple[int, int] | None:
    """The last number that is spoken for, and what the log holds; None for a missing session."""
    found = db.execute(
        "SELECT last_event, event_bytes FROM sessions WHERE session_id = ?", (session_id,)
    )
    columns: Any = next(found, None)
    return None if columns is None else (int(columns[0]), int(columns[1]))


def _trim(db: apsw.Connection, session_id: SessionId, over_bytes: int) -> int:
    """Drop the oldest events, at least ``over_bytes`` in all; how much that was."""
    if over_bytes <= 0:
        return 0
    freed = dropped_to = 0
    oldest: Iterable[Any] = db.execute(f"{OLDEST} ORDER BY number", (session_id,))
    for number, size in oldest:
        if freed >= over_bytes:
            break
        freed += size
        dropped_to = number
    db.execute(
        "DELETE FROM agent_events WHERE session_id = ? AND number <= ?", (session_id, dropped_to)
    )
    return freed


def read_events(
    db: apsw.Connection, session_id: SessionId, *, after: int, max_bytes: int
) -> EventPage:
    """The last number first: what is appended between the two statements must not look lost."""
    up_to, _ = _state(db, session_id) or (0, 0)
    events: list[NumberedEvent] = []
    held_bytes = 0
    found: Iterable[Any] = db.execute(f"{READ} ORDER BY number", (session_id, after))
    for number, message in found:
        event = NumberedEvent(number, message)
        held_bytes += event.size_bytes
        if events and held_bytes > max_bytes:
            return EventPage(events, events[-1].number)
        events.append(event)
        up_to = max(up_to, number)
    return EventPage(events, up_to)


def take_up_events(db: apsw.Connection, session_id: SessionId) -> int:
    """A session with a turn that never ended loses its reserve, for good; 0 when it is missing."""
    reserve_lost_events(db, session_id)
    last, _ = _state(db, session_id) or (0, 0)
    return last


def reserve_lost_events(db: apsw.Connection, session_id: SessionId | None) -> None:
    """Pass over the numbers that an open turn (of one session, or of any) may have shown."""
    db.execute(
        "UPDATE sessions SET last_event = last_event + ?1 WHERE session_id IN"
        " (SELECT session_id FROM turns WHERE ending IS NULL AND (?2 IS NULL OR session_id = ?2))",
        (EVENT_RESERVE, session_id),
    )
