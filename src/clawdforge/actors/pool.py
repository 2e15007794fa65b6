"""The pool actor: who may live. It admits sessions up to the cap and supervises their actors.

Admission is one synchronous decision, so two racers can never both get the last slot, and a session
id never has two actors. Reading who lives needs no message: the registry is a plain table that only
this actor writes (Erlang's registry in ETS, Elixir's Registry).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, assert_never

import trio

from clawdforge.actors.context import SessionContext
from clawdforge.actors.mailbox import Mailbox, Reply, answering
from clawdforge.actors.messages import (
    ActivateSession,
    CloseAll,
    CloseSession,
    JoinBirth,
    OpenSession,
    PoolMail,
    SessionRef,
)
from clawdforge.actors.session import SessionActor
from clawdforge.actors.supervisor import ChildSpec, Report, run_child
from clawdforge.actors.warm import WarmShelf, WarmTree
from clawdforge.domain.admission import refuse_admission
from clawdforge.domain.ids import NOBODY, AppName, SessionId
from clawdforge.domain.keys import IdempotencyKey, same_request
from clawdforge.domain.ports import SessionRow
from clawdforge.domain.sweeping import LiveSession
from clawdforge.errors import CapacityError, ClawdforgeError
from clawdforge.protocol.menus import NO_MENUS, Menus

MAILBOX: Final = 1024
"""Messages are handled without waiting, so this many requests may arrive in one scheduler tick."""


class PoolActor:
    """All live sessions.

    Owns: the registry (id to actor), the cap ``limit`` (max children), the sessions' nursery, the
    shelf of warm trees, the actors that wait with them.
    Accepts: OpenSession, ActivateSession, CloseAll.
    Stops when: its supervisor cancels it; every session ends with it.
    If it crashes: all sessions end (their clean-up runs), and it starts again empty.
    """

    def __init__(self, context: SessionContext, report: Report) -> None:
        self.mailbox: Mailbox[PoolMail] = Mailbox(MAILBOX)
        self.limit = context.config.max_live_sessions
        self.is_draining = False
        self._context = context
        self._report = report
        self._sessions: dict[SessionId, SessionActor] = {}
        self.warm = WarmShelf(context, self._room, self._prepare, self._dismiss)
        self._waiting: dict[SessionId, SessionActor] = {}

    # --- the registry, read by anyone -------------------------------------------------------------

    @property
    def count(self) -> int:
        """Sessions that hold a slot."""
        return len(self._sessions)

    def lookup(self, session_id: SessionId) -> SessionRef | None:
        """The session's ref, if it lives."""
        actor = self._sessions.get(session_id)
        return None if actor is None else actor.mailbox.ref

    def find(self, session_id: SessionId, app: AppName) -> SessionRow | None:
        """The row of a session of that app that lives, as its actor took it up.

        The ledger has the last word: it is asked again before a turn begins.
        """
        actor = self._sessions.get(session_id)
        if actor is None or not actor.is_on_record or actor.row.app_name != app:
            return None
        return actor.row

    def live(self) -> dict[SessionId, LiveSession]:
        """Every live session that has a row."""
        facts = ((key, actor.live) for key, actor in self._sessions.items())
        return {key: fact for key, fact in facts if fact is not None}

    def menus(self, session_id: SessionId) -> Menus:
        """What the agent of a live session offers; nothing when it does not live."""
        actor = self._sessions.get(session_id)
        return NO_MENUS if actor is None else actor.menus

    def __repr__(self) -> str:
        return f"<PoolActor {self.count} of {self.limit} live>"

    # --- the actor --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until cancelled. The only place that reads the mailbox."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self.warm.run)
            while True:
                message = await self.mailbox.receive()
                with answering(message):
                    self._handle(message)

    def _handle(self, message: PoolMail) -> None:
        match message:
            case OpenSession(row, key, reply):
                if not self._join_birth(row, key, reply):
                    self._open(row, message)
            case ActivateSession(row, reply):
                ref = self.lookup(row.session_id)
                if ref is not None:
                    reply.set(ref)
                elif not self._refuse(row, reply):
                    reply.set(self._start(row, None))
            case CloseAll():
                self._nursery.start_soon(self._close_all, message)
            case _:
                assert_never(message)

    def _join_birth(
        self, row: SessionRow, key: IdempotencyKey | None, reply: Reply[SessionRow]
    ) -> bool:
        """Pass a retry on to the actor whose creation came under the same key, if there is one."""
        if key is None:
            return False
        twin = next((actor for actor in self._sessions.values() if actor.is_twin(row, key)), None)
        if twin is None or twin.birth_key is None:
            return False
        try:
            same_request(key, twin.birth_key.fields_sha256)
            twin.mailbox.ref.tell(JoinBirth(reply))
        except ClawdforgeError as error:
            reply.fail(error)
        return True

    def _open(self, row: SessionRow, birth: OpenSession) -> None:
        """Admit a new session; from an actor that waits with a tree it gets both, and their id."""
        tree = self.warm.find(row)
        if tree is None:
            if not self._refuse(row, birth.reply):
                self._start(row, birth)
        elif not self._refuse_place(birth.reply):
            self.warm.take(tree)
            if tree.session_id not in self._waiting:  # who waited with it has crashed
                self._prepare(tree)
            actor = self._waiting.pop(tree.session_id)
            actor.take_on(birth)
            self._register(actor)

    def _refuse(
        self, row: SessionRow, reply: Reply[SessionRow] | Reply[SessionRef]
    ) -> CapacityError | None:
        """Why there is no place, or its agent is not to be started now; it is told to the asker."""
        refusal = self._refuse_place(reply)
        if refusal is None:
            refusal = self._context.starts.refusal(row.agent)
            if refusal is not None:
                reply.fail(refusal)
        return refusal

    def _refuse_place(self, reply: Reply[SessionRow] | Reply[SessionRef]) -> CapacityError | None:
        refusal = refuse_admission(live=self.count, limit=self.limit, is_draining=self.is_draining)
        if refusal is not None:
            reply.fail(refusal)
        return refusal

    def _room(self) -> int:
        """Places that no session holds."""
        return 0 if self.is_draining else self.limit - self.count

    def _start(self, row: SessionRow, birth: OpenSession | None) -> SessionRef:
        actor = self._make(row, birth)
        self._register(actor)
        return actor.mailbox.ref

    def _prepare(self, tree: WarmTree) -> None:
        """Have an actor wait with the tree: a creation that takes them has little left to do."""
        profile = tree.profile
        row = SessionRow(
            session_id=tree.session_id,
            app_name=NOBODY,
            agent=profile.name,
            model=profile.model,
            created_at=0,
            permissions=profile.permissions,
        )
        self._waiting[tree.session_id] = self._make(row, None, tree)

    def _dismiss(self, tree: WarmTree) -> None:
        """The tree is dead, and no session ever had it."""
        actor = self._waiting.pop(tree.session_id, None)
        if actor is not None:
            actor.dismiss()

    def _make(
        self, row: SessionRow, birth: OpenSession | None, warm: WarmTree | None = None
    ) -> SessionActor:
        release = self._releaser(row.session_id)
        actor = SessionActor(row, self._context, birth=birth, release=release, warm=warm)
        spec = ChildSpec("session", actor.run, "temporary")
        self._nursery.start_soon(run_child, spec, self._report)
        return actor

    def _register(self, actor: SessionActor) -> None:
        """It has a slot from now on."""
        self._sessions[actor.row.session_id] = actor
        self.warm.give_way()

    def _releaser(self, session_id: SessionId) -> Callable[[], None]:
        def release() -> None:
            self._sessions.pop(session_id, None)
            self._waiting.pop(session_id, None)
            self.warm.look()

        return release

    async def _close_all(self, message: CloseAll) -> None:
        """Close all at once; each is bounded by its own ladder. One that fails is logged there."""
        chosen = [
            actor
            for actor in self._sessions.values()
            if message.app is None or actor.row.app_name == message.app
        ]
        with answering(message):
            async with trio.open_nursery() as closing:
                for actor in chosen:
                    closing.start_soon(_close_one, actor.mailbox.ref, message.cause)
            message.reply.set(None)


async def _close_one(ref: SessionRef, cause: str) -> None:
    """Gone already is closed; what the ledger refused, the next sweep reconciles."""
    try:
        await ref.ask(lambda reply: CloseSession(cause, only_if_idle=False, reply=reply))
    except ClawdforgeError:
        return
