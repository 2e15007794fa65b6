"""The test interface: what other programs rely on to test against the real app, offline."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx2 as httpx
import pytest
from tests.waiting import wait_until

from clawdforge.config import Config
from clawdforge.runner import RunResult
from clawdforge.testing import FakeLauncher, RunningServer, running_server


def client_of(server: RunningServer, token: str) -> httpx.Client:
    """A client with that token."""
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=server.base_url, headers=headers, timeout=30)


def test_a_session_and_a_turn_over_real_http() -> None:
    """A plain client mints, opens, asks and closes."""
    with running_server() as server, client_of(server, server.mint("kitchen")) as client:
        session = client.post("/sessions", json={"agent": "demo"}).json()["session_id"]
        turn = client.post(f"/sessions/{session}/turn", json={"prompt": "hello"}).json()
        assert turn["text"] == "You said: hello"
        assert client.delete(f"/sessions/{session}").json() == {"ok": True}


def test_the_next_turns_events_come_back_unchanged() -> None:
    """What the launcher is given is what the client gets, stop reason included; once."""
    launcher = FakeLauncher()
    events: list[dict[str, Any]] = [
        {"jsonrpc": "2.0", "method": "session/update", "params": {"sessionUpdate": "plan"}},
        {"jsonrpc": "2.0", "id": 7, "result": {"stopReason": "max_tokens"}},
    ]
    with (
        running_server(launcher=launcher) as server,
        client_of(server, server.mint("kitchen")) as client,
    ):
        session = client.post("/sessions", json={"agent": "demo"}).json()["session_id"]
        launcher.next_turn_events = events
        first = client.post(f"/sessions/{session}/turn", json={"prompt": "hello"}).json()
        assert (first["events"], first["stop_reason"]) == (events, "max_tokens")
        second = client.post(f"/sessions/{session}/turn", json={"prompt": "hello"}).json()
        assert second["stop_reason"] == "end_turn"


def test_the_cap_is_obeyed_by_the_next_request() -> None:
    """A test may fill the pool without opening sixteen sessions."""
    with running_server() as server, client_of(server, server.mint("kitchen")) as client:
        server.max_live_sessions = 0
        refused = client.post("/sessions", json={"agent": "demo"})
        assert refused.status_code == 503
        assert "Retry-After" in refused.headers
        server.max_live_sessions = 1
        assert client.post("/sessions", json={"agent": "demo"}).status_code == 200


def test_a_sweep_says_what_it_did() -> None:
    """With a life of no seconds, an idle session is closed, then deleted, by two sweeps."""
    config = Config(session_ttl_secs=-1, session_hard_ttl_secs=-1)
    with running_server(config) as server, client_of(server, server.mint("kitchen")) as client:
        assert server.config.session_ttl_secs == -1
        client.post("/sessions", json={"agent": "demo"}).raise_for_status()
        assert server.sweep_once() == {"soft_closed": 1, "hard_deleted": 0}
        assert server.sweep_once() == {"soft_closed": 0, "hard_deleted": 1}


def test_the_admin_token_mints_over_http() -> None:
    """The bootstrap secret that the server was given is the one it obeys."""
    with running_server() as server, client_of(server, server.admin_token) as admin:
        assert admin.post("/admin/tokens", json={"name": "garage"}).json()["name"] == "garage"


def test_the_ledger_is_a_file_others_can_read() -> None:
    """Another process sees committed rows in ``database_path`` while the server runs."""
    look = (
        "import sqlite3,sys; print(*sqlite3.connect(sys.argv[1]).execute('select name from apps'))"
    )
    with running_server() as server:
        server.mint("kitchen")
        seen = subprocess.run(
            [sys.executable, "-c", look, str(server.database_path)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "kitchen" in seen.stdout
    assert not server.database_path.exists()


def test_a_failure_in_the_body_still_stops_the_server() -> None:
    """The body's own error comes out, and the port is closed."""
    with pytest.raises(ZeroDivisionError), running_server() as server:
        raise ZeroDivisionError
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.base_url}/livez")


def test_leaving_with_a_turn_at_work_does_not_hang() -> None:
    """The turn is cancelled, its caller is let go, and the server is gone."""
    launcher = FakeLauncher()
    launcher.hold_turns()
    with ThreadPoolExecutor(1) as threads, ExitStack() as client_open:
        with running_server(launcher=launcher) as server:
            client = client_open.enter_context(client_of(server, server.mint("kitchen")))
            session = client.post("/sessions", json={"agent": "demo"}).json()["session_id"]
            turn = f"/sessions/{session}/turn"
            asked = threads.submit(client.post, turn, json={"prompt": "hi"})
            wait_until(lambda: launcher.agents[0].prompts, "the turn is at work")
        assert asked.exception(30) or asked.result().status_code in {200, 503}
    assert launcher.live == 0


def test_an_uploaded_file_reaches_the_agent() -> None:
    """A client uploads, names the token in a turn, and the agent is given the file."""
    launcher = FakeLauncher()
    with (
        running_server(launcher=launcher) as server,
        client_of(server, server.mint("kitchen")) as client,
    ):
        kept = client.post("/files", files={"file": ("notes.md", b"milk")}).json()
        session = client.post("/sessions", json={"agent": "demo"}).json()["session_id"]
        asked = {"prompt": "read it", "files": [kept["file_token"]]}
        client.post(f"/sessions/{session}/turn", json=asked).raise_for_status()
        ((path,),) = [prompt.files for prompt in launcher.agents[0].prompts]
        assert (path.suffix, path.read_bytes()) == (".md", b"milk")


def test_a_runner_is_anything_that_runs() -> None:
    """Another program's runner gets the fields of the request, and its result is the answer."""
    asked: list[dict[str, Any]] = []

    class Echo:
        async def run(self, **fields: Any) -> RunResult:
            asked.append(fields)
            return RunResult(True, {"said": fields["prompt"]}, "raw", "", 42, "end_turn")

    with (
        running_server(runner=Echo()) as server,
        client_of(server, server.mint("kitchen")) as client,
    ):
        answer = client.post("/run", json={"prompt": "hello", "effort": "low"})
    assert answer.json() == {
        "ok": True,
        "result": {"said": "hello"},
        "duration_ms": 42,
        "stop_reason": "end_turn",
    }
    told = asked[0]
    assert (told["model"], told["effort"], told["timeout_secs"]) == ("sonnet", "low", 120)


def test_without_a_runner_runs_are_fake() -> None:
    """No command is started: the prompt comes back."""
    with running_server() as server, client_of(server, server.mint("kitchen")) as client:
        assert client.post("/run", json={"prompt": "hello"}).json()["result"] == "You said: hello"


def test_the_command_line_works_beside_a_running_server() -> None:
    """A token minted there is good at once, one revoked is not; live work ends with the sweep."""
    with running_server() as server:

        def token(*words: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "clawdforge", "token", *words],
                env={**os.environ, "CLAWDFORGE_DATA_DIR": str(server.config.data_dir)},
                capture_output=True,
                text=True,
                check=True,
            )
            return done.stdout.strip()

        with client_of(server, token("mint", "attic")) as client:
            client.post("/sessions", json={"agent": "demo"}).raise_for_status()
            assert "attic" in token("list")
            token("revoke", "attic")
            assert client.get("/sessions").status_code == 401
        launcher = server.launcher
        assert isinstance(launcher, FakeLauncher)
        assert launcher.live == 1
        server.sweep_once()
        assert launcher.live == 0
