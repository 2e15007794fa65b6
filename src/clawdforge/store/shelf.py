"""The event log of one session in memory: the twin of :mod:`.events`."""

from __future__ import annotations

from collections import deque

import attrs

from clawdforge.domain.events import EVENT_RESERVE, EventBatch, EventPage, NumberedEvent


@attrs.define
class EventShelf:
    """What is kept of a session's events; ``last`` is the last number that is spoken for."""

    last: int = 0
    kept: deque[NumberedEvent] = attrs.field(factory=deque)

    def append(self, batch: EventBatch) -> None:
        """Add what is new, then drop the oldest past ``keep_bytes``."""
        fresh = [event for event in batch.events if event.number > self.last]
        self.kept.extend(fresh)
        if fresh:
            self.last = fresh[-1].number
            while sum(event.size_bytes for event in self.kept) > batch.keep_bytes:
                self.kept.popleft()

    def read(self, *, after: int, max_bytes: int) -> EventPage:
        """A page as the port describes it."""
        events: list[NumberedEvent] = []
        held_bytes = 0
        for event in self.kept:
            if event.number > after:
                held_bytes += event.size_bytes
                if events and held_bytes > max_bytes:
                    return EventPage(events, events[-1].number)
                events.append(event)
        return EventPage(events, self.last)

    def pass_over_lost(self) -> None:
        """A turn was never ended: what it may have shown is not given again."""
        self.last += EVENT_RESERVE
