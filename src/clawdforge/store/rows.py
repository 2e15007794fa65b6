"""Rows to values and back: the columns' order, their text forms, and what the audit says.

No SQL runs in here and nothing waits. Both twins use this page, so that what is true of a value
that has been through the database is true of one that has been through memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

import attrs

from clawdforge.domain.files import FileRow
from clawdforge.domain.ids import AgentName, AppName, SessionId
from clawdforge.domain.ports import (
    AppRow,
    AuditRow,
    Ending,
    SessionRow,
    TurnEnd,
    TurnRow,
    TurnStart,
)
from clawdforge.domain.profiles import PERMISSIONS, Permissions

Columns: TypeAlias = Sequence[Any]
"""One row as SQLite gives it, or takes it."""

SELECT_APPS: Final = "SELECT name, ip_cidrs, created_at FROM apps"
FIND_APP: Final = f"{SELECT_APPS} WHERE token_sha256 = ? AND revoked_at IS NULL"
SELECT_SESSIONS: Final = (
    "SELECT session_id, app_name, agent, model, created_at, last_turn_at, closed_at, turn_count,"
    " meta, permissions, can_resume, close_cause FROM sessions"
)
INSERT_SESSION: Final = (
    "INSERT INTO sessions (session_id, app_name, agent, model, created_at, last_turn_at, closed_at,"
    " turn_count, meta, permissions, can_resume, close_cause)"
    " SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12 WHERE NOT EXISTS"
    " (SELECT 1 FROM session_events WHERE session_id = ?1 AND event = 'create' AND event <> 'turn')"
    " ON CONFLICT DO NOTHING"
)
"""Once per id, for ever: what the audit knows of is not made again (see ``FIND_EVENT``)."""
INSERT_FILE: Final = (
    "INSERT INTO files (token_sha256, app_name, name, size, created_at, expires_at, held_until)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
SELECT_TURNS: Final = (
    "SELECT session_id, turn_index, prompt, started_at,"
    " ending, stop_reason, text, duration_ms, ended_at, detail, first_event, last_event,"
    " facts FROM turns"
)
SELECT_CUT_TURNS: Final = SELECT_TURNS.replace(
    "prompt,", "substr(CAST(prompt AS BLOB), 1, 4 * ?4),"
).replace(" text,", " substr(CAST(text AS BLOB), 1, 4 * ?4),")
"""As bytes, four for a character: SQLite's ``substr`` of a text would end at a NUL in it."""
SELECT_AUDIT: Final = "SELECT session_id, event, at, meta FROM session_events"
FIND_EVENT: Final = (
    "SELECT 1 FROM session_events WHERE session_id = ?1 AND event = ?2 AND event <> 'turn'"
)
"""An event of a session that is no turn's: the audit's index by session leaves turns out, and
SQLite takes it only for a question that leaves them out as well."""
INSERT_AUDIT: Final = "INSERT INTO session_events (session_id, event, at, meta) VALUES (?, ?, ?, ?)"


def storable(text: str) -> str:
    """``text`` with U+FFFD for lone surrogates: JSON can carry them (RFC 8259 §8.2), UTF-8 not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def storable_end(end: TurnEnd) -> TurnEnd:
    """``end`` with its agent-made texts storable: nearly always as it is."""
    stop_reason, text = storable(end.stop_reason), storable(end.text)
    detail = None if end.detail is None else storable(end.detail)
    if (stop_reason, text, detail) == (end.stop_reason, end.text, end.detail):
        return end
    return attrs.evolve(end, stop_reason=stop_reason, text=text, detail=detail)


def meta_text(meta: Mapping[str, Any]) -> str:
    """The JSON text of ``meta``. Raises ValueError for what JSON has no word for (NaN)."""
    return _STRICT.encode(dict(meta))


def facts_text(facts: Mapping[str, Any]) -> str | None:
    """The JSON text of an agent's facts; numbers that JSON has no word for stay as Python's."""
    return _LENIENT.encode(dict(facts)) if facts else None


_STRICT: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_LENIENT: Final = json.JSONEncoder(separators=(",", ":"))
"""One for all texts: ``json.dumps`` with options makes another each time."""


def read_meta(text: str | None) -> dict[str, Any]:
    """The object in ``text``; empty for NULL and for JSON that is no object (any more)."""
    if not text or text == "{}":
        return {}
    value = json.loads(text)
    return value if isinstance(value, dict) else {}


def cidrs_text(cidrs: Sequence[str]) -> str:
    """The JSON text of a list of networks."""
    return json.dumps(list(cidrs))


@lru_cache(maxsize=1024)
def read_cidrs(text: str) -> tuple[str, ...]:
    """The list in ``text``. Raises ValueError rather than widen what was meant to narrow."""
    value = json.loads(text)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError("ip_cidrs is not a list of texts")
    return tuple(value)


def app_row(columns: Columns) -> AppRow:
    """From ``SELECT_APPS``."""
    name, cidrs, created_at = columns
    return AppRow(AppName(name), read_cidrs(cidrs), int(created_at))


def file_columns(row: FileRow) -> tuple[object, ...]:
    """For ``INSERT_FILE``, behind the token's digest."""
    return (row.app_name, row.name, row.size, row.created_at, row.expires_at, row.held_until)


def session_columns(row: SessionRow) -> tuple[object, ...]:
    """For ``INSERT_SESSION``."""
    return (
        row.session_id,
        row.app_name,
        row.agent,
        row.model,
        row.created_at,
        row.last_turn_at,
        row.closed_at,
        row.turn_count,
        meta_text(row.meta),
        row.permissions,
        int(row.can_resume),
        row.close_cause,
    )


def session_row(columns: Columns) -> SessionRow:
    """From ``SELECT_SESSIONS``; another program may have made fractions of our whole numbers."""
    sid, app, agent, model, created, last_turn, closed, turns, meta, mode, resume, cause = columns
    return SessionRow(
        session_id=SessionId(sid),
        app_name=AppName(app),
        agent=AgentName(agent),
        model=model,
        created_at=int(created),
        permissions=_permissions(mode),
        can_resume=bool(resume),
        last_turn_at=None if last_turn is None else int(last_turn),
        closed_at=None if closed is None else int(closed),
        close_cause=cause,
        turn_count=int(turns),
        meta=read_meta(meta),
    )


def _permissions(word: str) -> Permissions:
    """The narrowest mode for a word that we do not know."""
    return next((mode for mode in PERMISSIONS if mode == word), "deny-all")


def turn_row(columns: Columns) -> TurnRow:
    """From ``SELECT_TURNS``."""
    sid, index, prompt, started_at, *rest = columns
    start = TurnStart(SessionId(sid), int(index), prompt, int(started_at))
    ending, stop_reason, text, duration_ms, ended_at, detail, first_event, last_event, facts = rest
    if ending is None:
        return TurnRow(start)
    end = TurnEnd(
        session_id=start.session_id,
        turn_index=start.turn_index,
        ending=ending,
        stop_reason=stop_reason,
        text=text,
        duration_ms=int(duration_ms),
        ended_at=int(ended_at),
        detail=detail,
        first_event=first_event,
        last_event=last_event,
        facts=read_meta(facts),
    )
    return TurnRow(start, end)


def cut_turn_row(columns: Columns, max_chars: int) -> TurnRow:
    """From ``SELECT_CUT_TURNS``."""
    cut = [
        value.decode(errors="ignore")[:max_chars] if isinstance(value, bytes) else value
        for value in columns
    ]
    return turn_row(cut)


def audit_row(columns: Columns) -> AuditRow:
    """From ``SELECT_AUDIT``."""
    session_id, event, at, meta = columns
    return AuditRow(SessionId(session_id), event, int(at), read_meta(meta))


def turn_audit(end: TurnEnd, *, prompt_bytes: int) -> AuditRow:
    """The audit of an ending: counts and our own words; prompt and text only when asked for."""
    meta: dict[str, Any] = {
        "turn_index": end.turn_index,
        "ending": end.ending,
        "duration_ms": end.duration_ms,
        "prompt_bytes": prompt_bytes,
        "text_bytes": len(end.text.encode()),
    }
    if end.audited_prompt is not None:
        meta |= {"prompt": end.audited_prompt, "text": end.text}
    return AuditRow(end.session_id, "turn", end.ended_at, meta)


INTERRUPTED: Final[Ending] = "interrupted"


def interruption(start: TurnStart, *, at: int) -> TurnEnd:
    """The ending of a turn that the service did not live to see."""
    return TurnEnd(
        session_id=start.session_id,
        turn_index=start.turn_index,
        ending=INTERRUPTED,
        stop_reason=INTERRUPTED,
        text="",
        duration_ms=max(0, at - start.started_at) * 1000,
        ended_at=at,
        detail="the service ended before the turn did; its outcome is unknown",
    )
