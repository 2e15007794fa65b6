"""The numbered events of a session, and what is said of those that are gone. Pure.

Every ACP message of a session has a number, from 1, the same wherever it is shown. A number that
cannot be shown any more is never skipped in silence: a :class:`Gap` stands in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

import attrs

from clawdforge.domain.ids import SessionId

EVENT_RESERVE: Final = 1024
"""How far the numbers that are shown may run ahead of those in the log, and only while a turn is
open. A turn that the service did not live to end takes so many numbers with it."""


@attrs.frozen
class NumberedEvent:
    """One message of the agent, as JSON text, and its number in its session."""

    number: int
    message: str = attrs.field(repr=False)

    @property
    def size_bytes(self) -> int:
        """What it counts for against every limit: its text in UTF-8."""
        return len(self.message) if self.message.isascii() else len(self.message.encode())


@attrs.frozen
class Gap:
    """The numbers ``first`` to ``last`` are not shown: dropped for size, or lost in a crash."""

    first: int
    last: int


Entry: TypeAlias = NumberedEvent | Gap


@attrs.frozen
class EventBatch:
    """Events to be added to a session's log, in order; of the whole log ``keep_bytes`` are kept."""

    session_id: SessionId
    events: Sequence[NumberedEvent]
    keep_bytes: int


@attrs.frozen
class EventPage:
    """A stretch of a log: whatever is kept of it up to ``up_to`` is in ``events``, in order."""

    events: Sequence[NumberedEvent]
    up_to: int


def name_gaps(after: int, page: EventPage) -> list[Entry]:
    """Every number from ``after + 1`` to the page's end, as an event or within a gap."""
    entries: list[Entry] = []
    position = after
    for event in page.events:
        if event.number > position + 1:
            entries.append(Gap(position + 1, event.number - 1))
        entries.append(event)
        position = event.number
    if page.up_to > position:
        entries.append(Gap(position + 1, page.up_to))
    return entries


def last_number(entry: Entry) -> int:
    """Where a reader stands who has had ``entry``."""
    return entry.last if isinstance(entry, Gap) else entry.number


def cut_off(entries: Sequence[Entry], last: int | None) -> Sequence[Entry]:
    """What there is up to the number ``last``."""
    if last is None:
        return entries
    kept: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Gap):
            if entry.first <= last:
                kept.append(Gap(entry.first, min(entry.last, last)))
        elif entry.number <= last:
            kept.append(entry)
    return kept


class EventLog(Protocol):
    """The part of the ledger that holds events: called by a session's feed and by its readers.

    Its methods keep the promises that all of :class:`~clawdforge.domain.ports.Store` keeps.
    """

    async def append_events(self, batch: EventBatch) -> None:
        """Add to a session's event log and drop its oldest past ``keep_bytes``.

        Numbers up to the log's last are left alone; a session that is missing has no log: a no-op.
        """

    async def read_events(self, session_id: SessionId, *, after: int, max_bytes: int) -> EventPage:
        """The events after a number, in order: at least one, then as many as fit ``max_bytes``.

        Up to 0 when the session is missing.
        """

    async def take_up_events(self, session_id: SessionId) -> int:
        """The last event number that is spoken for. Called before an actor numbers any of its own.

        When a turn has no ending, its session passes over EVENT_RESERVE numbers: some were lost.
        """
