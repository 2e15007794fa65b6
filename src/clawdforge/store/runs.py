"""The audit of runs in SQL, and what becomes of the audit with age.

Plain functions on one connection, as in :mod:`.ledger`, and the port's methods over them. What they
promise is said in ``domain.runs.RunLog``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

import apsw

from clawdforge.domain.ids import AppName
from clawdforge.domain.runs import RunEnd, RunRow, RunStart
from clawdforge.store import rows

Result = TypeVar("Result")

SWEEP_ROWS: Final = 10_000
"""Rows of each table that one call forgets: some 50 ms, which every other write waits for."""

SELECT: Final = (
    "SELECT run_id, app_name, model, started_at, prompt_chars, system_chars, file_count, prompt,"
    " outcome, stop_reason, ended_at, duration_ms, result_chars, result FROM runs"
)


def begin_run(db: apsw.Connection, start: RunStart) -> None:
    """Once per id."""
    db.execute(
        "INSERT INTO runs (run_id, app_name, model, started_at, prompt_chars, system_chars,"
        " file_count, prompt) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            start.run_id,
            start.app_name,
            start.model,
            start.started_at,
            start.prompt_chars,
            start.system_chars,
            start.file_count,
            None if start.prompt is None else rows.storable(start.prompt),
        ),
    )


def end_run(db: apsw.Connection, end: RunEnd) -> bool:
    """Whether this call ended it."""
    found = db.execute(
        "UPDATE runs SET outcome = ?, stop_reason = ?, ended_at = ?, duration_ms = ?,"
        " result_chars = ?, result = ? WHERE run_id = ? AND outcome IS NULL RETURNING 1",
        (
            end.outcome,
            rows.storable(end.stop_reason),
            end.ended_at,
            end.duration_ms,
            end.result_chars,
            None if end.result is None else rows.storable(end.result),
            end.run_id,
        ),
    )
    return bool(found.fetchall())


def list_runs(db: apsw.Connection, app: AppName, *, limit: int) -> Sequence[RunRow]:
    """Newest first, ties by the order of writing."""
    found = db.execute(
        f"{SELECT} WHERE app_name = ? ORDER BY started_at DESC, rowid DESC LIMIT ?",
        (app, max(0, limit)),
    )
    return [run_row(columns) for columns in found]


def interrupt_runs(db: apsw.Connection, *, at: int) -> int:
    """One ending each; as many as were waiting or working when the service died."""
    found = db.execute(
        "UPDATE runs SET outcome = 'interrupted', stop_reason = 'interrupted', ended_at = ?1,"
        " duration_ms = max(0, ?1 - started_at) * 1000, result_chars = 0"
        " WHERE outcome IS NULL RETURNING 1",
        (at,),
    )
    return len(found.fetchall())


def sweep_audit(db: apsw.Connection, *, before: int) -> int:
    """The oldest first; open runs, and events of sessions that are there, stay."""
    db.execute(
        "DELETE FROM runs WHERE run_id IN (SELECT run_id FROM runs"
        " WHERE started_at < ? AND outcome IS NOT NULL ORDER BY started_at LIMIT ?)",
        (before, SWEEP_ROWS),
    )
    gone = db.changes()
    db.execute(
        "DELETE FROM session_events WHERE id IN (SELECT id FROM session_events AS old"
        " WHERE at < ? AND NOT EXISTS"
        " (SELECT 1 FROM sessions WHERE sessions.session_id = old.session_id)"
        " ORDER BY at LIMIT ?)",
        (before, SWEEP_ROWS),
    )
    return gone + db.changes()


def run_row(columns: rows.Columns) -> RunRow:
    """From ``SELECT``."""
    (
        run_id,
        app_name,
        model,
        started_at,
        prompt_chars,
        system_chars,
        file_count,
        prompt,
        *ending,
    ) = columns
    start = RunStart(
        run_id=run_id,
        app_name=AppName(app_name),
        model=model,
        started_at=int(started_at),
        prompt_chars=int(prompt_chars),
        system_chars=int(system_chars),
        file_count=int(file_count),
        prompt=prompt,
    )
    outcome, stop_reason, ended_at, duration_ms, result_chars, result = ending
    if outcome is None:
        return RunRow(start)
    end = RunEnd(
        run_id=run_id,
        outcome=outcome,
        stop_reason=stop_reason,
        ended_at=int(ended_at),
        duration_ms=int(duration_ms),
        result_chars=int(result_chars),
        result=result,
    )
    return RunRow(start, end)


class Write(Protocol):
    """What the writer offers: run an operation in the next transaction."""

    async def __call__(self, operation: Callable[[apsw.Connection], Result], /) -> Result:
        """The operation's answer, once it is committed."""


class SqliteRuns:
    """The port's methods about runs, for :class:`~clawdforge.store.sqlite.SqliteStore`."""

    _write: Write

    async def _read(self, query: Callable[[apsw.Connection], Result]) -> Result:
        raise NotImplementedError

    async def begin_run(self, start: RunStart) -> None:
        """See the port."""
        await self._write(partial(begin_run, start=start))

    async def end_run(self, end: RunEnd) -> bool:
        """See the port."""
        return await self._write(partial(end_run, end=end))

    async def list_runs(self, app: AppName, *, limit: int) -> Sequence[RunRow]:
        """See the port."""
        return await self._read(partial(list_runs, app=app, limit=limit))

    async def interrupt_runs(self, *, at: int) -> int:
        """See the port."""
        return await self._write(partial(interrupt_runs, at=at))

    async def sweep_audit(self, *, before: int) -> int:
        """See the port."""
        return await self._write(partial(sweep_audit, before=before))
