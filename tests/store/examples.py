"""Rows to test with, and programs that look at the database from another process.

Another process, because the standard library brings its own SQLite, and the two copies would not
see each other's locks inside one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs

from clawdforge.domain.files import FileRow
from clawdforge.domain.ids import AgentName, AppName, SessionId
from clawdforge.domain.ports import AppRow, Ending, SessionRow, TurnEnd, TurnStart
from clawdforge.domain.runs import RunEnd, RunStart

LAB = AppName("lab")
SHOP = AppName("shop")


def session_id(number: int) -> SessionId:
    """An id of the right shape."""
    return SessionId(f"session-{number:016d}")


def session(number: int = 1, **fields: Any) -> SessionRow:
    """An open session of the app LAB, created at 1000 + number."""
    row = SessionRow(
        session_id=session_id(number),
        app_name=LAB,
        agent=AgentName("demo"),
        model=None,
        created_at=1000 + number,
        permissions="ask",
    )
    return attrs.evolve(row, **fields)


def turn(number: int = 1, index: int = 1, *, prompt: str = "say hi", at: int = 2000) -> TurnStart:
    """A turn of ``session(number)``."""
    return TurnStart(session_id(number), index, prompt, at)


def ended(
    number: int = 1,
    index: int = 1,
    *,
    ending: Ending = "completed",
    text: str = "hi",
    at: int = 2003,
) -> TurnEnd:
    """The ending of ``turn(number, index)``."""
    return TurnEnd(session_id(number), index, ending, "end_turn", text, 3000, at)


def app(name: str = "lab", *, at: int = 500, ip_cidrs: tuple[str, ...] = ()) -> AppRow:
    """An app."""
    return AppRow(AppName(name), ip_cidrs, at)


def file(name: str, **fields: Any) -> FileRow:
    """A file of the app LAB, valid from 1000 to 2000."""
    row = FileRow(LAB, name, size=5, created_at=1000, expires_at=2000)
    return attrs.evolve(row, **fields)


def run_start(run_id: str = "run-1", **fields: Any) -> RunStart:
    """A run of the app LAB that began at 3000."""
    start = RunStart(
        run_id=run_id,
        app_name=LAB,
        model="sonnet",
        started_at=3000,
        prompt_chars=6,
        system_chars=2,
        file_count=1,
    )
    return attrs.evolve(start, **fields)


def run_end(run_id: str = "run-1", **fields: Any) -> RunEnd:
    """The ending of ``run_start(run_id)``."""
    end = RunEnd(
        run_id=run_id,
        outcome="completed",
        stop_reason="end_turn",
        ended_at=3002,
        duration_ms=2000,
        result_chars=5,
    )
    return attrs.evolve(end, **fields)


EDITOR = """
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=5, isolation_level=None)
db.execute("BEGIN IMMEDIATE")
rows = [db.execute(statement).fetchall() for statement in sys.argv[2:]]
db.execute("COMMIT")
print(json.dumps(rows))
"""


def from_outside(database: Path, *statements: str) -> list[list[Any]]:
    """What another program gets for ``statements``, run in one writing transaction."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", EDITOR, str(database), *statements],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    rows: list[list[Any]] = json.loads(done.stdout)
    return rows


LOCKER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=5, isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


def start_locker(database: Path) -> subprocess.Popen[bytes]:
    """A program that holds the write lock until its stdin is closed."""
    locker = subprocess.Popen(
        [sys.executable, "-I", "-c", LOCKER, str(database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert locker.stdout is not None
    assert locker.stdout.readline() == b"locked\n"
    return locker
