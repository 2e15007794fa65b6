"""A turn as a stream: its events while the agent works, and its answer as the last one."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from clawdforge.actors.reader import EventReader
from clawdforge.domain.admission import RETRY_DRAINING_SECS
from clawdforge.domain.ids import SessionId
from clawdforge.errors import ShuttingDown
from clawdforge.web.answers import OMITTED, TurnDone, to_json
from clawdforge.web.framing import FRAMINGS, StreamEvent
from clawdforge.web.outflow import Outflow
from clawdforge.web.problems import describe_error, describe_turn
from clawdforge.web.service import Service, TurnTicket
from clawdforge.web.streams import LiveStream, say_problem, take_events
from clawdforge.web.trace import Trace


def stream_turn(
    service: Service, session_id: SessionId, ticket: TurnTicket, media_type: str, trace: Trace
) -> LiveStream:
    """The stream of an admitted turn. It takes the ticket over: its end is the caller's leaving."""
    trace.leavings.add(ticket.leave)
    reader = service.read_turn(session_id, ticket)
    trace.leavings.add(reader.close)
    trace.outflow = Outflow(reader.bell)
    source = TurnSource(session_id, ticket, reader, trace.route)
    place = (("X-Turn-Index", str(ticket.turn_index)),)
    return LiveStream(source, FRAMINGS[media_type], trace.outflow, trace.route, place)


@attrs.frozen
class TurnSource:
    """The events of one turn, then its answer."""

    session_id: SessionId
    ticket: TurnTicket
    reader: EventReader
    instance: str

    async def take(self) -> Sequence[StreamEvent]:
        """See Source. The answer comes when all that the turn said has been taken."""
        is_over = self.ticket.is_over
        events = await take_events(self.reader)
        return [await self._answer()] if is_over and not events else events

    def farewell(self, outflow: Outflow) -> StreamEvent | None:
        """See Source. A drain lets turns finish."""
        if outflow.is_called_off:
            return say_problem(describe_error(ShuttingDown(RETRY_DRAINING_SECS)), self.instance)
        return None

    async def _answer(self) -> StreamEvent:
        """What the plain call would have answered, without the events. Raises StoreUnavailable."""
        result = await self.ticket.result()
        if result.ending not in {"completed", "cancelled"}:
            return say_problem(describe_turn(result), self.instance)
        done = TurnDone.of(self.session_id, result, OMITTED)
        return StreamEvent("result", to_json(done).decode())
