"""The audit of runs, and its age: the port's promises, clause by clause, for both twins."""

from __future__ import annotations

from pathlib import Path

from clawdforge.domain.ports import Store
from clawdforge.domain.runs import RunRow
from clawdforge.store import runs
from clawdforge.store.sqlite import SqliteStore

from .examples import LAB, SHOP, from_outside, run_end, run_start, session, session_id


async def test_a_run_is_one_row(store: Store) -> None:
    """Open while it works, then with its one ending; both may be written again."""
    await store.begin_run(run_start())
    await store.begin_run(run_start(prompt_chars=99))
    assert await store.list_runs(LAB, limit=9) == [RunRow(run_start())]
    assert await store.end_run(run_end())
    assert not await store.end_run(run_end(outcome="failed"))
    assert not await store.end_run(run_end("run-2"))
    assert await store.list_runs(LAB, limit=9) == [RunRow(run_start(), run_end())]
    assert await store.list_runs(SHOP, limit=9) == []


async def test_runs_are_listed_newest_first(store: Store) -> None:
    """By their beginning, ties by the order of writing, and no more than asked for."""
    for run_id, at in (("a", 7), ("b", 9), ("c", 7)):
        await store.begin_run(run_start(run_id, started_at=at))
    assert [row.start.run_id for row in await store.list_runs(LAB, limit=9)] == ["b", "c", "a"]
    assert [row.start.run_id for row in await store.list_runs(LAB, limit=1)] == ["b"]
    assert await store.list_runs(LAB, limit=-1) == []


async def test_texts_are_kept_where_they_are_given(store: Store) -> None:
    """Also those that UTF-8 has no word for, made storable."""
    await store.begin_run(run_start(prompt="say \ud800"))
    await store.end_run(run_end(result="hi"))
    (row,) = await store.list_runs(LAB, limit=9)
    assert row.end is not None
    assert (row.start.prompt, row.end.result) == ("say \ufffd", "hi")


async def test_a_crash_interrupts_open_runs(store: Store) -> None:
    """They get an ending that says that nobody knows; the others keep theirs."""
    await store.begin_run(run_start())
    await store.begin_run(run_start("run-2"))
    await store.end_run(run_end("run-2"))
    assert await store.interrupt_runs(at=3005) == 1
    assert await store.interrupt_runs(at=3006) == 0
    rows = {row.start.run_id: row.end for row in await store.list_runs(LAB, limit=9)}
    assert rows["run-2"] == run_end("run-2")
    assert rows["run-1"] == run_end(
        outcome="interrupted",
        stop_reason="interrupted",
        ended_at=3005,
        duration_ms=5000,
        result_chars=0,
    )


async def test_old_runs_are_forgotten(store: Store) -> None:
    """Those that began before the given time and have ended."""
    for run_id, at in (("old", 10), ("open", 11), ("new", 20)):
        await store.begin_run(run_start(run_id, started_at=at))
    await store.end_run(run_end("old"))
    await store.end_run(run_end("new"))
    assert await store.sweep_audit(before=20) == 1
    assert [row.start.run_id for row in await store.list_runs(LAB, limit=9)] == ["new", "open"]


async def test_the_audit_of_a_session_outlives_it(store: Store) -> None:
    """Events go by their age, and never before the session itself is gone."""
    for number in (1, 2):
        await store.add_session(session(number, created_at=10))
        await store.close_session(session_id(number), event="close", cause="caller", at=11)
    await store.delete_session(session_id(1), at=30)
    assert await store.sweep_audit(before=10) == 0
    assert await store.sweep_audit(before=30) == 2
    assert [row.event for row in await store.list_audit(session_id(1))] == ["hard_delete"]
    assert [row.event for row in await store.list_audit(session_id(2))] == ["create", "close"]
    assert await store.sweep_audit(before=31) == 1


async def test_one_call_forgets_a_bounded_number(sqlite_store: SqliteStore, database: Path) -> None:
    """So that a service that was off for a year does not stop the writer for a minute."""
    from_outside(
        database,
        "INSERT INTO session_events (session_id, event, at) WITH RECURSIVE n(i) AS"
        " (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10005) SELECT 'gone', 'turn', i FROM n",
    )
    assert await sqlite_store.sweep_audit(before=20_000) == runs.SWEEP_ROWS
    assert await sqlite_store.sweep_audit(before=20_000) == 5
