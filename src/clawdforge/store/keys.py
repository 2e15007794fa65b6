"""Idempotency keys in SQL: whom a key stands for, and the events that go with its answer.

Plain functions on one connection, as in :mod:`.ledger`. What they promise is said in
``domain.keys.KeyBook`` and ``domain.ports.Store``.
"""

from __future__ import annotations

from typing import Any

import apsw

from clawdforge.domain.ids import AppName, SessionId
from clawdforge.domain.keys import CREATION_KEY_SECS, IdempotencyKey, KeyedCreation, KeyedTurn
from clawdforge.domain.ports import SessionRow, TurnEnd, TurnStart
from clawdforge.errors import IdempotencyKeyTaken


def add_creation_key(db: apsw.Connection, key: IdempotencyKey, row: SessionRow) -> None:
    """Raises IdempotencyKeyTaken. Keys that are too old go: everybody's, by an index."""
    db.execute(
        "DELETE FROM creation_keys WHERE created_at < ?", (row.created_at - CREATION_KEY_SECS,)
    )
    found = db.execute(
        "INSERT INTO creation_keys"
        " (app_name, name, fields_sha256, session_id, agent, model, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING 1",
        (
            row.app_name,
            key.name,
            key.fields_sha256,
            row.session_id,
            row.agent,
            row.model,
            row.created_at,
        ),
    )
    if not found.fetchall():
        raise IdempotencyKeyTaken


def find_creation(
    db: apsw.Connection, app: AppName, name: str, *, since: int
) -> KeyedCreation | None:
    """By the key's own primary key."""
    found = db.execute(
        "SELECT fields_sha256, session_id, agent, model, created_at FROM creation_keys"
        " WHERE app_name = ? AND name = ? AND created_at >= ?",
        (app, name, since),
    )
    columns: list[Any] = found.fetchall()
    for fields_sha256, session_id, agent, model, created_at in columns:
        return KeyedCreation(fields_sha256, SessionId(session_id), agent, model, int(created_at))
    return None


def add_turn_key(db: apsw.Connection, key: IdempotencyKey, start: TurnStart) -> None:
    """Raises IdempotencyKeyTaken when it stands for another turn; the same one is a no-op."""
    held = find_keyed_turn(db, start.session_id, key.name)
    if held is None:
        db.execute(
            "INSERT INTO turn_keys (session_id, name, fields_sha256, turn_index)"
            " VALUES (?, ?, ?, ?)",
            (start.session_id, key.name, key.fields_sha256, start.turn_index),
        )
    elif held.turn_index != start.turn_index:
        raise IdempotencyKeyTaken(held.turn_index)


def find_keyed_turn(db: apsw.Connection, session_id: SessionId, name: str) -> KeyedTurn | None:
    """By the key's own primary key."""
    found = db.execute(
        "SELECT fields_sha256, turn_index FROM turn_keys WHERE session_id = ? AND name = ?",
        (session_id, name),
    )
    columns: list[Any] = found.fetchall()
    for fields_sha256, turn_index in columns:
        return KeyedTurn(fields_sha256, int(turn_index))
    return None


def keep_events(db: apsw.Connection, end: TurnEnd) -> None:
    """Beside the turn and not in it: history is read without them."""
    if end.kept_events is not None:
        db.execute(
            "INSERT INTO kept_events (session_id, turn_index, events) VALUES (?, ?, ?)"
            " ON CONFLICT DO NOTHING",
            (end.session_id, end.turn_index, end.kept_events),
        )


def find_kept_events(db: apsw.Connection, session_id: SessionId, turn_index: int) -> str | None:
    """None when none were kept."""
    found = db.execute(
        "SELECT events FROM kept_events WHERE session_id = ? AND turn_index = ?",
        (session_id, turn_index),
    )
    return next((str(events) for (events,) in found.fetchall()), None)
