"""The ledger's operations as plain SQL on one connection: no waiting, no threads, no transactions.

Each function here runs inside a transaction that :mod:`.writer` began (or a read snapshot) and may
be run again after it was rolled back. What they promise is said in ``domain.ports.Store``.

A turn's statements are few on purpose: for each step of one the writer's thread lets go of Python's
lock, and gets it back when Trio's thread next waits.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import apsw
import attrs

from clawdforge.domain.events import EventBatch
from clawdforge.domain.files import FileRow
from clawdforge.domain.ids import AppName, SessionId
from clawdforge.domain.keys import IdempotencyKey
from clawdforge.domain.ports import (
    AppRow,
    AuditEvent,
    AuditRow,
    SessionRow,
    TurnEnd,
    TurnRow,
    TurnStart,
)
from clawdforge.errors import AppNameTaken, AppNotFound, SessionClosed, SessionNotFound
from clawdforge.store import keys, rows
from clawdforge.store.events import append_events, reserve_lost_events
from clawdforge.store.migrations import schema_version

# --- apps -----------------------------------------------------------------------------------------


def add_app(db: apsw.Connection, row: AppRow, token_sha256: str) -> None:
    """Mint, unless the same token has the same name already. Raises AppNameTaken."""
    for name, token in _fetch(
        db,
        "SELECT name, token_sha256 FROM apps"
        " WHERE revoked_at IS NULL AND (name = ?1 OR token_sha256 = ?2)"
        " ORDER BY name <> ?1",
        (row.name, token_sha256),
    ):
        if (name, token) == (row.name, token_sha256):
            return
        raise AppNameTaken(name)
    db.execute(
        "INSERT INTO apps (name, token_sha256, ip_cidrs, created_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (name) DO UPDATE SET token_sha256 = excluded.token_sha256,"
        " ip_cidrs = excluded.ip_cidrs, created_at = excluded.created_at, revoked_at = NULL",
        (row.name, token_sha256, rows.cidrs_text(row.ip_cidrs), row.created_at),
    )


def list_apps(db: apsw.Connection) -> Sequence[AppRow]:
    """Valid ones, oldest first, ties by name."""
    found = db.execute(f"{rows.SELECT_APPS} WHERE revoked_at IS NULL ORDER BY created_at, name")
    return [rows.app_row(columns) for columns in found]


def revoke_app(db: apsw.Connection, name: AppName) -> None:
    """Raises AppNotFound for a name that has no valid token."""
    if not _touched(
        db,
        "UPDATE apps SET revoked_at = unixepoch() WHERE name = ? AND revoked_at IS NULL"
        " RETURNING 1",
        (name,),
    ):
        raise AppNotFound(name)


def find_app(db: apsw.Connection, token_sha256: str) -> AppRow | None:
    """By the token's digest, valid ones only."""
    found = _first(db, rows.FIND_APP, (token_sha256,))
    return None if found is None else rows.app_row(found)


# --- files ----------------------------------------------------------------------------------------


def add_file(db: apsw.Connection, row: FileRow, token_sha256: str) -> None:
    """A no-op for a token that is there."""
    db.execute(rows.INSERT_FILE, (token_sha256, *rows.file_columns(row)))


def claim_files(
    db: apsw.Connection, app: AppName, tokens_sha256: Sequence[str], *, now: int, until: int
) -> Sequence[str | None]:
    """In the order of the tokens."""
    names: list[str | None] = []
    for token in tokens_sha256:
        found = _fetch(
            db,
            "UPDATE files SET held_until = max(held_until, ?)"
            " WHERE token_sha256 = ? AND app_name = ? AND expires_at > ? RETURNING name",
            (until, token, app, now),
        )
        names.append(found[0][0] if found else None)
    return names


def expire_files(db: apsw.Connection, *, now: int) -> Set[str]:
    """The names of those that stay."""
    db.execute("DELETE FROM files WHERE max(expires_at, held_until) <= ?", (now,))
    return {name for (name,) in _fetch(db, "SELECT name FROM files")}


# --- sessions -------------------------------------------------------------------------------------


def add_session(db: apsw.Connection, row: SessionRow, key: IdempotencyKey | None = None) -> None:
    """Once per id, for ever: an id whose session was undone or deleted stays spent."""
    if not _changed(db, rows.INSERT_SESSION, rows.session_columns(row)):
        return
    if key is not None:
        keys.add_creation_key(db, key, row)
    _audit(db, AuditRow(row.session_id, "create", row.created_at))


def find_session(db: apsw.Connection, session_id: SessionId, app: AppName) -> SessionRow | None:
    """One query on (id, app)."""
    found = db.execute(
        f"{rows.SELECT_SESSIONS} WHERE session_id = ? AND app_name = ?",
        (session_id, app),
    )
    return next((rows.session_row(columns) for columns in found), None)


def list_sessions(
    db: apsw.Connection, app: AppName, *, include_closed: bool
) -> Sequence[SessionRow]:
    """Newest first, ties by id."""
    found = db.execute(
        f"{rows.SELECT_SESSIONS} WHERE app_name = ?1 AND (?2 OR closed_at IS NULL)"
        " ORDER BY created_at DESC, session_id",
        (app, include_closed),
    )
    return [rows.session_row(columns) for columns in found]


def list_all_sessions(db: apsw.Connection) -> Sequence[SessionRow]:
    """Oldest first, ties by id."""
    found = db.execute(f"{rows.SELECT_SESSIONS} ORDER BY created_at, session_id")
    return [rows.session_row(columns) for columns in found]


def close_session(
    db: apsw.Connection, session_id: SessionId, *, event: AuditEvent, cause: str, at: int
) -> bool:
    """Whether this call closed it."""
    is_ours = _touched(
        db,
        "UPDATE sessions SET closed_at = ?, close_cause = ?"
        " WHERE session_id = ? AND closed_at IS NULL RETURNING 1",
        (at, cause, session_id),
    )
    if is_ours:
        _audit(db, AuditRow(session_id, event, at, {"cause": cause}))
    return is_ours


def undo_session(db: apsw.Connection, row: SessionRow, *, cause: str, at: int) -> None:
    """Afterwards the row is gone, its id is spent, and the audit has ``create`` and ``close``."""
    db.execute("DELETE FROM sessions WHERE session_id = ?", (row.session_id,))
    if not _has_event(db, row.session_id, "create"):
        _audit(db, AuditRow(row.session_id, "create", row.created_at))
    if not _has_event(db, row.session_id, "close"):
        _audit(db, AuditRow(row.session_id, "close", at, {"cause": cause}))


def delete_session(db: apsw.Connection, session_id: SessionId, *, at: int) -> bool:
    """Whether this call deleted it; the turns go by the schema's trigger."""
    ((turns,),) = _fetch(db, "SELECT count(*) FROM turns WHERE session_id = ?", (session_id,))
    is_ours = _touched(db, "DELETE FROM sessions WHERE session_id = ? RETURNING 1", (session_id,))
    if is_ours:
        _audit(db, AuditRow(session_id, "hard_delete", at, {"turns": turns}))
    return is_ours


def set_can_resume(db: apsw.Connection, session_id: SessionId, *, can_resume: bool) -> None:
    """A no-op when the row is missing."""
    db.execute(
        "UPDATE sessions SET can_resume = ? WHERE session_id = ?", (int(can_resume), session_id)
    )


# --- turns ----------------------------------------------------------------------------------------


def begin_turn(db: apsw.Connection, start: TurnStart) -> None:
    """Raises SessionNotFound, SessionClosed (for a turn that was begun before as well)."""
    is_new = _changed(
        db,
        "INSERT INTO turns (session_id, turn_index, prompt, started_at)"
        " SELECT session_id, ?2, ?3, ?4 FROM sessions WHERE session_id = ?1 AND closed_at IS NULL"
        " ON CONFLICT DO NOTHING",
        (start.session_id, start.turn_index, rows.storable(start.prompt), start.started_at),
    )
    if not is_new:
        _insist_on_open(db, start.session_id)
    if start.key is not None:
        keys.add_turn_key(db, start.key, start)
    if is_new:
        db.execute(
            "UPDATE sessions SET turn_count = max(turn_count, ?),"
            " last_turn_at = max(coalesce(last_turn_at, ?2), ?2) WHERE session_id = ?",
            (start.turn_index, start.started_at, start.session_id),
        )


def _insist_on_open(db: apsw.Connection, session_id: SessionId) -> None:
    """Raises SessionNotFound, SessionClosed."""
    found = _fetch(
        db, "SELECT closed_at, close_cause FROM sessions WHERE session_id = ?", (session_id,)
    )
    if not found:
        raise SessionNotFound
    ((closed_at, cause),) = found
    if closed_at is not None:
        raise SessionClosed(cause or "closed")


def end_turn(db: apsw.Connection, end: TurnEnd, batch: EventBatch | None = None) -> bool:
    """Whether this call ended it; False when it has an ending, or is missing."""
    end = rows.storable_end(end)
    found = _first(
        db,
        "UPDATE turns SET ending = ?, stop_reason = ?, text = ?, duration_ms = ?, ended_at = ?,"
        " detail = ?, first_event = ?, last_event = ?, facts = ?"
        " WHERE session_id = ? AND turn_index = ? AND ending IS NULL"
        " RETURNING octet_length(prompt)",
        (
            end.ending,
            end.stop_reason,
            end.text,
            end.duration_ms,
            end.ended_at,
            end.detail,
            end.first_event,
            end.last_event,
            rows.facts_text(end.facts),
            end.session_id,
            end.turn_index,
        ),
    )
    if found is not None:
        (prompt_bytes,) = found
        keys.keep_events(db, end)
        _audit(db, rows.turn_audit(end, prompt_bytes=prompt_bytes))
    batch = batch or EventBatch(end.session_id, (), keep_bytes=0)
    append_events(db, batch, worked_at=None if found is None else end.ended_at)
    return found is not None


def list_turns(
    db: apsw.Connection,
    session_id: SessionId,
    *,
    before: int | None,
    limit: int,
    max_chars: int | None = None,
) -> Sequence[TurnRow]:
    """Newest first; a limit below nought is nought, not SQLite's "no limit"."""
    which = (
        " WHERE session_id = ?1 AND (?2 IS NULL OR turn_index < ?2)"
        " ORDER BY turn_index DESC LIMIT ?3"
    )
    bindings = (session_id, before, max(0, limit))
    if max_chars is None:
        return [
            rows.turn_row(columns) for columns in db.execute(rows.SELECT_TURNS + which, bindings)
        ]
    found = db.execute(rows.SELECT_CUT_TURNS + which, (*bindings, max_chars))
    return [rows.cut_turn_row(columns, max_chars) for columns in found]


def find_turn(db: apsw.Connection, session_id: SessionId, turn_index: int) -> TurnRow | None:
    """One row."""
    found = db.execute(
        f"{rows.SELECT_TURNS} WHERE session_id = ? AND turn_index = ?", (session_id, turn_index)
    )
    return next((rows.turn_row(columns) for columns in found), None)


def interrupt_turns(db: apsw.Connection, *, at: int) -> int:
    """One ending each; as many rows as turns were waiting or working when the service died."""
    reserve_lost_events(db, None)
    found = _fetch(
        db,
        "SELECT session_id, turn_index, '', started_at FROM turns WHERE ending IS NULL"
        " ORDER BY session_id, turn_index",
    )
    for columns in found:
        end_turn(db, rows.interruption(TurnStart(*columns), at=at))
    return len(found)


# --- audit ----------------------------------------------------------------------------------------


def list_audit(db: apsw.Connection, session_id: SessionId) -> Sequence[AuditRow]:
    """In the order of writing. Goes through all of the audit: for tests, and for the curious."""
    found = db.execute(f"{rows.SELECT_AUDIT} WHERE session_id = ? ORDER BY id", (session_id,))
    return [rows.audit_row(columns) for columns in found]


def note_permission(db: apsw.Connection, row: AuditRow, request_id: str) -> None:
    """Once per request."""
    if not _touched(
        db,
        f"{rows.FIND_EVENT} AND meta ->> 'request_id' = ?3 LIMIT 1",
        (row.session_id, "permission", request_id),
    ):
        _audit(db, attrs.evolve(row, meta={**row.meta, "request_id": request_id}))


def touch(db: apsw.Connection) -> None:
    """Write what is there already: dirties one page, changes nothing."""
    db.pragma("user_version", schema_version(db))


def _audit(db: apsw.Connection, row: AuditRow) -> None:
    db.execute(
        rows.INSERT_AUDIT,
        (row.session_id, row.event, row.at, rows.meta_text(row.meta)),
    )


def _has_event(db: apsw.Connection, session_id: SessionId, event: AuditEvent) -> bool:
    return _touched(db, f"{rows.FIND_EVENT} LIMIT 1", (session_id, event))


def _changed(db: apsw.Connection, statement: str, bindings: tuple[Any, ...]) -> bool:
    """Whether ``statement`` changed a row. Cheaper than to have it return one."""
    db.execute(statement, bindings)
    return db.changes() > 0


def _touched(db: apsw.Connection, statement: str, bindings: tuple[Any, ...]) -> bool:
    """Whether ``statement`` gave a row (``RETURNING 1``)."""
    return bool(_fetch(db, statement, bindings))


def _first(db: apsw.Connection, statement: str, bindings: tuple[Any, ...]) -> rows.Columns | None:
    """The first row, or the only one; None when there is none."""
    return next(db.execute(statement, bindings), None)


def _fetch(
    db: apsw.Connection, statement: str, bindings: tuple[Any, ...] = ()
) -> Sequence[rows.Columns]:
    return db.execute(statement, bindings).fetchall()
