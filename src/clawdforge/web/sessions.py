"""The routes of sessions: open, look, list, close.

A session of another app is found by no query here: (id, app) is always asked for together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from clawdforge.config import Config
from clawdforge.domain.ids import AgentName, SessionId
from clawdforge.errors import (
    AgentNotResumable,
    AgentNotStarted,
    AgentTimedOut,
    CircuitOpen,
    ClawdforgeError,
    Fault,
    IdempotencyKeyReused,
    InvalidRequest,
    MachineFull,
    PoolFull,
    SessionNotFound,
    ShuttingDown,
    TooManyStarts,
)
from clawdforge.web.answers import OMITTED, Done, SessionCreated, SessionList, SessionView
from clawdforge.web.bodies import CreateSession, ListSessions, Nothing
from clawdforge.web.keys import read_key
from clawdforge.web.operations import SHORT_SECS, Call, Link, Operation
from clawdforge.web.service import NewSession

_SESSION_ID: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")


def read_session_id(call: Call[Any]) -> SessionId:
    """The id in the path. What cannot be one is not looked up. Raises SessionNotFound."""
    text = call.path["session_id"]
    if _SESSION_ID.fullmatch(text) is None:
        raise SessionNotFound
    return SessionId(text)


async def create_session(call: Call[CreateSession]) -> SessionCreated:
    """Open a session: answers when the agent has started and shaken hands."""
    asked = call.asked
    agent = AgentName(asked.agent)
    allowed = call.service.config.agents[agent].permissions_allowed
    if asked.permissions is not None and asked.permissions not in allowed:
        message = f"not allowed for this agent; allowed are: {', '.join(allowed)}"
        raise InvalidRequest([Fault("$.permissions", message)])
    row = await call.service.create_session(
        NewSession(
            app=call.app,
            agent=agent,
            model=asked.model,
            meta=asked.meta,
            permissions=asked.permissions,
            key=read_key(call),
        )
    )
    return SessionCreated(
        session_id=row.session_id, agent=row.agent, model=row.model, created_at=row.created_at
    )


async def list_sessions(call: Call[ListSessions]) -> SessionList:
    """List the app's sessions, newest first."""
    rows = await call.service.store.list_sessions(
        call.app, include_closed=call.asked.include_closed
    )
    views = [SessionView.of(row, is_live=call.service.is_live(row.session_id)) for row in rows]
    return SessionList(views, len(views))


async def show_session(call: Call[Nothing]) -> SessionView:
    """One session."""
    session_id = read_session_id(call)
    row = await call.service.store.find_session(session_id, call.app)
    if row is None:
        raise SessionNotFound
    is_live, menus = call.service.is_live(session_id), call.service.menus(session_id)
    return SessionView.of(row, is_live=is_live, menus=menus)


async def close_session(call: Call[Nothing]) -> Done:
    """Close one; a second close is a success and says so."""
    was_open = await call.service.close_session(read_session_id(call), call.app)
    return Done(already_closed=OMITTED if was_open else True)


def creating_secs(config: Config) -> float:
    """An agent may wait for others to start before it has its own time to start."""
    return 2 * config.start_secs + SHORT_SECS


def closing_secs(config: Config) -> float:
    """A turn in progress is cancelled first: its grace, then the kill."""
    return config.cancel_grace_secs + SHORT_SECS


EXAMPLE_ID: Final = "nq3vQ8Jt1-5Wc0fXyZ_2bR7uKdLmA9eP"

EXAMPLE: Final = SessionView(
    session_id=EXAMPLE_ID,
    agent="demo",
    model=None,
    created_at=1_790_000_000,
    last_turn_at=1_790_000_060,
    turn_count=2,
    closed_at=None,
    live=True,
    meta={"room": "kitchen"},
)

START_REFUSALS: Final[Sequence[ClawdforgeError]] = (
    PoolFull(5, limit=16),
    ShuttingDown(5),
    CircuitOpen(60, agent="claude", reason="no handshake within 60 s"),
    TooManyStarts(5),
    MachineFull(5, what="memory"),
    AgentNotStarted("claude", "claude is not installed", "clawdforge setup --with claude"),
    AgentNotResumable("demo"),
    AgentTimedOut("demo", 60),
)
"""What starting an agent may be refused with, for the API description."""

OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/sessions",
        gate="app",
        handle=create_session,
        summary="Open a session",
        asks=CreateSession,
        takes_key=True,
        bound_secs=creating_secs,
        example={"agent": "demo", "meta": {"room": "kitchen"}},
        answer=SessionCreated(
            session_id=EXAMPLE_ID, agent="demo", model=None, created_at=1_790_000_000
        ),
        refusals=[*START_REFUSALS, IdempotencyKeyReused()],
        links=[
            Link(operation_id, {"session_id": "$response.body#/session_id"})
            for operation_id in ("show_session", "run_turn", "close_session")
        ],
    ),
    Operation(
        method="GET",
        path="/sessions",
        gate="app",
        handle=list_sessions,
        summary="List this app's sessions, newest first",
        asks=ListSessions,
        answer=SessionList([EXAMPLE], 1),
    ),
    Operation(
        method="GET",
        path="/sessions/<session_id>",
        gate="app",
        handle=show_session,
        summary="Show one session",
        answer=EXAMPLE,
        refusals=[SessionNotFound()],
    ),
    Operation(
        method="DELETE",
        path="/sessions/<session_id>",
        gate="app",
        handle=close_session,
        summary="Close one session",
        bound_secs=closing_secs,
        answer=Done(already_closed=True),
        refusals=[SessionNotFound()],
    ),
)
