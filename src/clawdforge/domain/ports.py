"""The ports: what the actors need from the outside, in their own words.

Adapters (``processes``, ``store``, and the fakes in ``testing``) implement these protocols; the
actors know nothing else of them. Every method says who calls it, what it may raise, and whether it
may be cancelled half-way. No trio in here: a port is a promise, not a mechanism.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import attrs

from clawdforge.domain.events import EventBatch, EventLog
from clawdforge.domain.files import FileRow
from clawdforge.domain.ids import AgentName, AppName, SessionId
from clawdforge.domain.keys import IdempotencyKey, KeyBook
from clawdforge.domain.profiles import AgentProfile, Permissions
from clawdforge.domain.runs import RunLog
from clawdforge.protocol.menus import NO_MENUS, Menus

Value_contra = TypeVar("Value_contra", contravariant=True)

Message = Mapping[str, Any]
"""One ACP message as the agent sent it: parsed, never rewritten."""

# --- agents ---------------------------------------------------------------------------------------


@attrs.frozen
class LaunchSpec:
    """What to start for one session.

    ``is_resuming`` says that the conversation exists already: the agent must load or resume it
    (:class:`~clawdforge.errors.AgentNotResumable` if it cannot), never begin another silently.
    ``is_for_later`` says that nobody waits for it yet: what makes its first turn quick comes first.
    """

    session_id: SessionId
    profile: AgentProfile
    model: str | None
    permissions: Permissions
    is_resuming: bool = False
    is_for_later: bool = False


@attrs.frozen
class AgentInfo:
    """What the agent said of itself in the handshake. ``can_resume``: load or resume is offered."""

    can_resume: bool
    name: str | None = None
    version: str | None = None
    menus: Menus = NO_MENUS


@attrs.frozen
class AgentExit:
    """How an agent's process tree ended. ``reason`` is one plain line, free of paths."""

    reason: str
    was_killed: bool


@attrs.frozen
class PermissionRequest:
    """An agent asks whether it may do something. ``request_id`` is ours, unique in the session."""

    request_id: str
    tool_call: Message
    options: Sequence[Message]


class AgentSink(Protocol):
    """Where an agent's output goes. The session actor gives one to its launcher.

    All methods are plain functions that return at once: the agent is always drained, whatever
    the readers do. They may be called until ``run_agent`` has returned.
    """

    def on_event(self, message: Message, wire: bytes) -> None:
        """One message from the agent about a turn or the session, in order, and its very bytes.

        These are ``session/update``, the agent's own requests, and the response to
        ``session/prompt``; never the handshake, never what we sent (HTTP contract, turn events).
        """

    def on_skipped(self, count: int) -> None:
        """``count`` lines were not JSON or over the line limit, and were left out."""

    def on_permission(self, request: PermissionRequest) -> None:
        """The agent waits for a decision (mode ``ask`` only)."""


class Agent(Protocol):
    """One live agent process tree with one ACP session open on it."""

    @property
    def info(self) -> AgentInfo:
        """What the agent said of itself."""

    async def prompt(self, turn_index: int, text: str, files: Sequence[Path]) -> str:
        """Run one turn and answer its ACP stop reason. Called by the session actor, one at a time.

        Raises AgentExited when the process ends first, AgentMisbehaved when the agent answers with
        an error, AgentNotResumable when the conversation could not be taken up. Cancelling this
        call stops only the waiting: the turn goes on until ``cancel`` or ``kill``, and ``rejoin``
        waits on. A prompt that was not given to the agent yet is not given to it any more.
        """

    async def rejoin(self, turn_index: int) -> str | None:
        """Wait again for the turn whose ``prompt`` was cancelled; answers and raises as that does.

        None at once when the agent was never given that prompt. Cancelling stops only the waiting.
        """

    async def cancel(self, turn_index: int) -> None:
        """Tell the agent to stop that turn (``session/cancel``); its ``prompt`` then answers.

        A no-op when that turn is over or not begun. Returns when the word is on the wire; does not
        raise when the process is gone. May be cancelled (the word may then not have been sent).
        """

    async def answer_permission(self, request_id: str, option_id: str | None) -> None:
        """Answer a permission request; ``None`` is the outcome ``cancelled``. Unknown: a no-op."""

    def kill(self) -> None:
        """Close the lifeline: the whole process tree dies. Returns at once; idempotent.

        ``run_agent`` returns when that is proved.
        """


class Started(Protocol[Value_contra]):
    """What a long-lived function calls once it works (trio's ``TaskStatus`` has this shape)."""

    def started(self, value: Value_contra, /) -> None:
        """Hand ``value`` to whoever started this function."""


class Launcher(Protocol):
    """Starts agents. One per service; called by session actors."""

    async def run_agent(
        self, spec: LaunchSpec, sink: AgentSink, *, task_status: Started[Agent]
    ) -> AgentExit:
        """Start an agent, shake hands, and stay until its whole process tree is proved dead.

        For ``nursery.start``. Raises AgentNotStarted (or AgentNotResumable) before ``started`` when
        the agent does not come up, CapacityError when the machine is too full for it; nothing of it
        is left then. Cancelling kills the tree, and the
        cancellation is let through only when the tree is dead (shielded, bounded). A process that
        ends by itself makes this return; every call that waited on the agent is resolved first.
        The caller bounds the start with its own deadline.
        """

    async def discard(self, session_id: SessionId) -> None:
        """Remove the session's directories. Called after ``run_agent`` has returned; idempotent.

        Does not raise when they are gone. May be cancelled half-way and called again.
        """


# --- the ledger -----------------------------------------------------------------------------------


@attrs.frozen
class AppRow:
    """A token, as the ledger knows it: the token's text is never stored, only its SHA-256."""

    name: AppName
    ip_cidrs: tuple[str, ...]
    created_at: int


@attrs.frozen
class SessionRow:
    """A session, as the ledger knows it. ``permissions`` is kept so that a resume restores it."""

    session_id: SessionId
    app_name: AppName
    agent: AgentName
    model: str | None
    created_at: int
    permissions: Permissions
    can_resume: bool = False
    last_turn_at: int | None = None
    closed_at: int | None = None
    close_cause: str | None = None
    turn_count: int = 0
    meta: Mapping[str, Any] = attrs.field(factory=dict)

    def started(self, session_id: SessionId, *, can_resume: bool) -> SessionRow:
        """The row of a new session, once its agent is known.

        Spelt out: two calls of ``attrs.evolve`` are a twentieth of a creation over a warm tree.
        """
        return SessionRow(
            session_id=session_id,
            app_name=self.app_name,
            agent=self.agent,
            model=self.model,
            created_at=self.created_at,
            permissions=self.permissions,
            can_resume=can_resume,
            meta=self.meta,
        )


AuditEvent = Literal["create", "turn", "permission", "close", "sweep_close", "hard_delete"]

Ending = Literal["completed", "cancelled", "failed", "timed_out", "interrupted"]
"""How a turn ended. Every admitted turn gets exactly one; ``interrupted``: the outcome is unknown,
because the service itself ended first."""


@attrs.frozen
class TurnStart:
    """An admitted turn, written before the agent is asked."""

    session_id: SessionId
    turn_index: int
    prompt: str
    started_at: int
    key: IdempotencyKey | None = None


@attrs.frozen
class TurnEnd:
    """The one ending of a turn. Its events are those from ``first_event`` to ``last_event``.

    ``facts`` is what else the answer said, ready for JSON. Written only: ``kept_events``, as JSON
    text, for an answer that may be asked for again; ``audited_prompt``, where the audit has texts.
    """

    session_id: SessionId
    turn_index: int
    ending: Ending
    stop_reason: str
    text: str
    duration_ms: int
    ended_at: int
    detail: str | None = None
    first_event: int | None = None
    last_event: int | None = None
    facts: Mapping[str, Any] = attrs.field(factory=dict)
    kept_events: str | None = attrs.field(default=None, repr=False)
    audited_prompt: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class TurnRow:
    """A turn, without key and kept events; ``end`` is None while it waits or works."""

    start: TurnStart
    end: TurnEnd | None = None


@attrs.frozen
class AuditRow:
    """One line of ``session_events``: counts and causes, never a token or a text."""

    session_id: SessionId
    event: AuditEvent
    at: int
    meta: Mapping[str, Any] = attrs.field(factory=dict)


class Store(EventLog, KeyBook, RunLog, Protocol):
    """The ledger. The database is the truth: nothing here is cached.

    Every method may raise StoreUnavailable, and may be cancelled while it waits; *neither means
    "not written"*, so every write carries its own key and may be repeated. A method that has
    returned has committed. A write is answered in half a minute at the latest, whatever the disk
    does; the time for a read is its caller's.
    """

    # Apps: called by the admin routes, the command line, and the gate of every request.

    async def add_app(self, row: AppRow, token_sha256: str) -> None:
        """Mint. Raises AppNameTaken. A revoked name may be minted again (rotation)."""

    async def list_apps(self) -> Sequence[AppRow]:
        """All apps whose token is valid, oldest first."""

    async def revoke_app(self, name: AppName) -> None:
        """Raises AppNotFound. The app's sessions stay: they are its data."""

    async def find_app(self, token_sha256: str) -> AppRow | None:
        """The app that holds this token, if any."""

    # Files: called by the file shelf. What is unknown, another app's or over looks alike.

    async def add_file(self, row: FileRow, token_sha256: str) -> None:
        """Write the row of a file that is on the disk. The same token again is a no-op."""

    async def claim_files(
        self, app: AppName, tokens_sha256: Sequence[str], *, now: int, until: int
    ) -> Sequence[str | None]:
        """The names of the app's files behind the tokens, in order; they are held till ``until``.

        None for each that is not there for this app at ``now``.
        """

    async def expire_files(self, *, now: int) -> Set[str]:
        """Delete rows that are neither valid nor held; answers the names of those that stay."""

    # Sessions: called by session actors, routes and the sweeper.

    async def add_session(self, row: SessionRow, key: IdempotencyKey | None = None) -> None:
        """Write the row and the audit event ``create``. The same id again is a no-op.

        Raises IdempotencyKeyTaken: under ``key`` the app has created another session.
        """

    async def find_session(self, session_id: SessionId, app: AppName) -> SessionRow | None:
        """One query on (id, app): another app's session is None, like one that never existed."""

    async def list_sessions(self, app: AppName, *, include_closed: bool) -> Sequence[SessionRow]:
        """The sessions of one app, newest first (ties by id)."""

    async def close_session(
        self, session_id: SessionId, *, event: AuditEvent, cause: str, at: int
    ) -> bool:
        """Mark it closed and write the audit event, once: False when it is closed or missing."""

    async def undo_session(self, row: SessionRow, *, cause: str, at: int) -> None:
        """Delete the row if it is there; the audit has ``create`` and then ``close`` either way."""

    async def delete_session(self, session_id: SessionId, *, at: int) -> bool:
        """Delete row and turns; audit ``hard_delete``. False when it is missing."""

    async def list_all_sessions(self) -> Sequence[SessionRow]:
        """Every row of every app: the sweeper's view."""

    async def set_can_resume(self, session_id: SessionId, *, can_resume: bool) -> None:
        """Record whether the agent offers load or resume. Missing: a no-op."""

    # Turns: called by session actors, history routes, and start-up.

    async def begin_turn(self, start: TurnStart) -> None:
        """Write the turn, set the session's turn_count and last_turn_at; same index: a no-op.

        Raises SessionClosed, SessionNotFound, IdempotencyKeyTaken (another turn has the key).
        """

    async def end_turn(self, end: TurnEnd, batch: EventBatch | None = None) -> bool:
        """Write the one ending, the audit event ``turn`` and last_turn_at. False: it has one.

        ``batch`` is appended to the event log in the same transaction, whatever the answer.
        """

    async def list_turns(
        self, session_id: SessionId, *, before: int | None, limit: int, max_chars: int | None = None
    ) -> Sequence[TurnRow]:
        """Turns below ``before``, newest first, at most ``limit``, texts cut to ``max_chars``."""

    async def find_turn(self, session_id: SessionId, turn_index: int) -> TurnRow | None:
        """One turn."""

    async def note_permission(self, row: AuditRow, request_id: str) -> None:
        """Write the audit event of a decision. The same ``request_id`` again is a no-op."""

    async def interrupt_turns(self, *, at: int) -> int:
        """At start-up: end every open turn as ``interrupted``; says how many there were.

        Each of their sessions passes over EVENT_RESERVE event numbers: events were lost.
        """

    async def list_audit(self, session_id: SessionId) -> Sequence[AuditRow]:
        """The audit of one session, oldest first. Outlives the session."""

    async def check(self) -> None:
        """Prove that a write would commit now. Raises StoreUnavailable. For /readyz and doctor."""
