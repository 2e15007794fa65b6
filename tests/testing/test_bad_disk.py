"""A whole service on a disk that goes wrong: 503, alive, nothing acknowledged lost, well again."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import httpx2 as httpx
import pytest
from tests.waiting import wait_until

from clawdforge.testing import RunningServer, running_server
from clawdforge.testing.bad_disk import BadDisk, Fault, open_bad_disk


@pytest.fixture
def disk() -> Iterator[BadDisk]:
    """The disk under every ledger that the test opens."""
    with open_bad_disk() as disk:
        yield disk


@pytest.fixture
def server(disk: BadDisk) -> Iterator[RunningServer]:
    """A service on that disk."""
    with running_server() as server:
        yield server


@pytest.fixture
def app(server: RunningServer) -> Iterator[httpx.Client]:
    """An app of it."""
    headers = {"Authorization": f"Bearer {server.mint('kitchen')}"}
    with httpx.Client(base_url=server.base_url, headers=headers, timeout=60) as client:
        yield client


def open_session(app: httpx.Client) -> str:
    """A session's id."""
    answer = app.post("/sessions", json={"agent": "demo"}).raise_for_status()
    session_id: str = answer.json()["session_id"]
    return session_id


def say(app: httpx.Client, session: str, prompt: str) -> httpx.Response:
    """One turn."""
    return app.post(f"/sessions/{session}/turn", json={"prompt": prompt})


def endings(server: RunningServer, session: str) -> list[tuple[int, str | None]]:
    """What the ledger says of the session's turns: read from outside, past our VFS."""
    query = "SELECT turn_index, ending FROM turns WHERE session_id = ? ORDER BY turn_index"
    with closing(sqlite3.connect(server.database_path)) as db:
        return list(db.execute(query, (session,)))


@pytest.mark.parametrize("fault", ["full", "read-only", "broken"])
def test_a_disk_that_takes_nothing(
    server: RunningServer, app: httpx.Client, disk: BadDisk, fault: Fault
) -> None:
    """Writes are 503 with Retry-After, reads go on, /livez stays well; then all is as before."""
    session = open_session(app)
    assert say(app, session, "apples").status_code == 200
    disk.fault = fault
    for refused in (
        app.post("/sessions", json={"agent": "demo"}),
        say(app, session, "pears"),
        app.get("/readyz"),
    ):
        assert refused.status_code == 503, refused.text
        assert refused.headers["content-type"] == "application/problem+json"
        assert int(refused.headers["retry-after"]) > 0
    assert app.get("/livez").status_code == 200
    assert app.get(f"/sessions/{session}").json()["turn_count"] == 1
    assert disk.refused > 0
    disk.fault = "none"
    assert app.get("/readyz").status_code == 200
    assert "apples" in say(app, session, "recall:").json()["text"]
    assert app.get("/sessions").json()["count"] == 1
    ended = endings(server, session)
    assert {ending for _, ending in ended} == {"completed"}
    assert len(ended) == 2


def test_a_turn_whose_ending_cannot_be_written(
    server: RunningServer, app: httpx.Client, disk: BadDisk
) -> None:
    """Its caller is told 503, not a result that nobody could find again; the session goes on."""
    session = open_session(app)
    answers: list[httpx.Response] = []
    turn = threading.Thread(target=lambda: answers.append(say(app, session, "sleep: 0.5")))
    turn.start()
    wait_until(lambda: endings(server, session) == [(1, None)], "the turn has begun")
    disk.fault = "full"
    turn.join(60)
    assert [answer.status_code for answer in answers] == [503]
    disk.fault = "none"
    assert say(app, session, "hello").json()["turn_index"] == 2


def test_a_damaged_page(server: RunningServer, app: httpx.Client, disk: BadDisk) -> None:
    """Rubbish from the disk is 503 for who needs it; with the page back, nothing is missing."""
    sessions = [open_session(app) for _ in range(3)]
    with closing(sqlite3.connect(server.database_path)) as db:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")  # from the log into the file
        db.execute("UPDATE sessions SET meta = '{\"seen\": 1}'")
        db.commit()  # so that no connection trusts the pages that it holds
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")
    disk.fault = "corrupt"
    statuses = {app.get("/sessions").status_code for _ in range(4)}
    assert disk.refused > 0
    assert statuses == {503}
    assert app.get("/livez").status_code == 200
    disk.fault = "none"
    assert app.get("/sessions").json()["count"] == len(sessions)
    for session in sessions:
        assert say(app, session, "hello").status_code == 200


def test_a_slow_disk_slows_and_loses_nothing(
    server: RunningServer, app: httpx.Client, disk: BadDisk
) -> None:
    """Requests wait for the disk together, and are answered."""
    session = open_session(app)
    disk.fault = "slow"
    together(lambda: app.post("/sessions", json={"agent": "demo"}).raise_for_status(), 5)
    assert say(app, session, "hello").status_code == 200
    disk.fault = "none"
    assert app.get("/sessions").json()["count"] == 6
    assert endings(server, session) == [(1, "completed")]


def together(act: Callable[[], object], count: int) -> None:
    """Do it in so many threads at once."""
    threads = [threading.Thread(target=act) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
