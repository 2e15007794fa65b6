"""``POST /run`` on the real server and the demo command: what kills, drain and hang-up leave."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.store.examples import from_outside
from tests.system.conftest import GONE_SECS, Server, StartServer, processes_of
from tests.waiting import wait_until

pytestmark = pytest.mark.system

HOLD = "fork: 300\nsleep: 300"
"""A run that goes on, with a grandchild in a session of its own."""


def run(app: httpx.Client, prompt: str, **fields: Any) -> httpx.Response:
    """One run."""
    return app.post("/run", json={"prompt": prompt, **fields})


def outcomes(data_dir: Path) -> list[Any]:
    """How each run ended, as the ledger has it."""
    (rows,) = from_outside(data_dir / "clawdforge.db", "SELECT outcome FROM runs ORDER BY rowid")
    return [outcome for (outcome,) in rows]


def wait_working(server: Server) -> None:
    """Return when the run's whole tree is there: warden, command, grandchild."""
    wait_until(lambda: len(processes_of(server.data_dir)) >= 3, "the run's three processes")


def test_runs_and_what_ends_them(start_server: StartServer) -> None:
    """A result, a file, a failure, a hang-up, a revocation: after each, no process is left."""
    with start_server(CLAWDFORGE_RUN_AGENT="demo").wait_ready() as server:
        app = server.app()
        assert run(app, 'json: {"a": 1}').json()["result"] == {"a": 1}
        token = app.post("/files", files={"file": ("a.txt", b"plum")}).json()["file_token"]
        assert "plum" in run(app, "read: attachment-1.txt", files=[token]).json()["result"]
        failed = run(app, "warn: see /etc/passwd\ncrash: 3")
        assert failed.status_code == 502
        assert failed.json()["stderr"] == "see …"
        assert run(app, "sleep: 60", timeout_secs=5).json()["stop_reason"] == "timeout"

        body = b'{"prompt": "fork: 300\\nsleep: 300"}'
        address = (app.base_url.host, app.base_url.port or 80)
        with socket.create_connection(address, timeout=30) as connection:
            head = f"POST /run HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
            token_line = f"Authorization: {app.headers['Authorization']}\r\n\r\n"
            connection.sendall((head + token_line).encode() + body)
            wait_working(server)
        wait_until(lambda: not processes_of(server.data_dir), "nothing is left", secs=GONE_SECS)

        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(run, app, HOLD)
            wait_working(server)
            admin = server.client(server.admin_token)
            assert admin.delete("/admin/tokens/kitchen").json() == {"ok": True}
            assert processes_of(server.data_dir) == []
            assert working.result(30).json()["stop_reason"] == "cancelled"
        wanted = ["completed", "completed", "failed", "timed_out", "cancelled", "cancelled"]
        assert outcomes(server.data_dir) == wanted
        assert list((server.data_dir / "runs").iterdir()) == []


def test_a_drain_lets_runs_finish(start_server: StartServer) -> None:
    """After SIGTERM a run that works is answered; the service then ends with 0."""
    with start_server(CLAWDFORGE_RUN_AGENT="demo").wait_ready() as server:
        app = server.app()
        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(run, app, "fork: 300\nsleep: 2\nsay: done")
            wait_working(server)
            assert server.terminate() == 0
            assert working.result(30).json()["result"] == "done"


def test_a_killed_service_leaves_no_run(start_server: StartServer) -> None:
    """SIGKILL: the tree is dead, and the next life removes its directory and ends its row."""
    with start_server(CLAWDFORGE_RUN_AGENT="demo").wait_ready() as server:
        app = server.app()
        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(run, app, HOLD)
            wait_working(server)
            server.kill()
            wait_until(lambda: not processes_of(server.data_dir), "nothing left", secs=GONE_SECS)
            assert isinstance(working.exception(30), httpx.HTTPError)
        assert outcomes(server.data_dir) == [None]
        assert list((server.data_dir / "runs").iterdir()) != []
    with start_server(CLAWDFORGE_RUN_AGENT="demo").wait_ready() as again:
        assert outcomes(again.data_dir) == ["interrupted"]
        assert not (again.data_dir / "runs").exists()
