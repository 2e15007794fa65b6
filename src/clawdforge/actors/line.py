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

from clawdforge.actors.context import SessionContext
from clawdforge.actors.conversation import converse
from clawdforge.actors.debts import Debts
from clawdforge.actors.feed import Feed
from clawdforge.actors.keeper import AgentKeeper
from clawdforge.actors.messages import CancelTurn, StartTurn
from clawdforge.actors.permissions import PermissionDesk
from clawdforge.actors.turn import Turn
from clawdforge.domain.answers import facts_of
from clawdforge.domain.events import EventBatch
from clawdforge.domain.ids import AgentName, SessionId
from clawdforge.domain.keys import same_request
from clawdforge.domain.ports import Agent, TurnEnd, TurnStart
from clawdforge.domain.transcript import Transcript
from clawdforge.domain.turns import (
    TurnRequest,
    TurnResult,
    TurnTarget,
    Verdict,
    judge_turn,
    receipt_for,
)
from clawdforge.errors import (
    AgentExited,
    AgentNotResumable,
    ClawdforgeError,
    IdempotencyKeyReused,
    SessionBusy,
    SessionGone,
    StoreUnavailable,
    TurnNotFound,
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
    debts: Debts = attrs.field(init=False)
    _turns: deque[Turn] = attrs.field(factory=deque)

    def __len__(self) -> int:
        """Turns that wait or work."""
        return len(self._turns)

    @property
    def agent(self) -> AgentName:
        """The agent's name."""
        return self.keeper.spec.profile.name

    @debts.default
    def _nothing_owed(self) -> Debts:
        return Debts(self.context.store)

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
        turn.join(message)
        self._turns.append(turn)
        self._turns[0].is_head.set()
        self.nursery.start_soon(self._run_counted, turn)

    def attach(self, message: StartTurn) -> bool:
        """Give the asker a ticket to the turn in line that its key stands for, if there is one."""
        key = message.request.key
        turn = self._find(TurnTarget(key_name=key.name)) if key is not None else None
        if key is None or turn is None or turn.request.key is None:
            return False
        try:
            same_request(key, turn.request.key.fields_sha256)
        except IdempotencyKeyReused as error:
            message.reply.fail(error)
        else:
            turn.join(message)
        return True

    def cancel(self, message: CancelTurn) -> None:
        """Stop the turn that is meant; the receipt is given when it is over, and it alone is hit.

        Without a name it is the first in line: the one at work, or about to be.
        """
        turn = self._find(message.target)
        if turn is None:
            message.reply.set(None)
            return
        began = trio.current_time()

        def give_receipt(result: TurnResult | ClawdforgeError) -> None:
            took_ms = round((trio.current_time() - began) * 1000)
            if isinstance(result, ClawdforgeError):
                message.reply.fail(result if turn.is_admitted else TurnNotFound())
            else:
                message.reply.set(receipt_for(result, turn.how, took_ms))

        turn.when_ended(give_receipt)
        turn.stop("cancel")

    def _find(self, target: TurnTarget) -> Turn | None:
        if target == TurnTarget():
            return self._turns[0] if self._turns else None
        return next((turn for turn in self._turns if turn.is_meant(target)), None)

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
            await self._end(turn, end)  # noqa: ASYNC102  # shielded where it waits, and bounded

    async def _begin(self, turn: Turn) -> None:
        """Admit it: from here on it has an ending. Raises SessionClosed, StoreUnavailable, ...

        Stopping the turn does not interrupt this, so that what is in the ledger is never in doubt.
        """
        start = TurnStart(
            session_id=self.session_id,
            turn_index=turn.index,
            prompt=turn.request.prompt,
            started_at=self.context.now(),
            key=turn.request.key,
        )
        await self.context.store.begin_turn(start)
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
        return judge_turn(self.agent, turn.stop_cause, answer, turn.request)

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
        if turn.is_head.is_set() and self.keeper.agent is not None:
            return self.keeper.agent  # the usual case: nothing to wait for
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
        result = turn.judged(end)
        row, batch = self._turn_end(turn, result), self.feed.unwritten()
        try:
            await self._write_end(row, batch)
        except StoreUnavailable:
            log.warning("turn end not written", agent=self.agent, ending=end.ending)
            self._owe(row)
            return StoreUnavailable("the turn's ending could not be written")
        self.feed.mark_written(batch)
        return result

    async def _write_end(self, row: TurnEnd, batch: EventBatch) -> None:
        """Write it, whoever cancels meanwhile: a shield each would cost more than asking twice."""
        try:
            await self.context.store.end_turn(row, batch)
        except trio.Cancelled:  # noqa: ASYNC103 - it comes up again where this task waits next
            with trio.CancelScope(shield=True):
                await self.context.store.end_turn(row, batch)

    def _owe(self, row: TurnEnd) -> None:
        """Try again later: one task pays for all."""
        if not self.debts:
            self.nursery.start_soon(self.debts.run)
        self.debts.owe(row)

    def _turn_end(self, turn: Turn, result: TurnResult) -> TurnEnd:
        """The row of a result. With a key its answer may be asked for again, events and all."""
        return TurnEnd(
            session_id=self.session_id,
            turn_index=turn.index,
            ending=result.ending,
            stop_reason=result.stop_reason,
            text=result.text,
            duration_ms=result.duration_ms,
            ended_at=self.context.now(),
            detail=str(result.error) if result.error else turn.stop_cause,
            first_event=turn.events.first,
            last_event=turn.events.last,
            facts=facts_of(result),
            kept_events=None if turn.request.key is None else result.events,
            audited_prompt=turn.request.prompt if self.context.config.audit_prompts else None,
        )
