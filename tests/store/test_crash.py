"""kill -9 in the middle of commits: what was acknowledged is there, and nothing is half there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import apsw
import trio

from clawdforge.domain.ids import SessionId
from clawdforge.store.sqlite import open_sqlite_store

from .examples import LAB

ROUNDS = 15

SERVICE = """
'''Each round forks a child that writes and acknowledges, reads acknowledgements, kills it.'''
import json, os, random, signal, sys
from pathlib import Path
import trio
from clawdforge.domain.ports import SessionRow, TurnStart
from clawdforge.store.sqlite import open_sqlite_store

WRITERS = 20

async def write(folder, out):
    async def one(store, name):
        for number in range(10_000):
            session_id = f"{name}-{number:016d}"
            await store.add_session(SessionRow(session_id, "lab", "demo", None, number, "ask"))
            await store.begin_turn(TurnStart(session_id, 1, "x" * 300, number))
            os.write(out, f"{session_id}\\n".encode())

    async with open_sqlite_store(folder / "clawdforge.db") as store, trio.open_nursery() as nursery:
        for number in range(WRITERS):
            nursery.start_soon(one, store, f"{os.getpid()}-{number}")

def one_round(folder, rng):
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        try:
            trio.run(write, folder, theirs)
        finally:
            os._exit(1)
    os.close(theirs)
    enough, heard = rng.randrange(1, 20_000), b""
    while len(heard) < enough:
        heard += os.read(ours, 65536)
    os.kill(child, signal.SIGKILL)
    while more := os.read(ours, 65536):
        heard += more
    os.close(ours)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    return heard.decode().split()

folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
rng = random.Random(9)
acknowledged = []
for _ in range(rounds):
    acknowledged += one_round(folder, rng)
print(json.dumps(acknowledged))
"""


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """Many services in a row on one file, each killed while it commits."""
    with trio.fail_after(100):
        done = await trio.run_process(
            [sys.executable, "-c", SERVICE, str(tmp_path), str(ROUNDS)],
            capture_stdout=True,
        )
        acknowledged = {SessionId(one) for one in json.loads(done.stdout)}
        async with open_sqlite_store(tmp_path / "clawdforge.db") as store:
            rows = {
                row.session_id: row for row in await store.list_sessions(LAB, include_closed=True)
            }
            await store.check()
            begun = await store.interrupt_turns(at=1)
    assert len(acknowledged) > ROUNDS
    assert acknowledged <= rows.keys()
    assert all(rows[one].turn_count == 1 for one in acknowledged)
    assert begun == sum(
        row.turn_count for row in rows.values()
    )  # a turn and its count are one write

    db = apsw.Connection(str(tmp_path / "clawdforge.db"))
    assert db.pragma("integrity_check") == "ok"
    db.close()
