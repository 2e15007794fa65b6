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
    CloseAll,
    StartRun,
    StopRuns,
    Sweep,
)
from clawdforge.actors.reader import EventReader, TurnReader
from clawdforge.actors.tree import Tree, shut_down
from clawdforge.config import Config
from clawdforge.domain.admission import RETRY_DRAINING_SECS
from clawdforge.domain.files import FileShelf
from clawdforge.domain.ids import AgentName, AppName, SessionId
from clawdforge.domain.ports import AppRow, SessionRow, Store
from clawdforge.domain.questions import PendingPermission
from clawdforge.domain.runs import RunRequest, RunResult
from clawdforge.domain.sweeping import SweepCounts
from clawdforge.domain.turns import CancelReceipt, TurnResult, TurnTarget
from clawdforge.errors import ShuttingDown
from clawdforge.protocol.menus import Menus
from clawdforge.reception import Reception
from clawdforge.web.service import NewRun, NewSession, NewTurn, TurnTicket, Versions

TOKEN_BYTES: Final = 32
"""Random bytes of a token: 256 bits, as RFC 6750's advice on unguessable tokens allows for."""


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
        self._tree = tree
        self._pool = tree.pool
        self._sweeper = tree.sweeper
        self._reception = Reception(context, tree.pool)
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

    def menus(self, session_id: SessionId) -> Menus:
        """See the protocol."""
        return self._pool.menus(session_id)

    # --- sessions and turns -----------------------------------------------------------------------

    async def create_session(self, request: NewSession) -> SessionRow:
        """See the protocol. Bounded by ``start_secs``; abandoning it undoes it."""
        with self._context.workload.one_more():
            return await self._reception.create(request)

    async def start_turn(self, session_id: SessionId, app: AppName, request: NewTurn) -> TurnTicket:
        """See the protocol."""
        with self._context.workload.one_more():
            return await self._reception.start_turn(session_id, app, request)

    async def run_turn(self, session_id: SessionId, app: AppName, request: NewTurn) -> TurnResult:
        """See the protocol."""
        with self._context.workload.one_more():  # until the caller has been answered
            ticket = await self._reception.start_turn(session_id, app, request, is_patient=True)
            try:
                return await ticket.result()
            finally:
                ticket.leave()

    async def cancel_turn(
        self, session_id: SessionId, app: AppName, target: TurnTarget
    ) -> CancelReceipt:
        """See the protocol."""
        return await self._reception.cancel(session_id, app, target)

    async def list_permissions(
        self, session_id: SessionId, app: AppName
    ) -> Sequence[PendingPermission]:
        """See the protocol."""
        return await self._reception.list_permissions(session_id, app)

    async def decide_permission(
        self, session_id: SessionId, app: AppName, request_id: str, option_id: str
    ) -> None:
        """See the protocol."""
        await self._reception.decide_permission(session_id, app, request_id, option_id)

    async def close_session(self, session_id: SessionId, app: AppName) -> bool:
        """See the protocol."""
        return await self._reception.close(session_id, app)

    # --- runs -------------------------------------------------------------------------------------

    async def run_once(self, app: AppName, request: NewRun) -> RunResult:
        """See the protocol. Abandoning it stops the run."""
        if self.is_draining:
            raise ShuttingDown(RETRY_DRAINING_SECS)
        with self._context.workload.one_more():
            files = await self.files.claim(app, request.files, hold_secs=request.timeout_secs)
            asked = RunRequest(
                app=app,
                prompt=request.prompt,
                timeout_secs=request.timeout_secs,
                model=request.model,
                system=request.system,
                system_mode=request.system_mode,
                effort=request.effort,
                files=tuple(files),
            )
            return await self._tree.runs.mailbox.ref.ask(
                lambda reply: StartRun(request=asked, reply=reply)
            )

    def read_turn(self, session_id: SessionId, ticket: TurnTicket) -> EventReader:
        """See the protocol."""
        return TurnReader(self._context.feeds, session_id, ticket.events)

    async def read_events(self, session_id: SessionId, *, after: int) -> EventReader:
        """See the protocol."""
        page = await self.store.read_events(session_id, after=after, max_bytes=1)
        reader = EventReader(self._context.feeds, session_id, after=after)
        reader.position = min(after, max(page.up_to, reader.feed.last))
        return reader

    # --- apps and lifetimes -----------------------------------------------------------------------

    async def mint(self, name: AppName, ip_cidrs: Sequence[str]) -> str:
        """See the protocol."""
        return await mint_token(self.store, name, ip_cidrs, self.now())

    async def revoke(self, name: AppName) -> None:
        """See the protocol."""
        await self.store.revoke_app(name)
        self._context.feeds.alarm()
        await self._pool.mailbox.ref.ask(
            lambda reply: CloseAll(cause="revoked", app=name, reply=reply)
        )
        await self._tree.runs.mailbox.ref.ask(
            lambda reply: StopRuns(cause="revoked", app=name, reply=reply)
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
        await shut_down(self._context, self._tree)

    async def wait_idle(self) -> None:
        """Return when no turn and no creation is in progress. Unbounded: the server bounds it."""
        await self._context.workload.wait_idle()
