"""Idempotency keys against the real service: sent twice, killed in between, started again."""

from __future__ import annotations

import httpx2 as httpx
import pytest

from tests.system.conftest import Server, StartServer
from tests.waiting import wait_until

pytestmark = pytest.mark.system

KEY = {"Idempotency-Key": "order-66"}


def send(app: httpx.Client, path: str, **body: object) -> httpx.Response:
    """A request under the key."""
    return app.post(path, json=body, headers=KEY)


def again(start_server: StartServer, app: httpx.Client) -> tuple[Server, httpx.Client]:
    """The service started once more, and the same app."""
    server = start_server().wait_ready()
    return server, server.client(str(app.headers["authorization"]).removeprefix("Bearer "))


def test_a_stored_answer_survives_a_restart(start_server: StartServer) -> None:
    """Creation and turn answer the same bytes as the first time; other fields are refused."""
    server = start_server().wait_ready()
    app = server.app()
    created = send(app, "/sessions", agent="demo")
    path = f"/sessions/{created.json()['session_id']}/turn"
    first = send(app, path, prompt="tool: search\nsay: hello\nusage: 7")
    assert first.status_code == 200
    server.terminate()
    server, app = again(start_server, app)
    assert send(app, "/sessions", agent="demo").content == created.content
    assert send(app, path, prompt="tool: search\nsay: hello\nusage: 7").content == first.content
    other = send(app, path, prompt="other")
    assert (other.status_code, other.json()["title"]) == (422, "Idempotency key reused")
    assert app.get(path.removesuffix("/turn")).json()["turn_count"] == 1


def test_a_turn_that_a_crash_cut_off_is_never_sent_again(start_server: StartServer) -> None:
    """Its key is answered 502, outcome unknown, and the agent has it once only."""
    server = start_server().wait_ready()
    app = server.app()
    session = app.post("/sessions", json={"agent": "demo"}).json()["session_id"]
    path = f"/sessions/{session}"
    state = server.data_dir / "sessions" / session / "state"

    def is_asked() -> bool:
        return any("sleep: 600" in file.read_text() for file in state.glob("demo-*.jsonl"))

    with app.stream(
        "POST",
        f"{path}/turn",
        json={"prompt": "sleep: 600"},
        headers={**KEY, "Accept": "text/event-stream"},
    ):
        wait_until(is_asked, "the agent works on it")
        server.kill()
    server, app = again(start_server, app)
    for _ in range(2):
        answer = send(app, f"{path}/turn", prompt="sleep: 600")
        assert answer.status_code == 502
        assert "unknown" in answer.json()["detail"]
        assert answer.json()["turn_index"] == 1
    recalled = app.post(f"{path}/turn", json={"prompt": "recall:"}).json()["text"]
    assert recalled.count("sleep: 600") == 1
