"""The line of turns of one session: admitted in order, asked one at a time, one ending each.

The rules: a turn is in the ledger before the agent is asked; a new turn starts only when the old
one is proved over; whoever holds a ticket is answered on every path.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import attrs
import structlog
import trio

from clawdforge.actors.context import LEDGER_SECS, SessionContext
from clawdforge.actors.conversation import converse
from clawdforge.actors.feed import Feed
from clawdforge.actors.keeper import AgentKeeper
from clawdforge.actors.messages import StartTurn
from clawdforge.actors.permissions import PermissionDesk
from clawdforge.actors.turn import Turn
from clawdforge.domain.ids import AgentName, SessionId
from clawdforge.domain.ports import Agent, TurnEnd, TurnStart
from clawdforge.domain.transcript import Transcript
from clawdforge.domain.turns import TurnRequest, TurnResult, Verdict, judge_turn
from clawdforge.errors import (
    AgentExited,
    AgentNotResumable,
    ClawdforgeError,
    SessionBusy,
    SessionGone,
    StoreUnavailable,
)

log: Final = structlog.get_logger("clawdforge.line")


@attrs.define(eq=False)
class TurnLine:
    """The turns of one session actor, in its nursery.

    ``turn_count`` is the last index given. ``on_lost`` is called when the agent's conversation
    turns out to be lost.
    """

    session_id: SessionId
    context: SessionContext
    keeper: AgentKeeper
    desk: PermissionDesk
    feed: Feed
    on_lost: Callable[[], None]
    nursery: trio.Nursery = attrs.field(init=False)
    turn_count: int = 0
    working: Turn | None = None
    _turns: deque[Turn] = attrs.field(factory=deque)

    def __len__(self) -> int:
        """Turns that wait or work."""
        return len(self._turns)

    @property
    def agent(self) -> AgentName:
        """The agent's name."""
        return self.keeper.spec.profile.name

    # --- from the session actor -------------------------------------------------------------------

    def take_up(self, turn_count: int) -> None:
        """Go on after the turns that there were before this actor."""
        self.turn_count = turn_count
        self.keeper.was_asked = turn_count > 0

    def live_in(self, nursery: trio.Nursery) -> None:
        """Do all further work in there."""
        self.nursery = self.keeper.nursery = self.desk.nursery = nursery

    def admit(self, message: StartTurn) -> None:
        """Give the turn its place and its index, or refuse it: SessionBusy, a CapacityError."""
        refusal = self._refusal()
        if refusal is not None:
            message.reply.fail(refusal)
            return
        turn = self._make_turn(message.request)
        turn.join(message.reply)
        self._turns.append(turn)
        self._turns[0].is_head.set()
        self.nursery.start_soon(self._run_counted, turn)

    async def stop_all(self) -> None:
        """End every turn. Each is bounded by its grace, the kill and the ledger, and so is this."""
        turns = tuple(self._turns)
        for turn in turns:
            turn.stop("close")
        for turn in turns:
            await turn.ended.wait()

    def _refusal(self) -> ClawdforgeError | None:
        limit = self.context.config.turn_queue
        if len(self._turns) > limit:
            return SessionBusy(limit)
        if not self._turns and self.keeper.agent is None:  # it would have to start one
            return self.context.starts.refusal(self.agent)
        return None

    def _make_turn(self, request: TurnRequest) -> Turn:
        self.turn_count += 1
        return Turn(self.turn_count, request, Transcript(self.context.config.max_turn_bytes))

    # --- one turn, from its place in line to its ending -------------------------------------------

    async def _run_counted(self, turn: Turn) -> None:
        with self.context.workload.one_more():
            await self._run(turn)

    async def _run(self, turn: Turn) -> None:
        """Write it down, have the agent work on it, give it its ending: on every path."""
        end: Verdict | ClawdforgeError = SessionGone()
        try:
            await self._begin(turn)
            end = await self._attempt(turn)
        except ClawdforgeError as error:
            end = error  # never admitted: a refusal, not an ending
        except trio.Cancelled:
            if turn.is_admitted:
                end = Verdict("cancelled", "cancelled")
            raise
        finally:
            if turn.is_admitted and not isinstance(end, Verdict):  # a bug of ours came through
                end = Verdict("failed", "error", end)
            with trio.CancelScope(shield=True):
                await self._end(turn, end)

    async def _begin(self, turn: Turn) -> None:
        """Admit it: from here on it has an ending. Raises SessionClosed, StoreUnavailable, ...

        Stopping the turn does not interrupt this, so that what is in the ledger is never in doubt.
        """
        start = TurnStart(self.session_id, turn.index, turn.request.prompt, self.context.now())
        with trio.move_on_after(LEDGER_SECS) as scope:
            await self.context.store.begin_turn(start)
        if scope.cancelled_caught:
            raise StoreUnavailable("the turn could not be written in time")
        turn.admit()

    async def _attempt(self, turn: Turn) -> Verdict:
        """Wait in line, have the agent ready, ask it; how the turn ended."""
        answer: str | ClawdforgeError | None = None
        try:
            answer = await self._ask(turn)
            if isinstance(answer, AgentExited) and not answer.was_asked:
                # It died since the last turn and nobody had noticed. The prompt never got out.
                await self.keeper.kill()
                answer = await self._ask(turn)
        except ClawdforgeError as error:
            answer = error
        if isinstance(answer, AgentNotResumable):
            self.on_lost()
        return judge_turn(self.agent, turn.stop_cause, answer, turn.request.timeout_secs)

    async def _ask(self, turn: Turn) -> str | ClawdforgeError | None:
        """What the agent answered; None when the turn was stopped before it was asked."""
        agent = await self._reach_agent(turn)
        if agent is None or turn.stop_cause is not None:
            return None
        self.working = turn
        self.keeper.was_asked = True
        grace_secs = self.context.config.cancel_grace_secs
        try:
            with self.feed.spanning(turn.events):
                return await converse(agent, turn, self.keeper, self.desk, grace_secs)
        finally:
            self.working = None

    async def _reach_agent(self, turn: Turn) -> Agent | None:
        """The agent, when it is this turn's; None when the turn was stopped before."""
        with turn.unless_stopped():
            await turn.is_head.wait()
            return await self.keeper.ready()
        return None

    async def _end(self, turn: Turn, end: Verdict | ClawdforgeError) -> None:
        """Write the ending, let the next in line begin, answer."""
        result: TurnResult | ClawdforgeError = SessionGone()
        try:
            result = await self._settle(turn, end)
        finally:
            self._turns.remove(turn)
            if self._turns:
                self._turns[0].is_head.set()
            turn.end(result)
            self.feed.ring()

    async def _settle(
        self, turn: Turn, end: Verdict | ClawdforgeError
    ) -> TurnResult | ClawdforgeError:
        """What to answer: nothing is acknowledged that the ledger does not have."""
        if not isinstance(end, Verdict):
            return end
        batch = self.feed.unwritten()
        try:
            with trio.fail_after(LEDGER_SECS):
                await self.context.store.end_turn(self._turn_end(turn, end), batch)
            self.feed.mark_written(batch)
        except (StoreUnavailable, trio.TooSlowError):
            log.warning("turn end not written", agent=self.agent, ending=end.ending)
            return StoreUnavailable("the turn's ending could not be written")
        return turn.judged(end)

    def _turn_end(self, turn: Turn, verdict: Verdict) -> TurnEnd:
        return TurnEnd(
            session_id=self.session_id,
            turn_index=turn.index,
            ending=verdict.ending,
            stop_reason=verdict.stop_reason,
            text=turn.transcript.text,
            duration_ms=turn.duration_ms,
            ended_at=self.context.now(),
            detail=str(verdict.error) if verdict.error else turn.stop_cause,
            first_event=turn.events.first,
            last_event=turn.events.last,
        )
