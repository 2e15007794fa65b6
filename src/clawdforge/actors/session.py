"""The session actor: one mailbox, one agent process tree, one line of turns.

The rule it keeps: the agent works on one turn at a time, a new turn starts only when the old one is
proved over, and everything that can end a session ends in ``_clean_up``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, assert_never

import attrs
import structlog
import trio

from clawdforge.actors.conversation import converse
from clawdforge.actors.keeper import AgentKeeper
from clawdforge.actors.mailbox import Mailbox, answering, fail_asker
from clawdforge.actors.messages import CloseSession, OpenSession, SessionMail, StartTurn
from clawdforge.actors.permissions import PermissionDesk
from clawdforge.actors.turn import Turn
from clawdforge.config import Config
from clawdforge.domain.ports import (
    Agent,
    AgentExit,
    AuditEvent,
    Launcher,
    LaunchSpec,
    Message,
    PermissionRequest,
    SessionRow,
    Store,
    TurnEnd,
    TurnStart,
)
from clawdforge.domain.sweeping import LiveSession
from clawdforge.domain.transcript import Transcript
from clawdforge.domain.turns import Verdict, judge_turn
from clawdforge.errors import (
    AgentExited,
    AgentNotResumable,
    CallerError,
    ClawdforgeError,
    SessionBusy,
    SessionClosed,
    SessionGone,
    StoreUnavailable,
)

log: Final = structlog.get_logger("clawdforge.session")

LEDGER_SECS: Final = 15.0
"""How long an ending may wait for the ledger: its own busy timeout of 5 s, three times."""

LEFT_OPEN: Final = frozenset({"shutdown", "crash"})
"""Causes that end the actor but not the session, if its agent can resume the conversation."""


@attrs.frozen
class SessionContext:
    """What every session actor is given."""

    config: Config
    store: Store
    launcher: Launcher
    now: Callable[[], int]


class SessionActor:
    """One open session.

    Owns: its mailbox, the agent's process tree, the line of turns, the session's row.
    Accepts: StartTurn, CloseSession.
    Stops when: closed (by its caller, the sweeper, revocation), the agent is lost and cannot
    resume, its creation is abandoned, or the service shuts down.
    If it crashes: turns and askers are failed, the tree is killed, the slot is freed; it is not
    restarted. The next turn activates the session again if the agent can resume, else it is closed.
    """

    def __init__(
        self,
        row: SessionRow,
        context: SessionContext,
        *,
        birth: OpenSession | None,
        release: Callable[[], None],
    ) -> None:
        self.row = row
        self.mailbox: Mailbox[SessionMail] = Mailbox(2 * context.config.turn_queue + 32)
        self._context = context
        self._profile = context.config.agents[row.agent]
        self._birth = birth
        self._release = release
        self._is_on_record = birth is None
        self._was_asked = row.turn_count > 0
        self._turn_count = row.turn_count
        self._line: deque[Turn] = deque()
        self._working: Turn | None = None
        self._cause: str | None = None
        self._closers: list[CloseSession] = []

    @property
    def live(self) -> LiveSession | None:
        """What the sweeper may know of it; None while it has no row yet."""
        if not self._is_on_record:
            return None
        return LiveSession(self.row.app_name, is_busy=bool(self._line))

    def __repr__(self) -> str:
        state = self._cause or ("working" if self._working else "idle")
        return f"<SessionActor {self.row.agent} {state}, {len(self._line)} turns in line>"

    async def run(self) -> None:
        """Live until closed. The only place that reads the mailbox."""
        cause = "crash"
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._permissions = PermissionDesk(nursery, self._context.config.permission_secs)
                self._keeper = AgentKeeper(
                    nursery,
                    self._context.launcher,
                    self,
                    self._context.config.start_secs,
                    self._on_agent_exit,
                )
                if self._birth is not None:
                    nursery.start_soon(self._open, self._birth)
                await self._read_mailbox()
            cause = self._cause or "crash"
        except trio.Cancelled:
            cause = self._cause or "shutdown"
            raise
        finally:
            with trio.CancelScope(shield=True):
                await self._clean_up(cause)

    async def _read_mailbox(self) -> None:
        while True:
            message = await self.mailbox.receive()
            with answering(message):
                self._handle(message)

    def _handle(self, message: SessionMail) -> None:
        match message:
            case StartTurn():
                self._admit(message)
            case CloseSession():
                self._accept_close(message)
            case _:
                assert_never(message)

    # --- opening ----------------------------------------------------------------------------------

    async def _open(self, birth: OpenSession) -> None:
        """Start the agent, write the row, answer. What fails is answered in the clean-up."""
        birth.reply.when_abandoned(lambda: self._begin_close("caller_gone"))
        try:
            agent = await self._keeper.start(self._launch_spec(is_resuming=False))
            self.row = attrs.evolve(self.row, can_resume=agent.info.can_resume)
            await self._context.store.add_session(self.row)
        except ClawdforgeError as error:
            self._birth_error = error
            self._begin_close("not_started")
        else:
            self._is_on_record = True
            birth.reply.set(self.row)

    _birth_error: ClawdforgeError | None = None

    def _launch_spec(self, *, is_resuming: bool) -> LaunchSpec:
        row = self.row
        return LaunchSpec(row.session_id, self._profile, row.model, row.permissions, is_resuming)

    # --- turns ------------------------------------------------------------------------------------

    def _admit(self, request: StartTurn) -> None:
        limit = self._context.config.turn_queue
        if self._cause is not None:
            request.reply.fail(SessionClosed(self._cause))
        elif len(self._line) > limit:
            request.reply.fail(SessionBusy(limit))
        else:
            self._turn_count += 1
            turn = Turn(self._turn_count, request, Transcript(self._context.config.max_turn_bytes))
            self._line.append(turn)
            self._line[0].is_head.set()
            request.reply.when_abandoned(lambda: turn.stop("caller_gone"))
            self._nursery.start_soon(self._run_turn, turn)

    async def _run_turn(self, turn: Turn) -> None:
        """One turn from admission to its one ending, on every path."""
        verdict: Verdict | ClawdforgeError = Verdict("failed", "error", SessionGone())
        try:
            verdict = await self._attempt(turn)
        except (CallerError, StoreUnavailable) as error:
            verdict = error  # never admitted: a refusal, not an ending
        except trio.Cancelled:
            verdict = Verdict("cancelled", "cancelled")
            raise
        finally:
            with trio.CancelScope(shield=True):
                await self._end_turn(turn, verdict)

    async def _attempt(self, turn: Turn) -> Verdict:
        """Write it down, wait in line, have the agent ready, ask it."""
        answer: str | ClawdforgeError | None = None
        try:
            answer = await self._ask(turn)
            if isinstance(answer, AgentExited) and not answer.was_asked:
                # It died since the last turn and nobody had noticed. The prompt never got out.
                await self._keeper.kill()
                answer = await self._ask(turn)
        except (CallerError, StoreUnavailable):
            raise
        except ClawdforgeError as error:
            answer = error
        if isinstance(answer, AgentNotResumable):
            self._begin_close("not_resumable")
        return judge_turn(self.row.agent, turn.stop_cause, answer, turn.request.timeout_secs)

    async def _ask(self, turn: Turn) -> str | ClawdforgeError | None:
        """What the agent answered; None when the turn was stopped before it was asked."""
        agent = await self._reach_agent(turn)
        if agent is None or turn.stop_cause is not None:
            return None
        return await self._converse(agent, turn)

    async def _reach_agent(self, turn: Turn) -> Agent | None:
        """The agent, when it is this turn's; None when the turn was stopped before."""
        with turn.unless_stopped():
            await self._context.store.begin_turn(self._turn_start(turn))
            await turn.is_head.wait()
            return await self._ready_agent()
        return None

    def _turn_start(self, turn: Turn) -> TurnStart:
        return TurnStart(self.row.session_id, turn.index, turn.request.prompt, self._context.now())

    async def _ready_agent(self) -> Agent:
        """The agent, started again with its conversation if it has gone since the last turn."""
        if self._keeper.agent is not None:
            return self._keeper.agent
        return await self._keeper.start(self._launch_spec(is_resuming=self._was_asked))

    async def _converse(self, agent: Agent, turn: Turn) -> str | ClawdforgeError:
        self._working = turn
        self._was_asked = True
        grace_secs = self._context.config.cancel_grace_secs
        try:
            return await converse(agent, turn, self._keeper, self._permissions, grace_secs)
        finally:
            self._working = None

    async def _end_turn(self, turn: Turn, verdict: Verdict | ClawdforgeError) -> None:
        """Write the ending, answer, and let the next in line begin."""
        reply = turn.request.reply
        try:
            if isinstance(verdict, Verdict):
                result = turn.result(verdict)
                with trio.fail_after(LEDGER_SECS):
                    await self._context.store.end_turn(self._turn_end(turn, verdict))
                reply.set(result)
            else:
                reply.fail(verdict)
        except (StoreUnavailable, trio.TooSlowError):
            reply.fail(StoreUnavailable("the turn's ending could not be written"))
        finally:
            fail_asker(turn.request, SessionGone())
            self._line.remove(turn)
            turn.ended.set()
            if self._line:
                self._line[0].is_head.set()

    def _turn_end(self, turn: Turn, verdict: Verdict) -> TurnEnd:
        return TurnEnd(
            session_id=self.row.session_id,
            turn_index=turn.index,
            ending=verdict.ending,
            stop_reason=verdict.stop_reason,
            text=turn.transcript.text,
            duration_ms=turn.duration_ms,
            ended_at=self._context.now(),
            detail=str(verdict.error) if verdict.error else turn.stop_cause,
        )

    # --- what the agent says (AgentSink) ----------------------------------------------------------

    def on_event(self, message: Message, size_bytes: int) -> None:
        """Updates between turns belong to the session; no turn has them."""
        if self._working is not None:
            self._working.transcript.add(message, size_bytes)

    def on_skipped(self, count: int) -> None:
        """Count what was no message."""
        if self._working is not None:
            self._working.transcript.skipped_lines += count

    def on_permission(self, request: PermissionRequest) -> None:
        """Keep the question until somebody or the clock decides it."""
        if self._keeper.agent is not None:
            self._permissions.ask(self._keeper.agent, request)

    def _on_agent_exit(self, end: AgentExit) -> None:
        """A lost agent that cannot resume ends the session: a new conversation is never faked."""
        log.info("agent ended", agent=self.row.agent, reason=end.reason, was_killed=end.was_killed)
        if self._was_asked and not self.row.can_resume:
            self._begin_close("not_resumable")

    # --- ending -----------------------------------------------------------------------------------

    def _accept_close(self, message: CloseSession) -> None:
        if message.only_if_idle and (self._line or self._cause):
            message.reply.set(False)
            return
        self._closers.append(message)
        self._begin_close(message.cause)

    def _begin_close(self, cause: str) -> None:
        """Take no more turns, end those there are, then end the actor. The first cause counts."""
        if self._cause is None:
            self._cause = cause
            self._nursery.start_soon(self._wind_down)

    async def _wind_down(self) -> None:
        """Each turn is bounded by its grace, the kill and the ledger, and so is this."""
        turns = tuple(self._line)
        for turn in turns:
            turn.stop("close")
        for turn in turns:
            await turn.ended.wait()
        self._nursery.cancel_scope.cancel()

    async def _clean_up(self, cause: str) -> None:
        """The one end: the tree is dead by now; settle the ledger, free the slot, answer all."""
        failure: ClawdforgeError | None = None
        try:
            with trio.fail_after(LEDGER_SECS):
                await self._settle(cause)
        except (StoreUnavailable, trio.TooSlowError):
            failure = StoreUnavailable("the session's end could not be written")
            log.warning("session end not written", agent=self.row.agent, cause=cause)
        finally:
            self._release()
            self.mailbox.close()
            if self._birth is not None:
                fail_asker(self._birth, self._birth_error or SessionGone())
            for closer in self._closers:
                fail_asker(closer, failure) if failure else closer.reply.set(True)

    async def _settle(self, cause: str) -> None:
        row, context = self.row, self._context
        if not self._is_on_record:
            if cause == "caller_gone" or self._birth_error is not None:
                await context.store.undo_session(row, cause=cause, at=context.now())
        elif cause in LEFT_OPEN and row.can_resume:
            return
        else:
            event: AuditEvent = "sweep_close" if cause == "idle" else "close"
            await context.store.close_session(
                row.session_id, event=event, cause=cause, at=context.now()
            )
        await context.launcher.discard(row.session_id)
