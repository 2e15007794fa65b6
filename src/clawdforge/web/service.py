"""The facade between HTTP and the actors: what a route may ask of the program.

Routes know this protocol, the ledger's port and the configuration, and nothing else of the program;
``clawdforge.app`` implements it. Every method says what it may raise and what cancelling it means.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import attrs

from clawdforge.actors.feed import EventSpan
from clawdforge.actors.reader import EventReader
from clawdforge.config import Config
from clawdforge.domain.files import FileShelf
from clawdforge.domain.ids import AgentName, AppName, SessionId
from clawdforge.domain.keys import IdempotencyKey
from clawdforge.domain.ports import SessionRow, Store
from clawdforge.domain.profiles import Permissions
from clawdforge.domain.questions import PendingPermission
from clawdforge.domain.runs import Effort, RunResult, SystemMode
from clawdforge.domain.turns import CancelReceipt, OnDisconnect, TurnResult, TurnTarget
from clawdforge.protocol.menus import Menus


@attrs.frozen(kw_only=True)
class Versions:
    """What the service found of the programs it hosts, probed once. A version is None if absent."""

    acpx_present: bool = False
    acpx_version: str | None = None
    claude_present: bool = False
    claude_version: str | None = None


@attrs.frozen(kw_only=True)
class NewSession:
    """A session to be opened. The route has checked that agent and permissions are allowed.

    ``permissions`` None means the profile's own mode, ``model`` None the profile's own model. With
    a ``key`` that was used, the session is the one of that time.
    """

    app: AppName
    agent: AgentName
    model: str | None = None
    meta: Mapping[str, Any] = attrs.field(factory=dict)
    permissions: Permissions | None = None
    key: IdempotencyKey | None = None


@attrs.frozen(kw_only=True)
class NewTurn:
    """A turn to be run. ``timeout_secs`` covers all of it, waiting in line included.

    ``files`` are tokens of uploaded files. ``first_output_secs`` and ``silence_secs`` are how long
    the agent may say nothing; None is no limit. With a ``key`` that was used, the turn is the one
    of that time: its callers become one more, or its answer is the stored one.
    """

    prompt: str
    timeout_secs: float
    files: tuple[str, ...] = ()
    on_disconnect: OnDisconnect = "cancel"
    first_output_secs: float | None = None
    silence_secs: float | None = None
    key: IdempotencyKey | None = None


@attrs.frozen(kw_only=True)
class NewRun:
    """A one-shot run. ``timeout_secs`` covers all of it, waiting in line included."""

    prompt: str
    timeout_secs: float
    model: str | None = None
    system: str | None = None
    system_mode: SystemMode = "append"
    effort: Effort | None = None
    files: tuple[str, ...] = ()


class TurnTicket(Protocol):
    """One caller's hold on an admitted turn. Leave it in a ``finally``, however the wait ends."""

    @property
    def turn_index(self) -> int:
        """The turn's number in its session, from 1."""

    @property
    def is_over(self) -> bool:
        """Whether ``result`` would answer at once."""

    @property
    def events(self) -> EventSpan:
        """Which of the session's events are the turn's, as far as that is known."""

    async def result(self) -> TurnResult:
        """The turn's one ending, however often it is asked for. Cancelling stops only the waiting.

        Raises StoreUnavailable when the ending could not be written.
        """

    def leave(self) -> None:
        """The caller has gone. Idempotent; a no-op when the turn is over; returns at once.

        When the last ticket is left, the turn is cancelled, unless ``on_disconnect`` is ``detach``.
        """


class Service(Protocol):
    """The program, as the routes see it. Any method may also raise StoreUnavailable."""

    @property
    def config(self) -> Config:
        """The frozen settings."""

    @property
    def store(self) -> Store:
        """The ledger; routes read it directly, and write sessions and turns never."""

    @property
    def files(self) -> FileShelf:
        """The uploaded files: where uploads go, and where runs and turns claim theirs."""

    def now(self) -> int:
        """Unix seconds."""

    @property
    def is_draining(self) -> bool:
        """Whether shutdown has begun: nothing new is taken."""

    @property
    def resting_agents(self) -> Collection[AgentName]:
        """Agents that keep failing and are left alone now: their circuits are open."""

    @property
    def open_sessions(self) -> int:
        """How many sessions have a live actor now."""

    def versions(self) -> Versions:
        """The cached result of one probe; never runs a program per call."""

    def is_live(self, session_id: SessionId) -> bool:
        """Whether an actor holds this session now."""

    def menus(self, session_id: SessionId) -> Menus:
        """The models and modes that the agent of a live session offers; none when unknown."""

    async def create_session(self, request: NewSession) -> SessionRow:
        """Start an agent and open a session on it; answers when the agent has shaken hands.

        Raises PoolFull, ShuttingDown, AgentNotStarted, AgentTimedOut; nothing half-made stays.
        IdempotencyKeyReused when the key stands for other fields. Cancelling undoes it: process,
        slot and row are gone; with a key it is kept, and the retry gets it.
        """

    async def start_turn(self, session_id: SessionId, app: AppName, request: NewTurn) -> TurnTicket:
        """Have a turn admitted; answers when it has its index and is in the ledger.

        Raises, for a turn that was not admitted: SessionNotFound, SessionClosed, SessionBusy,
        UnknownFileToken, IdempotencyKeyReused, PoolFull, ShuttingDown. Whatever happens later is in
        the ticket's result. Cancelling means that the caller has gone, as leaving the ticket does.
        """

    def read_turn(self, session_id: SessionId, ticket: TurnTicket) -> EventReader:
        """The events of an admitted turn, from its first. Close the reader in the end."""

    async def read_events(self, session_id: SessionId, *, after: int) -> EventReader:
        """The events of a session after a number, or after its last when that comes first.

        Reading activates nothing and is no activity. Close the reader in the end.
        """

    async def run_turn(self, session_id: SessionId, app: AppName, request: NewTurn) -> TurnResult:
        """``start_turn`` and the ticket's result, the ticket left in the end.

        An admitted turn that fails is a result with an ``error``. Bounded by
        ``request.timeout_secs``, the cancel grace and the kill behind it. Cancelling means that the
        caller has gone: the turn is cancelled, and nothing of it runs on.
        """

    async def cancel_turn(
        self, session_id: SessionId, app: AppName, target: TurnTarget
    ) -> CancelReceipt:
        """Stop the turn that is meant and answer when it is over; no other turn is hit.

        Raises SessionNotFound, TurnNotFound for a name that stands for no turn, SessionGone when it
        is not known how the turn ended. Bounded by the cancel grace, the kill and the ledger.
        Cancelling this stops only the waiting.
        """

    async def list_permissions(
        self, session_id: SessionId, app: AppName
    ) -> Sequence[PendingPermission]:
        """The permission requests that wait, oldest first. Raises SessionNotFound."""

    async def decide_permission(
        self, session_id: SessionId, app: AppName, request_id: str, option_id: str
    ) -> None:
        """Decide one. Raises SessionNotFound, PermissionNotFound, PermissionDecided.

        InvalidRequest for an option that was not offered; the request goes on waiting then.
        """

    async def close_session(self, session_id: SessionId, app: AppName) -> bool:
        """Close it, a working turn cancelled first. False: it was closed already.

        Raises SessionNotFound. Once the close has begun, cancelling stops only the waiting.
        """

    async def run_once(self, app: AppName, request: NewRun) -> RunResult:
        """Run a one-shot command to its end; one that fails is a result that says why.

        Raises RunsFull, ShuttingDown, UnknownFileToken, FilesUnavailable. Bounded by
        ``request.timeout_secs`` and the kill behind it. Cancelling means that the caller has gone:
        the run is stopped, and nothing of it runs on.
        """

    async def mint(self, name: AppName, ip_cidrs: Sequence[str]) -> str:
        """Make a token and answer its text, which is kept nowhere. Raises AppNameTaken.

        ``cf_`` and at least 32 random bytes, URL-safe.
        """

    async def revoke(self, name: AppName) -> None:
        """Revoke the token and close the app's live sessions. Raises AppNotFound."""

    def request_drain(self) -> None:
        """Take nothing new from now on, and have the server stop when it can. Idempotent."""


class RunningService(Service, Protocol):
    """A service as its server sees it: it can also be told to stop taking work."""

    def start_drain(self) -> None:
        """From now on sessions and turns are refused with ShuttingDown. Idempotent."""

    async def wait_idle(self) -> None:
        """Return when no turn and no creation is in progress. Unbounded: the server bounds it."""

    async def wait_drain_requested(self) -> None:
        """Return when ``request_drain`` has been called. Unbounded: most services never are."""

    async def stop_work(self) -> None:
        """End every session's actor as a shutdown does, so that turns and streams get their ending.

        Bounded: the cancel grace, the kill and the ledger behind it.
        """
