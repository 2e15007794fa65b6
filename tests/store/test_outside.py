"""The database is the truth: what other programs write to it counts from the next call on."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
import trio

from clawdforge.errors import SessionClosed, SessionNotFound, StoreUnavailable
from clawdforge.store.sqlite import SqliteStore, open_sqlite_store

from .examples import LAB, app, ended, from_outside, session, session_id, turn


async def test_an_edited_row_is_honoured_by_the_next_call(
    sqlite_store: SqliteStore, database: Path
) -> None:
    """Closed, aged or deleted by another program: the next call sees it."""
    await sqlite_store.add_session(session())
    from_outside(database, "UPDATE sessions SET last_turn_at = 5.75, closed_at = 7")
    row = await sqlite_store.find_session(session_id(1), LAB)
    assert row is not None
    assert (row.last_turn_at, row.closed_at) == (5, 7)
    with pytest.raises(SessionClosed):
        await sqlite_store.begin_turn(turn())
    from_outside(database, "DELETE FROM sessions")
    with pytest.raises(SessionNotFound):
        await sqlite_store.begin_turn(turn())


async def test_the_columns_of_the_contract_are_enough(
    sqlite_store: SqliteStore, database: Path
) -> None:
    """A session written by another program with the documented columns only is a whole session."""
    from_outside(
        database,
        "INSERT INTO sessions (session_id, app_name, agent, model, created_at, last_turn_at,"
        " closed_at, turn_count, meta) VALUES"
        " ('session-0000000000000001', 'lab', 'demo', NULL, 1001, NULL, NULL, 0, '{\"k\": 1}')",
    )
    assert await sqlite_store.find_session(session_id(1), LAB) == session(
        permissions="approve-reads", meta={"k": 1}
    )


async def test_turns_go_with_a_row_that_another_program_deletes(
    sqlite_store: SqliteStore, database: Path
) -> None:
    """The texts of a session never outlive its row."""
    await sqlite_store.add_session(session())
    await sqlite_store.begin_turn(turn())
    from_outside(database, "DELETE FROM sessions")
    assert from_outside(database, "SELECT count(*) FROM turns") == [[[0]]]
    assert not await sqlite_store.end_turn(ended())


async def test_an_edit_that_makes_no_sense_narrows(
    sqlite_store: SqliteStore, database: Path
) -> None:
    """An unknown permission mode is the narrowest; networks that are no list let nobody in."""
    await sqlite_store.add_session(session())
    await sqlite_store.add_app(app(), "digest")
    from_outside(database, "UPDATE sessions SET permissions = 'all', meta = '[1]'")
    from_outside(database, "UPDATE apps SET ip_cidrs = '\"0.0.0.0/0\"'")
    row = await sqlite_store.find_session(session_id(1), LAB)
    assert row is not None
    assert (row.permissions, row.meta) == ("deny-all", {})
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        await sqlite_store.find_app("digest")


async def test_a_token_minted_by_another_process_works_at_once(
    sqlite_store: SqliteStore, database: Path
) -> None:
    """A second process opens the same ledger while we write, mints and leaves; both are heard."""
    async with trio.open_nursery() as nursery:
        minter = await trio.lowlevel.open_process([sys.executable, "-c", MINT, str(database)])
        for number in range(200):
            nursery.start_soon(sqlite_store.add_session, session(number))
        with trio.fail_after(60):
            assert await minter.wait() == 0
    assert len(await sqlite_store.list_apps()) == 20
    assert len(await sqlite_store.list_all_sessions()) == 200
    await sqlite_store.revoke_app(app("minted-3").name)
    assert await sqlite_store.find_app("digest 3") is None


MINT = """
import sys
from pathlib import Path
import trio
from clawdforge.domain.ports import AppRow
from clawdforge.store.sqlite import open_sqlite_store

async def main():
    for number in range(20):
        async with open_sqlite_store(Path(sys.argv[1])) as store:
            await store.add_app(AppRow(f"minted-{number}", (), 500), f"digest {number}")

trio.run(main)
"""


async def test_the_standard_librarys_sqlite_in_our_own_process_does_no_harm(
    database: Path,
) -> None:
    """Edits between our calls, in turns: each side sees the other's, and so does another process.

    Without the guard SQLite's second copy deletes the log under our hands.
    """
    async with open_sqlite_store(database) as store:
        await store.add_session(session())
        for number in range(20):
            with closing(sqlite3.connect(database)) as ours:
                ours.execute("UPDATE sessions SET model = ?", (str(number),))
                ours.commit()
            row = await store.find_session(session_id(1), LAB)
            assert row is not None
            assert row.model == str(number)
            await store.begin_turn(turn(index=number + 1))
            with closing(sqlite3.connect(database)) as ours:
                assert ours.execute("SELECT turn_count FROM sessions").fetchone() == (number + 1,)
        assert from_outside(database, "SELECT count(*) FROM turns") == [[[20]]]
    assert [path.name for path in database.parent.iterdir()] == [database.name]
    assert from_outside(database, "PRAGMA integrity_check") == [[["ok"]]]


async def test_two_stores_on_one_file(database: Path) -> None:
    """A command that opens the ledger in the service's own process sees and is seen."""
    async with open_sqlite_store(database) as service:
        await service.add_session(session(1))
        async with open_sqlite_store(database) as command:
            await command.add_session(session(2))
            assert len(await command.list_all_sessions()) == 2
        await service.add_session(session(3))
        assert from_outside(database, "SELECT count(*) FROM sessions") == [[[3]]]
