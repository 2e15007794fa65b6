"""A session's feed: it numbers what the agent says, writes it down in batches, and shows it on.

The rules: taking an event in never waits, whatever the ledger and the readers do; a number is shown
before it is written only while a turn is open, and at most EVENT_RESERVE ahead of the log, so that
a crash never makes us give one twice; a reader is a position and no more, so that one which falls
behind costs nothing and is served from the log.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import attrs
import structlog
import trio

from clawdforge.actors.bell import Bell
from clawdforge.domain.events import EVENT_RESERVE, EventBatch, EventLog, EventPage, NumberedEvent
from clawdforge.domain.ids import SessionId
from clawdforge.domain.ports import Message
from clawdforge.domain.questions import PendingPermission
from clawdforge.errors import StoreUnavailable

log: Final = structlog.get_logger("clawdforge.feed")

RECENT_BYTES: Final = 1024 * 1024
"""What is kept in memory for readers that keep up; older events are read from the log."""

UNWRITTEN_BYTES: Final = 8 * 1024 * 1024
"""The most that waits for a ledger which does not answer; past it the oldest are lost."""

BATCH_EVENTS: Final = 256
BATCH_BYTES: Final = 256 * 1024
"""So much is written without waiting for more. Far below EVENT_RESERVE, so that showing runs on."""

WRITE_SECS: Final = 1.0
"""How long an event of a turn waits for company; also, how long after a failure to try again."""


@attrs.define
class EventSpan:
    """The events of one turn; None until its first, and until its end."""

    first: int | None = None
    last: int | None = None


class Feed:
    """The events of one session, as its actor takes them in and as readers see them.

    ``last`` is the last number given, ``written`` the last one that the log has. ``end`` says why
    no more events will come, once that is so. ``alarms`` counts the times that readers were to look
    again whether they may still read. ``questions`` are the permission requests that wait,
    each with the number of the event that it came after.
    """

    def __init__(self, session_id: SessionId, events: EventLog, keep_bytes: int) -> None:
        self.session_id = session_id
        self.last = 0
        self.written = 0
        self.end: str | None = None
        self.has_actor = False
        self.alarms = 0
        self.questions: dict[str, tuple[int, PendingPermission]] = {}
        self._log = events
        self._keep_bytes = keep_bytes
        self._recent: deque[NumberedEvent] = deque()
        self._recent_bytes = 0
        self._unwritten_bytes = 0
        self._is_ahead = False
        self._is_losing = False
        self._is_gathering = False
        self._left_to_ending = 0
        self._to_write = Bell()
        self._bells: set[Bell] = set()

    def __repr__(self) -> str:
        return f"<Feed at {self.last}, written {self.written}, {len(self._bells)} readers>"

    # --- from the session actor -------------------------------------------------------------------

    def take_up(self, last: int) -> None:
        """An actor numbers from here: ``last`` is the last number that is spoken for."""
        self.last = self.written = last
        self.has_actor = True
        self._recent.clear()
        self._recent_bytes = self._unwritten_bytes = 0
        self.ring()

    def add(self, message: Message, wire: bytes) -> NumberedEvent:
        """Number one message; it is kept and shown as the agent wrote it. Returns at once."""
        try:
            text = wire.decode().strip()
        except UnicodeDecodeError:  # a lone surrogate: JSON has a way to write it, UTF-8 has not
            text = json.dumps(message, separators=(",", ":"))
        self.last += 1
        event = NumberedEvent(self.last, text)
        self._recent.append(event)
        size_bytes = event.size_bytes
        self._recent_bytes += size_bytes
        self._unwritten_bytes += size_bytes
        self._shrink()
        if self._is_urgent or not self._is_gathering:
            self._to_write.ring()
        self.ring()
        return event

    @contextmanager
    def spanning(self, span: EventSpan) -> Iterator[None]:
        """The block is a turn at work, which the ledger has: its events are shown at once.

        What is not written in the end goes into the transaction of the turn's ending.
        """
        span.first, span.last = span.first or self.last + 1, None
        self._is_ahead = True
        try:
            yield
        finally:
            self._is_ahead = False
            span.last = self._left_to_ending = self.last
            self.ring()

    def ask(self, request: PendingPermission) -> None:
        """A permission request waits from now on."""
        self.questions[request.request_id] = (self.last, request)
        self.ring()

    def settle(self, request_id: str) -> None:
        """A permission request waits no more."""
        self.questions.pop(request_id, None)

    def leave(self, *, end: str | None) -> None:
        """The actor has ended; with ``end`` the session has, and no more events will come."""
        self.has_actor = False
        self.end = self.end or end
        self.ring()

    # --- writing ----------------------------------------------------------------------------------

    def unwritten(self) -> EventBatch:
        """What the log does not have yet. May be appended by anybody, and more than once."""
        count = min(self.last - self.written, len(self._recent))
        fresh = [self._recent[index] for index in range(-count, 0)]
        return EventBatch(self.session_id, fresh, self._keep_bytes)

    def mark_written(self, batch: EventBatch) -> None:
        """The log has it."""
        fresh = [event for event in batch.events if event.number > self.written]
        if fresh:
            self.written = fresh[-1].number
            self._unwritten_bytes -= sum(event.size_bytes for event in fresh)
            self._is_losing = False
            self._shrink()
            self.ring()

    async def flush(self) -> None:
        """Write what is not written. Raises StoreUnavailable. The caller bounds it."""
        batch = self.unwritten()
        if batch.events:
            await self._log.append_events(batch)
            self.mark_written(batch)

    async def run_writer(self) -> NoReturn:
        """Write in batches until cancelled; a ledger that does not answer is tried again."""
        while True:
            await self._to_write.wait()
            await self._gather()
            try:
                await self.flush()
            except StoreUnavailable as error:
                log.warning("events not written", reason=error.reason)
                self._to_write.ring()
                await trio.sleep(WRITE_SECS)

    async def _gather(self) -> None:
        """Let a batch come together, for ``WRITE_SECS`` at the most."""
        self._is_gathering = True
        try:
            with trio.move_on_after(WRITE_SECS):
                while not self._is_urgent:
                    await self._to_write.wait()
        finally:
            self._is_gathering = False

    @property
    def _is_urgent(self) -> bool:
        """A batch is full, or readers may not see an event before it is written."""
        if not self._is_ahead:
            return self.last > max(self.written, self._left_to_ending)
        count = self.last - self.written
        return count >= BATCH_EVENTS or self._unwritten_bytes >= BATCH_BYTES

    def _shrink(self) -> None:
        """Forget what the log has, beyond what is recent; and what nothing can save."""
        while len(self._recent) > 1 and self._recent_bytes > RECENT_BYTES:
            is_unwritten = self._recent[0].number > self.written
            if is_unwritten and self._unwritten_bytes <= UNWRITTEN_BYTES:
                break
            size = self._recent.popleft().size_bytes
            self._recent_bytes -= size
            if is_unwritten:
                self._unwritten_bytes -= size
                if not self._is_losing:
                    log.warning("events are lost: the ledger does not answer")
                self._is_losing = True

    # --- for readers ------------------------------------------------------------------------------

    @property
    def shown(self) -> int:
        """The last number that readers may see."""
        return min(self.last, self.written + EVENT_RESERVE) if self._is_ahead else self.written

    def recent(self, after: int, max_bytes: int) -> EventPage | None:
        """The page after a number, if it is in memory; None when it is for the log to say."""
        shown = self.shown
        if self.has_actor and after >= shown:
            return EventPage((), after)
        if not self._recent or self._recent[0].number > after + 1:
            return None
        events: list[NumberedEvent] = []
        held_bytes = 0
        for index in range(after + 1 - self._recent[0].number, len(self._recent)):
            event = self._recent[index]
            held_bytes += event.size_bytes
            if event.number > shown or (events and held_bytes > max_bytes):
                break
            events.append(event)
        return EventPage(events, events[-1].number if events else after)

    async def page(self, after: int, max_bytes: int) -> EventPage:
        """The page after a number, from memory or the log. Raises StoreUnavailable."""
        page = self.recent(after, max_bytes)
        if page is None:
            page = await self._log.read_events(self.session_id, after=after, max_bytes=max_bytes)
            if page.up_to <= after and self._recent:  # never written, and in memory no more
                return EventPage((), max(after, min(self.shown, self._recent[0].number - 1)))
        return page

    def attach(self, bell: Bell) -> None:
        """Ring ``bell`` whenever there may be something new."""
        self._bells.add(bell)

    def detach(self, bell: Bell) -> None:
        """Leave ``bell`` alone."""
        self._bells.discard(bell)

    def ring(self) -> None:
        """Have all readers look again."""
        for bell in self._bells:
            bell.ring()


class Feeds:
    """The feeds that anybody has a hand in: session actors and readers. Each is there while held.

    A reader's feed is there without an actor, so that reading activates nothing, and an actor that
    comes later finds its readers.
    """

    def __init__(self, events: EventLog, keep_bytes: int) -> None:
        self._log = events
        self._keep_bytes = keep_bytes
        self._held: dict[SessionId, tuple[Feed, int]] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._held)

    def hold(self, session_id: SessionId) -> Feed:
        """The session's feed; it must be let go as often as it was held."""
        feed, count = self._held.get(session_id) or (
            Feed(session_id, self._log, self._keep_bytes),
            0,
        )
        self._held[session_id] = (feed, count + 1)
        return feed

    def let_go(self, feed: Feed) -> None:
        """A hand less; with the last one the feed is forgotten."""
        _, count = self._held[feed.session_id]
        if count > 1:
            self._held[feed.session_id] = (feed, count - 1)
        else:
            del self._held[feed.session_id]

    def close(self, session_id: SessionId, cause: str) -> None:
        """A session without an actor was closed: tell its readers, if it has any."""
        found = self._held.get(session_id)
        if found is not None:
            found[0].leave(end=cause)

    def alarm(self) -> None:
        """Have every reader look again at once whether it may still read."""
        for feed, _ in self._held.values():
            feed.alarms += 1
            feed.ring()
