"""What a request costs does not grow with the rows: every statement finds its way by an index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import apsw
import pytest

from clawdforge.domain.keys import IdempotencyKey
from clawdforge.domain.ports import AuditRow
from clawdforge.store import keys, ledger
from clawdforge.store.migrations import migrate

from .examples import LAB, app, ended, file, session, session_id, turn


@pytest.fixture
def db(database: Path) -> Iterator[apsw.Connection]:
    """A migrated database, without a writer."""
    connection = apsw.Connection(str(database))
    migrate(connection)
    yield connection
    connection.close()


Traced: TypeAlias = tuple[str, Any]
"""A statement and its bindings."""


def plans(db: apsw.Connection, traced: list[Traced]) -> list[str]:
    """SQLite's plan for each statement, one line a step."""
    lines = []
    for statement, bindings in traced:
        steps = db.execute(f"EXPLAIN QUERY PLAN {statement}", bindings)
        lines += [f"{step[-1]}   <- {statement}" for step in steps]
    return lines


def test_no_statement_of_a_request_scans_a_table(db: apsw.Connection) -> None:
    """From a session's creation to its deletion; nor is anything sorted by hand."""
    seen: list[Traced] = []

    def trace(_cursor: apsw.Cursor, statement: str, bindings: Any) -> bool:
        seen.append((statement, bindings))
        return True

    ledger.add_app(db, app(), "digest")  # minting looks at every name, and may
    db.exec_trace = trace
    ledger.find_app(db, "digest")
    ledger.add_file(db, file("a"), "digest")
    ledger.claim_files(db, LAB, ["digest"], now=1, until=1)
    ledger.add_session(db, session(), IdempotencyKey("key", "digest"))
    ledger.find_session(db, session_id(1), LAB)
    ledger.list_sessions(db, LAB, include_closed=False)
    ledger.begin_turn(db, turn())
    ledger.end_turn(db, ended())
    ledger.begin_turn(db, turn(index=2))
    ledger.interrupt_turns(db, at=1)
    ledger.list_turns(db, session_id(1), before=None, limit=5)
    ledger.find_turn(db, session_id(1), 1)
    keys.find_creation(db, LAB, "key", since=1)
    keys.find_keyed_turn(db, session_id(1), "key")
    keys.find_kept_events(db, session_id(1), 1)
    ledger.note_permission(db, AuditRow(session_id(1), "permission", 1), "request")
    ledger.set_can_resume(db, session_id(1), can_resume=True)
    ledger.close_session(db, session_id(1), event="close", cause="asked", at=1)
    ledger.delete_session(db, session_id(1), at=1)
    ledger.undo_session(db, session(2), cause="caller_gone", at=1)
    ledger.revoke_app(db, LAB)
    db.exec_trace = None
    assert len(seen) > 20
    steps = plans(db, seen)
    bad = [step for step in steps if step.startswith("SCAN") or "TEMP B-TREE" in step]
    fine = ("turns_without_ending", "SCAN CONSTANT ROW")  # what is open; the values of an INSERT
    assert [step for step in bad if not any(name in step for name in fine)] == []
