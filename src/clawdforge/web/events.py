"""The route of a session's events: what was, then what comes, until the session closes.

Reading is free of side effects: it activates no session, is no activity, and may be repeated from
any number. Whether the reader may read on is asked again while it waits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import attrs
import trio

from clawdforge.actors.reader import EventReader
from clawdforge.domain.admission import RETRY_DRAINING_SECS
from clawdforge.domain.ids import SessionId
from clawdforge.errors import Fault, InvalidRequest, SessionNotFound, ShuttingDown
from clawdforge.web.accept import NDJSON, SSE, prefer
from clawdforge.web.answers import Page
from clawdforge.web.auth import authenticate_app
from clawdforge.web.bodies import ReadEvents
from clawdforge.web.framing import FRAMINGS, StreamEvent
from clawdforge.web.operations import Call, Operation
from clawdforge.web.outflow import Outflow
from clawdforge.web.problems import Problem, describe_status
from clawdforge.web.sessions import read_session_id
from clawdforge.web.streams import HEARTBEAT_SECS, LiveStream, say_end, take_events

_NUMBER: Final = re.compile(r"[0-9]{1,18}")


async def stream_events(call: Call[ReadEvents]) -> LiveStream | Problem | None:
    """Stream a session's events; None when a client should stop coming back for more."""
    session_id = read_session_id(call)
    row = await call.service.store.find_session(session_id, call.app)
    if row is None:
        raise SessionNotFound
    if call.service.is_draining:
        raise ShuttingDown(RETRY_DRAINING_SECS)
    media_type = prefer(call.trace.header("accept"), (SSE, NDJSON))
    if media_type is None:
        return describe_status(406)
    reader = await call.service.read_events(session_id, after=read_place(call))
    call.trace.leavings.add(reader.close)
    outflow = call.trace.outflow = Outflow(reader.bell)
    source = SessionSource(call, session_id, reader)
    if row.closed_at is not None:
        source.end = row.close_cause or "closed"
        if call.trace.header("last-event-id") and await source.is_exhausted():
            call.trace.outflow = None
            return None
    return LiveStream(source, FRAMINGS[media_type], outflow, call.trace.route)


def read_place(call: Call[ReadEvents]) -> int:
    """Where to go on: after ``Last-Event-ID``, else ``after``, else from the first.

    The header comes first: a browser that reconnects repeats the address that it began with. Raises
    InvalidRequest.
    """
    text = call.trace.header("last-event-id")
    if not text:
        return call.asked.after
    if _NUMBER.fullmatch(text) is None:
        raise InvalidRequest([Fault("Last-Event-ID", "must be the number of an event")])
    return int(text)


@attrs.define(eq=False)
class SessionSource:
    """The events of one session for one reader. ``end`` is why it has ended, once that is known."""

    call: Call[ReadEvents]
    session_id: SessionId
    reader: EventReader
    end: str | None = None
    _alarms: int = attrs.field(init=False)
    _looked_at: float = attrs.field(factory=trio.current_time)

    def __attrs_post_init__(self) -> None:
        """The request itself was just let in."""
        self._alarms = self.reader.feed.alarms

    async def take(self) -> Sequence[StreamEvent]:
        """See Source. The end is said when all that came before it has been taken."""
        end = self.end or self.reader.end
        events = await take_events(self.reader)
        if events:
            return events
        if end is not None:
            return [say_end("closed", cause=end)]
        if self._is_time_to_look():
            return await self._look_again()
        return ()

    async def is_exhausted(self) -> bool:
        """Whether there is nothing after the reader's place, now."""
        page = await self.reader.feed.page(self.reader.position, 1)
        return page.up_to <= self.reader.position

    def farewell(self, outflow: Outflow) -> StreamEvent | None:
        """See Source. A draining server is back soon: the client comes again with its place."""
        return say_end("draining") if outflow.is_draining else None

    def _is_time_to_look(self) -> bool:
        waited_secs = trio.current_time() - self._looked_at
        return self._alarms != self.reader.feed.alarms or waited_secs >= HEARTBEAT_SECS

    async def _look_again(self) -> Sequence[StreamEvent]:
        """The database is the truth, and others may change it. Raises NotAuthenticated, ..."""
        self._looked_at, self._alarms = trio.current_time(), self.reader.feed.alarms
        call, trace = self.call, self.call.trace
        assert trace.address is not None
        await authenticate_app(call.service, trace.headers, trace.address)
        row = await call.service.store.find_session(self.session_id, call.app)
        if row is None:
            return [say_end("deleted")]
        if row.closed_at is not None:
            self.end = row.close_cause or "closed"
            return await self.take()
        return ()


OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/sessions/<session_id>/events",
        gate="app",
        handle=stream_events,
        summary="Stream a session's events, from any number on, until it closes",
        asks=ReadEvents,
        answer=Page(b"", SSE),
        headers={"Last-Event-ID": "The number of the last event that you have."},
        also_answers={NDJSON: "The same, one JSON object a line."},
        refusals=[
            SessionNotFound(),
            ShuttingDown(RETRY_DRAINING_SECS),
            InvalidRequest([Fault("Last-Event-ID", "must be the number of an event")]),
            describe_status(406),
        ],
    ),
)
