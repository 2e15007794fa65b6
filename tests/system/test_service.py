"""The promises of the service, asked of the real one over real sockets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2 as httpx
import pytest

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

SECRET = "a-secret-of-the-house"
HYPERCORN = [sys.executable, "-m", "hypercorn", "-k", "trio"]
HYPERCORN += ["-c", "python:clawdforge.hypercorn_conf", "clawdforge.asgi:app"]


def test_the_life_of_a_session(start_server: StartServer) -> None:
    """Create, two turns where the second recalls the first, state, list, close twice, 410."""
    server = start_server().wait_ready()
    app = server.app()
    created = app.post("/sessions", json={"agent": "demo", "meta": {"room": 4}}).json()
    session = created["session_id"]
    assert created == {
        "ok": True,
        "session_id": session,
        "agent": "demo",
        "model": None,
        "created_at": created["created_at"],
    }
    first = say(app, session, "apples").json()
    assert (first["turn_index"], first["text"]) == (1, "You said: apples")
    assert first["stop_reason"] == "end_turn"
    assert {event.get("method") for event in first["events"][:-1]} == {"session/update"}
    assert first["events"][-1]["result"]["stopReason"] == "end_turn"
    second = say(app, session, "recall:").json()
    assert second["turn_index"] == 2
    assert "apples" in second["text"]
    state = app.get(f"/sessions/{session}").json()
    assert (state["turn_count"], state["live"], state["meta"]) == (2, True, {"room": 4})
    assert [row["session_id"] for row in app.get("/sessions").json()["sessions"]] == [session]
    assert app.delete(f"/sessions/{session}").json() == {"ok": True}
    assert app.delete(f"/sessions/{session}").json() == {"ok": True, "already_closed": True}
    gone = say(app, session, "hello?")
    assert gone.status_code == 410
    assert gone.headers["content-type"] == "application/problem+json"
    assert processes_of(server.data_dir) == []
    assert server.terminate() == 0


def test_two_apps_never_see_each_other(start_server: StartServer) -> None:
    """Another app's session is byte for byte one that never existed, on every route."""
    server = start_server().wait_ready()
    kitchen, garage = server.app("kitchen"), server.app("garage")
    session, never = open_session(kitchen), "x" * 32

    def ask(session: str) -> list[tuple[int, bytes, list[tuple[str, str]]]]:
        answers = [
            garage.get(f"/sessions/{session}"),
            garage.delete(f"/sessions/{session}"),
            say(garage, session, "hello?"),
        ]
        hidden = {"date", "x-request-id"}
        return [
            (a.status_code, a.content, [h for h in a.headers.items() if h[0] not in hidden])
            for a in answers
        ]

    assert ask(session) == ask(never)
    assert [status for status, _, _ in ask(session)] == [404, 404, 404]
    assert garage.get("/sessions").json() == {"sessions": [], "count": 0}
    assert say(kitchen, session, "still here").status_code == 200


def test_a_full_pool_refuses_and_recovers(start_server: StartServer) -> None:
    """503 with Retry-After over the cap; a slot is free as soon as a close is answered."""
    server = start_server(CLAWDFORGE_MAX_LIVE_SESSIONS="1").wait_ready()
    app = server.app()
    session = open_session(app)
    refused = app.post("/sessions", json={"agent": "demo"})
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    app.delete(f"/sessions/{session}").raise_for_status()
    open_session(app)


def test_an_idle_session_is_swept_away(start_server: StartServer) -> None:
    """With short lives it is closed, says so with 410, and then its row is deleted: 404."""
    server = start_server(
        CLAWDFORGE_SESSION_TTL_SECS="1",
        CLAWDFORGE_SESSION_HARD_TTL_SECS="1",
        CLAWDFORGE_SWEEP_SECS="1",
    ).wait_ready()
    app = server.app()
    session = open_session(app)
    wait_until(lambda: not processes_of(server.data_dir), "the agent is gone")
    wait_until(lambda: app.get(f"/sessions/{session}").status_code == 404, "the row is gone")
    assert list((server.data_dir / "sessions").iterdir()) == []


def test_nothing_is_left_after_sigterm(start_server: StartServer) -> None:
    """Exit 0, and no process of ours in /proc, sessions open and idle."""
    server = start_server().wait_ready()
    app = server.app()
    for _ in range(2):
        say(app, open_session(app), "hello").raise_for_status()
    assert len(processes_of(server.data_dir)) >= 6
    assert server.terminate() == 0
    wait_until(lambda: not processes_of(server.data_dir), "nothing is left", secs=GONE_SECS)


def test_a_second_server_is_refused_and_harms_nothing(start_server: StartServer) -> None:
    """One line, non-zero, before anything is touched; the first one's session goes on."""
    first = start_server().wait_ready()
    app = first.app()
    session = open_session(app)
    say(app, session, "apples").raise_for_status()
    second = start_server()
    assert second.process.wait(60) not in {0, None}
    assert "another clawdforge holds this data directory" in second.log()
    assert "apples" in say(app, session, "recall:").json()["text"]


def test_an_unknown_agent_is_refused_with_the_known_ones(start_server: StartServer) -> None:
    """422 that names the field and lists what there is."""
    app = start_server().wait_ready().app()
    refused = app.post("/sessions", json={"agent": "ghost"})
    assert refused.status_code == 422
    assert "agent" in refused.text
    assert "demo" in refused.text
    assert "claude" in refused.text


def test_an_agent_that_cannot_start_leaves_nothing(
    start_server: StartServer, tmp_path: Path, runtime_without_claude: Path
) -> None:
    """502 says which command mends it, or how it died; no row, no slot, no process."""
    file = tmp_path / "clawdforge.toml"
    file.write_text(f'[agents.dead]\nargv = ["{sys.executable}", "-c", "raise SystemExit(3)"]\n')
    server = start_server(
        CLAWDFORGE_CONFIG=str(file),
        CLAWDFORGE_MAX_LIVE_SESSIONS="1",
        CLAWDFORGE_RUNTIME_DIR=str(runtime_without_claude),
    ).wait_ready()
    app = server.app()
    missing = app.post("/sessions", json={})
    assert missing.status_code == 502
    assert "clawdforge setup --with claude" in missing.json()["detail"]
    assert app.post("/sessions", json={"agent": "dead"}).status_code == 502
    assert app.get("/sessions").json()["count"] == 0
    assert processes_of(server.data_dir) == []
    open_session(app)


def test_a_resumable_session_survives_a_restart(start_server: StartServer) -> None:
    """After SIGKILL of the service the next one takes the turn with its context."""
    first = start_server().wait_ready()
    app = first.app()
    session = open_session(app)
    say(app, session, "apples").raise_for_status()
    token = app.headers["authorization"].split()[1]
    first.kill()
    wait_until(lambda: not processes_of(first.data_dir), "nothing is left", secs=GONE_SECS)
    app = start_server().wait_ready().client(token)
    assert app.get(f"/sessions/{session}").json()["live"] is False
    answer = say(app, session, "recall:").json()
    assert answer["turn_index"] == 2
    assert "apples" in answer["text"]


@pytest.mark.parametrize("victim", ["agent", "host", "warden"])
def test_a_session_survives_the_loss_of_any_process(start_server: StartServer, victim: str) -> None:
    """SIGKILL one of the three: nothing else is harmed, and the next turn remembers."""
    server = start_server().wait_ready()
    app = server.app()
    session, other = open_session(app), open_session(app)
    say(app, session, "apples").raise_for_status()
    words = {"agent": "demo_agent.py", "host": "host.mjs", "warden": "warden.py"}[victim]
    before = {view.pid for view in processes_of(server.data_dir)}
    os.kill(next(pid for pid in sorted(before) if words in command_line(pid)), signal.SIGKILL)
    wait_until(lambda: len(pids(server)) == len(before) - 3, "its whole tree is dead")
    for each in (session, other):
        answer = say(app, each, "hello")
        assert answer.status_code == 200, answer.text
    assert "apples" in say(app, session, "recall:").json()["text"]
    wait_until(lambda: len(pids(server)) == len(before), "as many processes as before")


def pids(server: Server) -> set[int]:
    """Who lives."""
    return {view.pid for view in processes_of(server.data_dir)}


def command_line(pid: int) -> str:
    """What it was started as."""
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def test_the_worst_agent_leaves_nothing(start_server: StartServer) -> None:
    """Deaf to cancel, TERM and EOF, with a setsid grandchild: after a close all are gone."""
    server = start_server(CLAWDFORGE_CANCEL_GRACE_SECS="0.2").wait_ready()
    app = server.app()
    session = open_session(app)
    say(app, session, "ignore\nfork: 300\nsetsid: 300").raise_for_status()
    assert len(pids(server)) == 5
    began = time.monotonic()
    app.delete(f"/sessions/{session}").raise_for_status()
    assert time.monotonic() - began < GONE_SECS + 5
    assert pids(server) == set()


def test_a_wrong_setting_stops_the_start_with_a_line(start_server: StartServer) -> None:
    """The line names the setting; nothing was bound."""
    server = start_server(CLAWDFORGE_TURN_QUEUE="many")
    assert server.process.wait(60) != 0
    assert "CLAWDFORGE_TURN_QUEUE" in server.log()
    assert not (server.data_dir / "clawdforge.db").exists()


def test_the_log_and_the_database_hold_no_token(start_server: StartServer) -> None:
    """Neither app token nor admin secret is written anywhere in the data directory or the log."""
    server = start_server().wait_ready()
    app = server.app()
    say(app, open_session(app), "hello").raise_for_status()
    secrets = [app.headers["authorization"].split()[1], server.admin_token]
    server.terminate()
    written = [server.log().encode()]
    written += [path.read_bytes() for path in server.data_dir.rglob("*") if path.is_file()]
    for secret in secrets:
        assert not any(secret.encode() in text for text in written)


def test_the_agent_sees_none_of_our_settings(start_server: StartServer) -> None:
    """Names of its variables: an allow-list, our mark, and nothing that begins like a setting."""
    server = start_server(SECRET_OF_THE_HOUSE="x").wait_ready()
    app = server.app()
    names = say(app, open_session(app), "env:").json()["text"]
    assert "PATH" in names
    assert "CLAWDFORGE_ADMIN_TOKEN" not in names
    assert "CLAWDFORGE_DATA_DIR" not in names
    assert "SECRET_OF_THE_HOUSE" not in names


def test_hypercorn_serves_it_too(tmp_path: Path, runtime_dir: Path) -> None:
    """``hypercorn -k trio`` with our configuration: a turn works, and SIGTERM leaves nothing."""
    port = free_port()
    env = {
        "PATH": os.environ["PATH"],
        "CLAWDFORGE_BIND": f"127.0.0.1:{port}",
        "CLAWDFORGE_DATA_DIR": str(tmp_path / "data"),
        "CLAWDFORGE_RUNTIME_DIR": str(runtime_dir),
        "CLAWDFORGE_ADMIN_TOKEN": SECRET,
    }
    with (
        subprocess.Popen(HYPERCORN, env=env, stderr=subprocess.DEVNULL) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        try:
            wait_until(lambda: answers(client), "hypercorn answers")
            client.headers["authorization"] = f"Bearer {SECRET}"
            token = client.post("/admin/tokens", json={"name": "kitchen"}).json()["token"]
            client.headers["authorization"] = f"Bearer {token}"
            assert say(client, open_session(client), "hello").json()["text"] == "You said: hello"
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
    wait_until(lambda: not processes_of(tmp_path / "data"), "nothing is left", secs=GONE_SECS)


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(client: httpx.Client) -> bool:
    """Whether the server is up."""
    try:
        return client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


def test_an_uploaded_file_lies_in_the_agents_working_directory(start_server: StartServer) -> None:
    """Linked under a name of ours that the prompt says; the client's own name is nowhere."""
    server = start_server().wait_ready()
    app = server.app()
    upload = {"file": ("../my secret plan.txt", b"buy milk", "text/plain")}
    kept = app.post("/files", files=upload, data={"ttl_secs": "60"}).json()
    assert (kept["ttl_secs"], kept["size"]) == (60, 8)
    session = app.post("/sessions", json={"agent": "demo"}).json()["session_id"]
    body = {"prompt": "hello", "files": [kept["file_token"]]}
    text = app.post(f"/sessions/{session}/turn", json=body).json()["text"]
    assert "attachment-1-1.txt" in text
    attached = server.data_dir / "sessions" / session / "work" / "attachment-1-1.txt"
    assert attached.read_bytes() == b"buy milk"
    assert attached.stat().st_mode & 0o777 == 0o600
    assert not list(server.data_dir.rglob("*plan*"))
