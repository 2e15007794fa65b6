"""Does a turn cost more as things grow? Turns in the session, rows in the database, open sessions.

Two services with a fake launcher, asked in turn: one with next to nothing, one with a database of a
million turns, two thousand open sessions, and ten thousand earlier turns in the session asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final

import apsw
import trio

from bench.clients import drive
from bench.figures import Line, p95
from bench.plan import Plan
from bench.subjects import Service, fake_service
from bench.turns import Subject, of_service, run_blocks
from clawdforge.store.sqlite import open_sqlite_store

PART: Final = "growth"
SMALL: Final = "a new service"
PER_SESSION: Final = 1000
"""Turns of each closed session that fills the database."""


def measure_growth(plan: Plan) -> Iterator[Line]:
    """The same turn on both; the ratio says how much it has grown."""
    database = plan.new_folder()
    database.mkdir(parents=True)
    fill_database(database / "grown.db", plan.rows)
    with ExitStack() as stack:
        subjects = [_subject(stack, stack.enter_context(fake_service()), SMALL)]
        for name, sessions, turns, path in (
            (f"{plan.long_session:,} turns in the session", 0, plan.long_session, None),
            (f"{plan.rows:,} turns in the database", 0, 0, database / "grown.db"),
            (f"{plan.open_sessions:,} open sessions", plan.open_sessions, 0, None),
        ):
            service = stack.enter_context(fake_service(path))
            service.open_sessions(sessions, "demo")
            subjects.append(_subject(stack, service, name, turns))
        for name, blocks in run_blocks(plan, subjects, plan.turns).items():
            base = None if name == SMALL else SMALL
            medians = tuple(median(block.times_ms()) for block in blocks)
            worst = tuple(p95(block.times_ms()) for block in blocks)
            cpu = tuple(block.cpu_secs * 1000 / len(block.timings) for block in blocks)
            yield Line(PART, name, "median", "ms", medians, base)
            yield Line(PART, name, "p95", "ms", worst, base)
            yield Line(PART, name, "processor", "ms", cpu, base)


def _subject(stack: ExitStack, service: Service, name: str, turns: int = 0) -> Subject:
    """One session of a service, asked one turn after the other; so many are behind it already."""
    opened = service.open_sessions(1, "demo")
    channels = stack.enter_context(service.turns(opened, is_stream=False))
    drive(channels, max(1, turns))
    return of_service(service, name, channels)


def fill_database(path: Path, rows: int) -> None:
    """A database of ours with so many turns in closed sessions, written in bulk."""
    trio.run(_create, path)
    db = apsw.Connection(str(path))
    db.execute("PRAGMA synchronous = OFF; BEGIN")
    for start in range(0, rows, PER_SESSION):
        session = f"grown-{start:019}"
        db.execute(
            "INSERT INTO sessions (session_id, app_name, agent, created_at, closed_at, turn_count,"
            " close_cause) VALUES (?, 'other', 'demo', unixepoch(), unixepoch(), ?, 'caller')",
            (session, PER_SESSION),
        )
        db.executemany(
            "INSERT INTO turns (session_id, turn_index, prompt, started_at, ended_at, ending,"
            " stop_reason, text, duration_ms) VALUES (?, ?, 'say: hello', 1, 2, 'completed',"
            " 'end_turn', 'hello', 5)",
            ((session, index) for index in range(1, min(PER_SESSION, rows - start) + 1)),
        )
    db.execute("COMMIT")
    db.pragma("wal_checkpoint", "truncate")
    db.close()


async def _create(path: Path) -> None:
    async with open_sqlite_store(path) as store:
        await store.check()
