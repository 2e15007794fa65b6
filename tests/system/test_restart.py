"""The service is killed at any moment, and the next one goes on as if it had been told."""

from __future__ import annotations

import random
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from clawdforge.testing import demo_agent
from tests.system.conftest import (
    GONE_SECS,
    Server,
    StartServer,
    open_session,
    processes_of,
    say,
)
from tests.waiting import wait_until

pytestmark = pytest.mark.system


def ask_ledger(data_dir: Path, query: str, *values: object) -> list[Any]:
    """What the ledger says, read from outside."""
    with closing(sqlite3.connect(data_dir / "clawdforge.db")) as db:
        return db.execute(query, values).fetchall()


def change_ledger(data_dir: Path, statement: str, *values: object) -> None:
    """What an operator does with sqlite3."""
    with closing(sqlite3.connect(data_dir / "clawdforge.db")) as db:
        db.execute(statement, values)
        db.commit()


def token_of(app: httpx.Client) -> str:
    """The app's token, for its client of the next life."""
    return app.headers["authorization"].split()[1]


@contextmanager
def in_background(act: Any) -> Iterator[None]:
    """Do it in a thread for as long as the block runs; it must then have ended."""
    thread = threading.Thread(target=act)
    thread.start()
    yield
    thread.join(60)
    assert not thread.is_alive()


def talk(app: httpx.Client, session: str, acknowledged: list[tuple[str, int, str]]) -> None:
    """Turns as fast as they come, until the service is gone; keeps what was answered."""
    while True:
        try:
            answer = say(app, session, f"word {len(acknowledged)}", events="none")
        except httpx.TransportError:
            return
        body = answer.raise_for_status().json()
        acknowledged.append((session, body["turn_index"], body["text"]))


def kill_while_talking(
    server: Server,
    app: httpx.Client,
    sessions: list[str],
    acknowledged: list[tuple[str, int, str]],
    *,
    enough: int,
) -> None:
    """SIGKILL when so many more turns are answered; then nothing may be left of it."""
    goal = len(acknowledged) + enough
    with ExitStack() as talkers:
        for session in sessions:
            talkers.enter_context(in_background(partial(talk, app, session, acknowledged)))
        wait_until(lambda: len(acknowledged) >= goal, "turns are answered")
        server.kill()
    wait_until(lambda: not processes_of(server.data_dir), "no leftovers", secs=GONE_SECS)


def test_killed_in_mid_commit_again_and_again(
    start_server: StartServer, pytestconfig: pytest.Config
) -> None:
    """Round after round: clean restarts, no leftovers after 2 s, no acknowledged row missing."""
    rounds, rng = pytestconfig.getoption("--kills"), random.Random(5)
    acknowledged: list[tuple[str, int, str]] = []
    server = start_server().wait_ready()
    app = server.app()
    token, sessions = token_of(app), [open_session(app) for _ in range(2)]
    for _ in range(rounds):
        kill_while_talking(server, app, sessions, acknowledged, enough=rng.randrange(1, 12))
        server = start_server().wait_ready()
        app = server.client(token)
        kept = set(ask_ledger(server.data_dir, "SELECT session_id, turn_index, text FROM turns"))
        assert set(acknowledged) <= kept
        without = "SELECT count(*) FROM turns WHERE ending IS NULL"
        assert ask_ledger(server.data_dir, without) == [(0,)]
    assert ask_ledger(server.data_dir, "PRAGMA integrity_check") == [("ok",)]
    for session in sessions:
        answer = say(app, session, "recall:").json()
        said = [text for known, _, text in acknowledged if known == session]
        assert all(text.removeprefix("You said: ") in answer["text"] for text in said)


def test_killed_in_mid_turn(start_server: StartServer) -> None:
    """The turn is interrupted, once and for ever; the next one remembers what came before it."""
    server = start_server().wait_ready()
    app = server.app()
    session = open_session(app)
    say(app, session, "apples").raise_for_status()
    endings = "SELECT ending FROM turns WHERE session_id = ? ORDER BY turn_index"

    def ask() -> None:
        with pytest.raises(httpx.TransportError):
            say(app, session, "sleep: 60")

    with in_background(ask):
        wait_until(
            lambda: ask_ledger(server.data_dir, endings, session)[1:] == [(None,)], "it has begun"
        )
        server.kill()
    app = start_server().wait_ready().client(token_of(app))
    assert ask_ledger(server.data_dir, endings, session) == [("completed",), ("interrupted",)]
    answer = say(app, session, "recall:").json()
    assert answer["turn_index"] == 3
    assert "apples" in answer["text"]


def test_what_cannot_be_taken_up_is_gone_and_says_so(
    start_server: StartServer, tmp_path: Path
) -> None:
    """After a kill an agent without resume is 410 with the reason; its directory goes."""
    server = start_with_forgetful(start_server, tmp_path)
    app = server.app()
    session = open_session(app, "forgetful")
    say(app, session, "apples").raise_for_status()
    server.kill()
    app = start_with_forgetful(start_server, tmp_path).client(token_of(app))
    refused = say(app, session, "recall:")
    assert refused.status_code == 410
    assert "not_resumable" in refused.json()["detail"]
    assert list((server.data_dir / "sessions").iterdir()) == []


def start_with_forgetful(start_server: StartServer, tmp_path: Path) -> Server:
    """A service that also knows an agent without load and resume."""
    file = tmp_path / "clawdforge.toml"
    argv = [sys.executable, "-I", "-S", demo_agent.__file__, "--no-load"]
    file.write_text(f"[agents.forgetful]\nargv = {argv!r}\n".replace("'", '"'))
    return start_server(CLAWDFORGE_CONFIG=str(file)).wait_ready()


def test_directories_without_a_session_go_at_the_next_start(start_server: StartServer) -> None:
    """Of a closed session, and of one without a row; an open one keeps its own."""
    server = start_server().wait_ready()
    app = server.app()
    kept, closed, forgotten = (open_session(app) for _ in range(3))
    for session in (kept, closed, forgotten):
        say(app, session, f"I am {session}").raise_for_status()
    server.kill()
    change_ledger(server.data_dir, "UPDATE sessions SET closed_at = 1 WHERE session_id = ?", closed)
    change_ledger(server.data_dir, "DELETE FROM sessions WHERE session_id = ?", forgotten)
    app = start_server().wait_ready().client(token_of(app))
    assert [path.name for path in (server.data_dir / "sessions").iterdir()] == [kept]
    assert kept in say(app, kept, "recall:").json()["text"]


def test_drained_by_the_admin(start_server: StartServer) -> None:
    """Alive, not ready, 503 for what is new, the turn in progress is answered, exit 0."""
    server = start_server().wait_ready()
    app, admin = server.app(), server.client(server.admin_token)
    session = open_session(app)
    answers: list[httpx.Response] = []
    with in_background(lambda: answers.append(say(app, session, "sleep: 2"))):
        begun = "SELECT count(*) FROM turns"
        wait_until(lambda: ask_ledger(server.data_dir, begun) == [(1,)], "the turn has begun")
        assert admin.post("/admin/drain").json() == {"ok": True}
        assert admin.get("/livez").status_code == 200
        assert "draining" in admin.get("/readyz").json()["detail"]
        for refused in (app.post("/sessions", json={"agent": "demo"}), say(app, session, "hi")):
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
    assert answers[0].json()["stop_reason"] == "end_turn"
    assert server.process.wait(30) == 0


def test_a_second_signal_ends_it_at_once(start_server: StartServer) -> None:
    """The drain is cut short, the caller of the turn is told or cut off, nothing is left."""
    server = start_server().wait_ready()
    app = server.app()
    session = open_session(app)

    def ask() -> None:
        try:
            assert say(app, session, "sleep: 60").status_code in {200, 503}
        except httpx.TransportError:
            return

    with in_background(ask):
        begun = "SELECT count(*) FROM turns"
        wait_until(lambda: ask_ledger(server.data_dir, begun) == [(1,)], "the turn has begun")
        server.process.terminate()
        wait_until(lambda: "draining" in server.log(), "it drains")
        server.process.terminate()
        assert server.process.wait(20) == 128 + 15
    wait_until(lambda: not processes_of(server.data_dir), "nothing is left", secs=GONE_SECS)
