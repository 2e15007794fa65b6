"""The routes of a session's history: what was asked, what was answered, how it ended.

A page of turns shows the beginning of long texts; one turn shows all of them. The events of a turn
are in the session's event log, from ``first_event`` to ``last_event``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from clawdforge.domain.ids import SessionId
from clawdforge.domain.ports import TurnRow
from clawdforge.errors import SessionNotFound, TurnNotFound
from clawdforge.web.answers import OMITTED, TurnList, TurnView
from clawdforge.web.bodies import ListTurns, Nothing
from clawdforge.web.operations import Call, Operation
from clawdforge.web.sessions import read_session_id

SHOWN_CHARACTERS: Final = 2000
"""What a page shows of a prompt or an answer, so that a hundred turns are not gigabytes."""

ENDING: Final = (
    "ended_at",
    "duration_ms",
    "ending",
    "stop_reason",
    "detail",
    "first_event",
    "last_event",
)
"""What a turn has when it is over, and not before."""

_TURN_INDEX: Final = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


async def list_turns(call: Call[ListTurns]) -> TurnList:
    """A page of the session's turns, newest first."""
    session_id = await _own_session(call)
    asked = call.asked
    rows = await call.service.store.list_turns(
        session_id, before=asked.before, limit=asked.limit + 1, max_chars=SHOWN_CHARACTERS + 1
    )
    page = rows[: asked.limit]
    is_more = len(rows) > len(page)
    next_before = page[-1].start.turn_index if is_more else None
    return TurnList([view_turn(row, cut_at=SHOWN_CHARACTERS) for row in page], next_before)


async def show_turn(call: Call[Nothing]) -> TurnView:
    """One turn, whole."""
    session_id = await _own_session(call)
    text = call.path["turn_index"]
    if _TURN_INDEX.fullmatch(text) is None:
        raise TurnNotFound
    row = await call.service.store.find_turn(session_id, int(text))
    if row is None:
        raise TurnNotFound
    return view_turn(row)


async def _own_session(call: Call[Any]) -> SessionId:
    session_id = read_session_id(call)
    if await call.service.store.find_session(session_id, call.app) is None:
        raise SessionNotFound
    return session_id


def view_turn(row: TurnRow, *, cut_at: int | None = None) -> TurnView:
    """The view of a row, its texts cut at so many characters."""
    start, end = row.start, row.end
    text = None if end is None else end.text
    facts: Mapping[str, Any] = {} if end is None else end.facts
    is_cut = cut_at is not None and max(len(start.prompt), len(text or "")) > cut_at
    return TurnView(
        turn_index=start.turn_index,
        prompt=start.prompt[:cut_at],
        started_at=start.started_at,
        text=text if text is None else text[:cut_at],
        **{name: getattr(end, name, None) for name in ENDING},
        usage=facts.get("usage", OMITTED),
        cancelled_tool_calls=facts.get("cancelled_tool_calls", OMITTED),
        cut=True if is_cut else OMITTED,
    )


EXAMPLE: Final = TurnView(
    turn_index=2,
    prompt="What is in the fridge?",
    started_at=1_790_000_058,
    ended_at=1_790_000_060,
    duration_ms=1234,
    ending="completed",
    stop_reason="end_turn",
    detail=None,
    text="Milk.",
    first_event=7,
    last_event=9,
)

OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/sessions/<session_id>/turns",
        gate="app",
        handle=list_turns,
        summary="List a session's turns, newest first, long texts cut",
        asks=ListTurns,
        answer=TurnList([EXAMPLE], None),
        refusals=[SessionNotFound()],
    ),
    Operation(
        method="GET",
        path="/sessions/<session_id>/turns/<turn_index>",
        gate="app",
        handle=show_turn,
        summary="Show one turn",
        answer=EXAMPLE,
        refusals=[SessionNotFound(), TurnNotFound()],
    ),
)
