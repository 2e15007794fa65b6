"""One turn in a session's line: who asked, until when, and the one way to stop it.

Caller gone, deadline, silence, cancel and close all come down to ``stop``: the first cause counts,
and whatever the turn waits on inside ``unless_stopped`` is left at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from clawdforge.actors.feed import EventSpan
from clawdforge.actors.messages import StartTurn
from clawdforge.actors.silence import Silence
from clawdforge.actors.ticket import LiveTicket
from clawdforge.domain.transcript import Transcript
from clawdforge.domain.turns import How, StopCause, TurnRequest, TurnResult, TurnTarget, Verdict
from clawdforge.errors import ClawdforgeError, SessionGone


class Turn:
    """A turn from its place in line to its one ending.

    ``is_head`` is set when it is first in line, ``ended`` when it is over. It is *admitted* when
    the ledger has it; until then it may be refused, and afterwards it has an ending. ``how`` says
    how far it came before it was stopped.
    """

    def __init__(self, index: int, request: TurnRequest, transcript: Transcript) -> None:
        self.index = index
        self.request = request
        self.transcript = transcript
        self.is_head = trio.Event()
        self.ended = trio.Event()
        self.events = EventSpan()
        self.silence = Silence(request.first_output_secs, request.silence_secs)
        self.how: How = "not_started"
        self.is_admitted = False
        self._joining: list[tuple[StartTurn, LiveTicket]] = []
        self._callers = 0
        self._result: TurnResult | ClawdforgeError = SessionGone()
        self._began = trio.current_time()
        self._deadline = self._began + request.timeout_secs
        self._cause: StopCause | None = None
        self._scope: trio.CancelScope | None = None
        self._when_ended: list[Callable[[TurnResult | ClawdforgeError], None]] = []

    def __repr__(self) -> str:
        state = "ended" if self.ended.is_set() else self._cause or "alive"
        return f"<Turn {self.index} {state}, {self._callers} callers>"

    def is_meant(self, target: TurnTarget) -> bool:
        """Whether ``target`` names this turn, by its index or its key."""
        key = self.request.key
        return self.index == target.turn_index or (key is not None and key.name == target.key_name)

    # --- callers ----------------------------------------------------------------------------------

    def join(self, message: StartTurn) -> None:
        """Give an asker a ticket on admission; leaving before that is leaving the ticket."""
        ticket = LiveTicket(self)
        self._callers += 1
        message.reply.when_abandoned(ticket.leave)
        if self.is_admitted and not message.is_patient:
            message.reply.set(ticket)
        else:
            self._joining.append((message, ticket))

    def detach(self) -> None:
        """A caller has gone; the last one takes the turn along, unless it may go on alone."""
        self._callers -= 1
        is_deserted = self._callers == 0 and not self.ended.is_set()
        if is_deserted and self.request.on_disconnect == "cancel":
            self.stop("caller_gone")

    def admit(self) -> None:
        """The ledger has it: hand out the tickets, but to who waits for the end."""
        self.is_admitted = True
        self._hand_out([joined for joined in self._joining if not joined[0].is_patient])
        self._joining = [joined for joined in self._joining if joined[0].is_patient]

    def _hand_out(self, joined: Iterable[tuple[StartTurn, LiveTicket]]) -> None:
        for message, ticket in joined:
            message.reply.set(ticket)

    async def result(self) -> TurnResult:
        """What came of it. Raises what ``end`` was given."""
        if not self.ended.is_set():
            await self.ended.wait()
        if isinstance(self._result, ClawdforgeError):
            raise self._result
        return self._result

    def end(self, result: TurnResult | ClawdforgeError) -> None:
        """It is over: answer all who hold a ticket; refuse those who have none yet."""
        self._result = result
        self.ended.set()
        if self.is_admitted:
            self._hand_out(self._joining)
        elif isinstance(result, ClawdforgeError):
            for message, _ in self._joining:
                message.reply.fail(result)
        self._joining.clear()
        for act in self._when_ended:
            act(result)

    def when_ended(self, act: Callable[[TurnResult | ClawdforgeError], None]) -> None:
        """Have ``act`` called with what came of it, when it is over."""
        self._when_ended.append(act)

    # --- time and stopping ------------------------------------------------------------------------

    @property
    def stop_cause(self) -> StopCause | None:
        """Why the turn is to end, if it is. Past the deadline it is, whoever noticed first."""
        if self._cause is None and trio.current_time() >= self._deadline:
            self._cause = "deadline"
        return self._cause

    @property
    def secs_left(self) -> float:
        """Until the deadline; never below nought."""
        return max(0.0, self._deadline - trio.current_time())

    @property
    def duration_ms(self) -> int:
        """Since admission, waiting in line included."""
        return round((trio.current_time() - self._began) * 1000)

    def stop(self, cause: StopCause) -> None:
        """Have the turn end. Returns at once; only the first cause counts."""
        if self.stop_cause is None:
            self._cause = cause
            if self._scope is not None:
                self._scope.cancel()

    def unless_stopped(self) -> trio.CancelScope:
        """A scope for what is left early when the turn is stopped or past its deadline."""
        self._scope = trio.CancelScope(deadline=self._deadline)
        if self.stop_cause is not None:
            self._scope.cancel()
        return self._scope

    def judged(self, verdict: Verdict) -> TurnResult:
        """The answer to whoever asked, as the turn stands now."""
        said = self.transcript
        is_stopped = verdict.ending in {"cancelled", "timed_out"}
        return TurnResult(
            turn_index=self.index,
            ending=verdict.ending,
            stop_reason=verdict.stop_reason,
            duration_ms=self.duration_ms,
            events=said.events,
            events_dropped=said.dropped,
            skipped_lines=said.skipped_lines,
            text=said.text,
            usage=said.usage,
            error=verdict.error,
            cancelled_tool_calls=tuple(said.open_calls) if is_stopped else (),
        )
