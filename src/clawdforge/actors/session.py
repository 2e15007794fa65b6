"""The session actor: one mailbox, one agent process tree, one line of turns.

The rule it keeps: the agent works on one turn at a time, a new turn starts only when the old one is
proved over, and everything that can end a session ends in ``_clean_up``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NoReturn, assert_never

import structlog
import trio

from clawdforge.actors.context import LEDGER_SECS, SessionContext
from clawdforge.actors.keeper import AgentKeeper
from clawdforge.actors.line import TurnLine
from clawdforge.actors.mailbox import Mailbox, answering, fail_asker
from clawdforge.actors.messages import (
    CancelTurn,
    CloseSession,
    DecidePermission,
    JoinBirth,
    ListPermissions,
    OpenSession,
    SessionMail,
    StartTurn,
)
from clawdforge.actors.permissions import PermissionDesk
from clawdforge.actors.warm import WarmTree
from clawdforge.domain.keys import IdempotencyKey
from clawdforge.domain.ports import (
    AgentExit,
    AuditEvent,
    LaunchSpec,
    Message,
    PermissionRequest,
    SessionRow,
)
from clawdforge.domain.sweeping import LiveSession
from clawdforge.errors import (
    CallerError,
    ClawdforgeError,
    SessionClosed,
    SessionGone,
    StoreUnavailable,
)
from clawdforge.protocol.acp import is_output, update_of
from clawdforge.protocol.menus import NO_MENUS, Menus

log: Final = structlog.get_logger("clawdforge.session")

LEFT_OPEN: Final = frozenset({"shutdown", "crash"})
"""Causes that end the actor but not the session, if its agent can resume the conversation."""


class SessionActor:
    """One open session.

    Owns: its mailbox, the line of turns and in it the agent's process tree, the session's row.
    Accepts: StartTurn, CancelTurn, DecidePermission, ListPermissions, JoinBirth, CloseSession.
    Stops when: closed (by its caller, the sweeper, revocation), the agent is lost and cannot
    resume, its creation is abandoned, or the service shuts down. One that is made with a ``warm``
    tree has no session yet: it waits for ``take_on`` or ``dismiss``.
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
        warm: WarmTree | None = None,
    ) -> None:
        self.row = row
        self.mailbox: Mailbox[SessionMail] = Mailbox(2 * context.config.turn_queue + 32)
        self._context = context
        self._birth = birth
        self._release = release
        self.is_on_record = birth is None and warm is None
        self._birth_error: ClawdforgeError | None = None
        self._feed = context.feeds.hold(row.session_id)
        self._line = self._make_line(warm)
        self._has_come = None if warm is None else trio.Event()
        self._cause: str | None = None
        self._closers: list[CloseSession] = []
        self._retries: list[JoinBirth] = []
        self._menus: Menus | None = None

    @property
    def live(self) -> LiveSession | None:
        """What the sweeper may know of it; None while it has no row yet."""
        if not self.is_on_record:
            return None
        return LiveSession(self.row.app_name, is_busy=self._is_busy)

    @property
    def _is_busy(self) -> bool:
        return len(self._line) > 0

    @property
    def menus(self) -> Menus:
        """The models and modes that its agent offers; empty before it has said so."""
        agent = self._line.keeper.agent
        if agent is not None and self._menus is None:
            model = self.row.model or self._line.keeper.spec.profile.model
            self._menus = agent.info.menus.with_model(model)
        return self._menus or NO_MENUS

    def __repr__(self) -> str:
        doing = self._cause or ("working" if self._line.working else "idle")
        return f"<SessionActor {self.row.agent} {doing}, {len(self._line)} turns in line>"

    async def run(self) -> None:
        """Live until closed. Its own task opens the session, and then writes down what is said."""
        cause = "crash"
        try:
            await self._read_row()
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._line.live_in(nursery)
                nursery.start_soon(self._read_mailbox)
                if self._has_come is not None:
                    await self._has_come.wait()  # unbounded: it waits as long as its tree does
                if self._cause is not None:
                    nursery.cancel_scope.cancel()
                elif self._birth is None or await self._open(self._birth):
                    await self._feed.run_writer()
            cause = self._cause or "crash"
        except trio.Cancelled:
            cause = self._cause or "shutdown"
            raise
        finally:
            with trio.CancelScope(shield=True):
                await self._clean_up(cause)

    def take_on(self, birth: OpenSession) -> None:
        """Be the actor of a new session, which gets the tree that waits, and its id."""
        assert self._has_come is not None
        row, self._birth = birth.row, birth
        self.row = row.started(self.row.session_id, can_resume=row.can_resume)
        self._has_come.set()

    def dismiss(self) -> None:
        """There will be no session: the tree that waited is dead."""
        assert self._has_come is not None
        self._cause = "not_wanted"
        self._has_come.set()

    async def _read_row(self) -> None:
        """What an earlier incarnation left: only now is it certain to be over."""
        row, store, last_event = self.row, self._context.store, 0
        if self.is_on_record:
            with trio.fail_after(LEDGER_SECS):
                row = await store.find_session(row.session_id, row.app_name) or row
                last_event = await store.take_up_events(row.session_id)
        self.row = row
        self._line.take_up(row.turn_count)
        self._feed.take_up(last_event)

    def _make_line(self, warm: WarmTree | None) -> TurnLine:
        row, context, config = self.row, self._context, self._context.config
        spec = LaunchSpec(row.session_id, config.agents[row.agent], row.model, row.permissions)
        keeper = AgentKeeper(
            context.launcher,
            self,
            config.start_secs,
            self._on_agent_exit,
            spec,
            context.starts,
            warm,
        )
        return TurnLine(
            row.session_id,
            context,
            keeper,
            PermissionDesk(
                row.session_id, context.store, context.now, config.permission_secs, self._feed
            ),
            self._feed,
            on_lost=lambda: self._begin_close("not_resumable"),
        )

    async def _read_mailbox(self) -> NoReturn:
        """The only place that reads it."""
        while True:
            message = await self.mailbox.receive()
            with answering(message):
                self._handle(message)

    def _handle(self, message: SessionMail) -> None:
        match message:
            case StartTurn() if self._line.attach(message):
                pass
            case StartTurn() if self._cause is not None:
                message.reply.fail(SessionClosed(self._cause))
            case StartTurn():
                self._line.admit(message)
            case CancelTurn():
                self._line.cancel(message)
            case DecidePermission():
                self._decide(message)
            case ListPermissions(reply):
                reply.set(self._line.desk.pending)
            case JoinBirth():
                self._join_birth(message)
            case CloseSession():
                self._accept_close(message)
            case _:
                assert_never(message)

    # --- opening ----------------------------------------------------------------------------------

    async def _open(self, birth: OpenSession) -> bool:
        """Start the agent, write the row, answer. What fails is answered in the clean-up."""
        if birth.key is None:  # with a key it is kept, and the retry gets it
            birth.reply.when_abandoned(lambda: self._begin_close("caller_gone"))
        try:
            with self._context.workload.one_more():
                agent = await self._line.keeper.ready()
            self.row = self.row.started(self.row.session_id, can_resume=agent.info.can_resume)
            await self._context.store.add_session(self.row, birth.key)
        except ClawdforgeError as error:
            self._birth_error = error
            self._begin_close("not_started")
            return False
        self.is_on_record = True
        birth.reply.set(self.row)
        for retry in self._retries:
            retry.reply.set(self.row)
        return True

    @property
    def birth_key(self) -> IdempotencyKey | None:
        """The key that its creation came under."""
        return self._birth.key if self._birth is not None else None

    def is_twin(self, row: SessionRow, key: IdempotencyKey | None) -> bool:
        """Whether that creation is this one, sent again."""
        mine = self.birth_key
        is_same_app = row.app_name == self.row.app_name
        return key is not None and mine is not None and is_same_app and key.name == mine.name

    def _join_birth(self, message: JoinBirth) -> None:
        if self.is_on_record:
            message.reply.set(self.row)
        elif self._cause is not None:
            message.reply.fail(self._birth_error or SessionGone())
        else:
            self._retries.append(message)

    # --- what the agent says (AgentSink) ----------------------------------------------------------

    def on_event(self, message: Message, wire: bytes) -> None:
        """Updates between turns belong to the session; no turn has them."""
        event = self._feed.add(message, wire)
        update = update_of(message)
        if update is not None:
            self._follow_menus(update)
        turn = self._line.working
        if turn is not None:
            turn.transcript.add(message, update, event.message, len(wire))
            self._line.desk.observe(self.row.permissions, message, turn.index)
            if is_output(update):
                turn.silence.heard()

    def _follow_menus(self, update: Message) -> None:
        now = self.menus.after(update)
        if self._menus is not None:  # else the agent has not been met yet
            self._menus = now

    def on_skipped(self, count: int) -> None:
        """Count what was no message."""
        if self._line.working is not None:
            self._line.working.transcript.skipped_lines += count

    def on_permission(self, request: PermissionRequest) -> None:
        """Keep the question until somebody or the clock decides it."""
        agent = self._line.keeper.agent
        if agent is not None:
            self._line.desk.ask(agent, request, self._line.working)

    def _decide(self, message: DecidePermission) -> None:
        try:
            self._line.desk.decide(message.request_id, message.option_id)
        except CallerError as error:
            message.reply.fail(error)
        else:
            message.reply.set(None)

    def _on_agent_exit(self, end: AgentExit) -> None:
        """A lost agent that cannot resume ends the session: a new conversation is never faked."""
        log.info("agent ended", agent=self.row.agent, reason=end.reason, was_killed=end.was_killed)
        if self._line.keeper.was_asked and not self.row.can_resume:
            self._begin_close("not_resumable")

    # --- ending -----------------------------------------------------------------------------------

    def _accept_close(self, message: CloseSession) -> None:
        if message.only_if_idle and (self._is_busy or self._cause):
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
        await self._line.stop_all()
        self._nursery.cancel_scope.cancel()

    async def _clean_up(self, cause: str) -> None:
        """The one end: the tree is dead by now; settle the ledger, free the slot, answer all."""
        failure: ClawdforgeError | None = None
        end: str | None = None
        try:
            with trio.fail_after(LEDGER_SECS):
                end = cause if await self._settle(cause) else None
        except (StoreUnavailable, trio.TooSlowError):
            failure = StoreUnavailable("the session's end could not be written")
            log.warning("session end not written", agent=self.row.agent, cause=cause)
        finally:
            self._feed.leave(end=end)
            self._context.feeds.let_go(self._feed)
            self._release()
            self.mailbox.close()
            for asker in (self._birth, *self._retries):
                fail_asker(asker, self._birth_error or SessionGone())
            for closer in self._closers:
                fail_asker(closer, failure) if failure else closer.reply.set(True)

    async def _settle(self, cause: str) -> bool:
        """Bring the ledger up to date; whether the session has ended, and not just its actor."""
        row, context = self.row, self._context
        if self._birth is None and not self.is_on_record:
            return True  # there never was a session, and the tree's place is the shelf's to clear
        # A birth's caller may leave in the moment of the answer: what it never got is undone.
        if not self.is_on_record or cause == "caller_gone":
            await context.launcher.discard(row.session_id)  # first: the ledger may refuse
            if cause == "caller_gone" or self._birth_error is not None:
                await context.store.undo_session(row, cause=cause, at=context.now())
            return True
        await self._line.debts.pay()
        await self._feed.flush()
        if cause in LEFT_OPEN and row.can_resume:
            return False
        event: AuditEvent = "sweep_close" if cause == "idle" else "close"
        await context.store.close_session(
            row.session_id, event=event, cause=cause, at=context.now()
        )
        await context.launcher.discard(row.session_id)
        return True
