"""The program as the routes see it: each request becomes a message to an actor and its answer.

It holds no state of its own: the actors do, and the ledger what must outlive them. Implements
:class:`clawdforge.web.service.RunningService`.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Final

import trio

from clawdforge.actors.context import SessionContext
from clawdforge.actors.messages import (
    ActivateSession,
    CloseAll,
    CloseSession,
    OpenSession,
    SessionRef,
    StartTurn,
    Sweep,
)
from clawdforge.actors.ticket import TurnTicket
from clawdforge.actors.tree import Tree, shut_down
from clawdforge.config import Config
from clawdforge.domain.admission import RETRY_DRAINING_SECS
from clawdforge.domain.files import FileShelf
from clawdforge.domain.ids import AgentName, AppName, SessionId
from clawdforge.domain.ports import AppRow, SessionRow, Store
from clawdforge.domain.sweeping import SweepCounts
from clawdforge.domain.turns import TurnRequest, TurnResult
from clawdforge.errors import SessionClosed, SessionGone, SessionNotFound, ShuttingDown
from clawdforge.web.service import NewSession, NewTurn, Versions

TOKEN_BYTES: Final = 32
"""Random bytes of a token: 256 bits, as RFC 6750's advice on unguessable tokens allows for."""

SESSION_ID_BYTES: Final = 24
"""Random bytes of a session id: 192 bits, 32 characters."""


def digest_token(token: str) -> str:
    """What the ledger keeps of a token: its SHA-256, in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


async def mint_token(store: Store, name: AppName, ip_cidrs: Sequence[str], now: int) -> str:
    """Make a token, write its digest, answer its text. Raises AppNameTaken."""
    token = "cf_" + secrets.token_urlsafe(TOKEN_BYTES)
    await store.add_app(AppRow(name, tuple(ip_cidrs), now), digest_token(token))
    return token


class LiveService:
    """The running program. Made by :func:`clawdforge.app.open_service`."""

    def __init__(
        self, context: SessionContext, tree: Tree, versions: Callable[[], Versions]
    ) -> None:
        self._context = context
        self._pool = tree.pool
        self._sweeper = tree.sweeper
        self._versions = versions
        self._drain_requested = trio.Event()

    # --- what is known without asking -------------------------------------------------------------

    @property
    def config(self) -> Config:
        """The frozen settings."""
        return self._context.config

    @property
    def store(self) -> Store:
        """The ledger."""
        return self._context.store

    @property
    def files(self) -> FileShelf:
        """The uploaded files."""
        return self._context.files

    def now(self) -> int:
        """Unix seconds."""
        return self._context.now()

    @property
    def is_draining(self) -> bool:
        """Whether shutdown has begun."""
        return self._pool.is_draining

    @property
    def resting_agents(self) -> Collection[AgentName]:
        """Agents whose circuit is open."""
        return self._context.starts.circuits.open_agents

    @property
    def open_sessions(self) -> int:
        """How many sessions hold a slot."""
        return self._pool.count

    @property
    def max_live_sessions(self) -> int:
        """The cap; may be changed while serving, and the next request obeys."""
        return self._pool.limit

    @max_live_sessions.setter
    def max_live_sessions(self, limit: int) -> None:
        self._pool.limit = limit

    def versions(self) -> Versions:
        """What is installed."""
        return self._versions()

    def is_live(self, session_id: SessionId) -> bool:
        """Whether an actor holds this session."""
        return self._pool.lookup(session_id) is not None

    # --- sessions and turns -----------------------------------------------------------------------

    async def create_session(self, request: NewSession) -> SessionRow:
        """See the protocol. Bounded by ``start_secs``; abandoning it undoes it."""
        profile = self.config.agents[request.agent]
        row = SessionRow(
            session_id=SessionId(secrets.token_urlsafe(SESSION_ID_BYTES)),
            app_name=request.app,
            agent=request.agent,
            model=request.model or profile.model,
            created_at=self.now(),
            permissions=request.permissions or profile.permissions,
            meta=request.meta,
        )
        with self._context.workload.one_more():
            return await self._pool.mailbox.ref.ask(lambda reply: OpenSession(row=row, reply=reply))

    async def start_turn(self, session_id: SessionId, app: AppName, request: NewTurn) -> TurnTicket:
        """See the protocol."""
        if self.is_draining:
            raise ShuttingDown(RETRY_DRAINING_SECS)
        with self._context.workload.one_more():
            row = await self._find(session_id, app)
            if row.closed_at is not None:
                raise SessionClosed(row.close_cause or "closed")
            files = await self.files.claim(app, request.files, hold_secs=request.timeout_secs)
            asked = TurnRequest(
                prompt=request.prompt,
                timeout_secs=request.timeout_secs,
                files=tuple(files),
                on_disconnect=request.on_disconnect,
            )
            ref = await self._ref_of(row)
            try:
                return await ref.ask(lambda reply: StartTurn(request=asked, reply=reply))
            except SessionGone:
                await self._explain_end(session_id, app)
                raise

    async def run_turn(self, session_id: SessionId, app: AppName, request: NewTurn) -> TurnResult:
        """See the protocol."""
        with self._context.workload.one_more():  # until the caller has been answered
            ticket = await self.start_turn(session_id, app, request)
            try:
                return await ticket.result()
            finally:
                ticket.leave()

    async def close_session(self, session_id: SessionId, app: AppName) -> bool:
        """See the protocol."""
        row = await self._find(session_id, app)
        if row.closed_at is not None:
            return False
        ref = self._pool.lookup(session_id)
        if ref is None:
            is_ours = await self.store.close_session(
                session_id, event="close", cause="caller", at=self.now()
            )
            await self._context.launcher.discard(session_id)
            return is_ours
        try:
            return await ref.ask(
                lambda reply: CloseSession(cause="caller", only_if_idle=False, reply=reply)
            )
        except SessionGone:
            return False

    async def _find(self, session_id: SessionId, app: AppName) -> SessionRow:
        row = await self.store.find_session(session_id, app)
        if row is None:
            raise SessionNotFound
        return row

    async def _ref_of(self, row: SessionRow) -> SessionRef:
        """The session's actor; an open session that has none is admitted again."""
        ref = self._pool.lookup(row.session_id)
        if ref is not None:
            return ref
        return await self._pool.mailbox.ref.ask(lambda reply: ActivateSession(row=row, reply=reply))

    async def _explain_end(self, session_id: SessionId, app: AppName) -> None:
        """An actor that ended under a request: say why, if the ledger knows."""
        row = await self._find(session_id, app)
        if row.closed_at is not None:
            raise SessionClosed(row.close_cause or "closed")

    # --- apps and lifetimes -----------------------------------------------------------------------

    async def mint(self, name: AppName, ip_cidrs: Sequence[str]) -> str:
        """See the protocol."""
        return await mint_token(self.store, name, ip_cidrs, self.now())

    async def revoke(self, name: AppName) -> None:
        """See the protocol."""
        await self.store.revoke_app(name)
        await self._pool.mailbox.ref.ask(
            lambda reply: CloseAll(cause="revoked", app=name, reply=reply)
        )

    async def sweep_once(self) -> SweepCounts:
        """Sweep now, beside the sweeper's own ticks."""
        return await self._sweeper.mailbox.ref.ask(lambda reply: Sweep(reply=reply))

    # --- draining ---------------------------------------------------------------------------------

    def start_drain(self) -> None:
        """Refuse sessions and turns from now on."""
        self._pool.is_draining = True

    def request_drain(self) -> None:
        """See the protocol."""
        self.start_drain()
        self._drain_requested.set()

    async def wait_drain_requested(self) -> None:
        """See the protocol."""
        await self._drain_requested.wait()

    async def stop_work(self) -> None:
        """See the protocol."""
        await shut_down(self._context, self._pool)

    async def wait_idle(self) -> None:
        """Return when no turn and no creation is in progress. Unbounded: the server bounds it."""
        await self._context.workload.wait_idle()
