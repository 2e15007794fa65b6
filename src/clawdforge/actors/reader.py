"""Readers of a session's events: a position in the feed, and where reading ends.

They hold no events: what they have not taken yet is in memory for everybody, or in the log. Each
has a bell that rings when there may be something to take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from clawdforge.actors.bell import Bell
from clawdforge.domain.events import Entry, cut_off, last_number, name_gaps
from clawdforge.domain.ids import SessionId
from clawdforge.domain.questions import PendingPermission

if TYPE_CHECKING:
    from clawdforge.actors.feed import EventSpan, Feed, Feeds

PAGE_BYTES: Final = 64 * 1024
"""What a reader takes at a time, unless one event is larger."""


class EventReader:
    """Reads all events of a session after ``position``. Close it in a ``finally``."""

    def __init__(self, feeds: Feeds, session_id: SessionId, *, after: int) -> None:
        self.bell = Bell()
        self.position = after
        self._feeds = feeds
        self._feed: Feed | None = feeds.hold(session_id)
        self._feed.attach(self.bell)
        self._asked: set[str] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.position}>"

    @property
    def feed(self) -> Feed:
        """What it reads."""
        assert self._feed is not None, "closed"
        return self._feed

    @property
    def end(self) -> str | None:
        """Why the session has ended, if it has; there may be events to take all the same."""
        return self.feed.end

    async def take(self) -> Sequence[Entry]:
        """What comes next, at once: events and gaps; nothing when there is nothing yet.

        Raises StoreUnavailable.
        """
        entries = name_gaps(self.position, await self.feed.page(self.position, PAGE_BYTES))
        if entries:
            self.position = last_number(entries[-1])
        return entries

    def take_questions(self) -> Sequence[PendingPermission]:
        """Permission requests that wait, came before ``position`` and were not taken yet."""
        found = [
            request
            for after, request in self.feed.questions.values()
            if after <= self.position and request.request_id not in self._asked
        ]
        self._asked.update(request.request_id for request in found)
        return found

    def close(self) -> None:
        """Read no more. Idempotent, returns at once."""
        if self._feed is not None:
            self._feed.detach(self.bell)
            self._feeds.let_go(self._feed)
            self._feed = None


class TurnReader(EventReader):
    """Reads the events of one turn, from its first."""

    def __init__(self, feeds: Feeds, session_id: SessionId, span: EventSpan) -> None:
        super().__init__(feeds, session_id, after=0)
        self._span = span

    async def take(self) -> Sequence[Entry]:
        """See EventReader; what is not the turn's is left out."""
        first, last = self._span.first, self._span.last
        if first is None:
            return ()
        self.position = max(self.position, first - 1)
        if last is not None and self.position >= last:
            return ()
        return cut_off(await super().take(), self._span.last)
