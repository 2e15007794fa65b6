"""Numbered, forward only, each whole or not at all."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from clawdforge.errors import StoreUnavailable
from clawdforge.store.migrations import MIGRATIONS, migrate, schema_version
from clawdforge.store.sqlite import open_sqlite_store

from .examples import LAB, app, from_outside, session, session_id, turn

KEPT: tuple[str, ...] = (
    "INSERT INTO apps (name, token_sha256, ip_cidrs, created_at) VALUES ('lab', 'd', '[]', 500)",
    """INSERT INTO sessions (session_id, app_name, agent, created_at, turn_count, permissions)
       VALUES ('session-0000000000000001', 'lab', 'demo', 1001, 1, 'ask')""",
    """INSERT INTO turns (session_id, turn_index, started_at, prompt)
       VALUES ('session-0000000000000001', 1, 2000, 'say hi')""",
)
"""A little of everything, as version 1 wrote it."""


def older_file(database: Path, *, version: int) -> None:
    """A database as a release with ``version`` migrations left it."""
    db = apsw.Connection(str(database))
    db.pragma("journal_mode", "wal")
    migrate(db, MIGRATIONS[:version])
    for statement in KEPT:
        db.execute(statement)
    db.close()


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
async def test_an_older_file_keeps_its_rows(database: Path, version: int) -> None:
    """Opened by this version: the newest schema, every row still there, the next write works."""
    older_file(database, version=version)
    async with open_sqlite_store(database) as store:
        assert await store.find_app("d") == app()
        (found,) = await store.list_sessions(LAB, include_closed=True)
        assert found.session_id == session_id(1)
        (asked,) = await store.list_turns(session_id(1), before=None, limit=9)
        assert asked.start == turn()
        await store.add_session(session(2))
    assert from_outside(database, "PRAGMA user_version") == [[[len(MIGRATIONS)]]]


def test_migrating_twice_changes_nothing(database: Path) -> None:
    """At the newest version there is nothing to do."""
    older_file(database, version=len(MIGRATIONS))
    db = apsw.Connection(str(database))
    schema = db.execute("SELECT * FROM sqlite_schema").fetchall()
    migrate(db)
    assert db.execute("SELECT * FROM sqlite_schema").fetchall() == schema
    db.close()


def test_only_the_missing_steps_are_done(database: Path) -> None:
    """A file in the middle of the road goes on from there."""
    older_file(database, version=1)
    db = apsw.Connection(str(database))
    migrate(db, (MIGRATIONS[0], "CREATE TABLE two (x)", "ALTER TABLE two ADD COLUMN y"))
    assert schema_version(db) == 3
    assert db.execute("SELECT x, y FROM two").fetchall() == []
    assert db.execute("SELECT count(*) FROM sessions").fetchall() == [(1,)]
    db.close()


def test_a_step_that_fails_leaves_the_version_before(database: Path) -> None:
    """Half a step is undone with the other half; the steps before it stay done."""
    older_file(database, version=1)
    db = apsw.Connection(str(database))
    with pytest.raises(apsw.SQLError):
        migrate(db, (MIGRATIONS[0], "CREATE TABLE two (x)", "CREATE TABLE three (x); NONSENSE"))
    assert schema_version(db) == 2
    assert not db.table_exists("main", "three")
    assert not db.in_transaction
    db.close()


async def test_a_newer_file_is_refused(database: Path) -> None:
    """A database of a version we do not know is left alone, and the error says which it is."""
    older_file(database, version=1)
    db = apsw.Connection(str(database))
    db.pragma("user_version", 99)
    db.close()
    with pytest.raises(StoreUnavailable, match=r"newer version of clawdforge \(schema 99"):
        async with open_sqlite_store(database):
            pass


async def test_another_programs_database_is_refused(database: Path) -> None:
    """Tables that we did not make are not ours to add to."""
    db = apsw.Connection(str(database))
    db.execute("CREATE TABLE sessions (x)")
    db.close()
    with pytest.raises(StoreUnavailable, match="another program"):
        async with open_sqlite_store(database):
            pass
    assert from_outside(database, "SELECT name FROM sqlite_schema") == [[["sessions"]]]
