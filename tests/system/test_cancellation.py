"""Every way to leave, stop or lose a turn, on real acpx and real sockets.

After each: what the client got, what the ledger says (one ending and no more), what the agent saw,
and which processes live. A row of the table is a test; streams have theirs in test_streaming.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from clawdforge.testing import demo_agent
from tests.system.conftest import Server, processes_of
from tests.system.hangups import Scene, kill, raw_post
from tests.waiting import wait_until

pytestmark = pytest.mark.system

GRACE_SECS = 1
START_SECS = 2
"""How long the agent ``slow`` takes to begin to start."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, runtime_dir: Path) -> Iterator[Server]:
    """One server for the whole table; each row has an app and a session of its own."""
    folder = tmp_path_factory.mktemp("cancellation")
    slow = [sys.executable, "-I", "-S", demo_agent.__file__]
    command = f"sleep {START_SECS}; exec {' '.join(slow)}"
    config = folder / "clawdforge.toml"
    config.write_text(f'[agents.slow]\nargv = ["/bin/sh", "-c", "{command}"]\n')
    settings = {
        "CLAWDFORGE_CANCEL_GRACE_SECS": str(GRACE_SECS),
        "CLAWDFORGE_CONFIG": str(config),
    }
    with Server(folder / "data", runtime_dir, settings) as started:
        yield started.wait_ready()


@pytest.fixture
def scene(server: Server, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A session; whatever becomes of it in the test, nothing of it is left."""
    opened = Scene.open(server, app_name(request))
    try:
        yield opened
    finally:
        opened.app.delete(opened.path)
        wait_until(lambda: processes_of(server.data_dir) == [], "nothing of it is left", secs=10)


def app_name(request: pytest.FixtureRequest) -> str:
    """A name of its own for each test."""
    return re.sub(r"[^a-z0-9_-]", "-", str(request.node.name).lower())[-60:]


class Background:
    """A request in a thread: its answer, or the error that it met."""

    def __init__(self, app: httpx.Client, path: str, body: dict[str, Any]) -> None:
        self._answer: httpx.Response | None = None
        self._thread = threading.Thread(target=self._run, args=(app, path, body))
        self._thread.start()

    def _run(self, app: httpx.Client, path: str, body: dict[str, Any]) -> None:
        self._answer = app.post(path, json=body)

    def answer(self) -> httpx.Response:
        """Once it is there."""
        self._thread.join(60)
        assert self._answer is not None, "the request was never answered"
        return self._answer


def ask(scene: Scene, prompt: str, **fields: Any) -> Background:
    """A turn in the background, at which the agent works."""
    before = scene.asked
    asked = Background(scene.app, f"{scene.path}/turn", {"prompt": prompt, **fields})
    scene.wait_asked(*before, prompt)
    return asked


def expect_cancelled(answer: httpx.Response, index: int = 1) -> dict[str, Any]:
    """The answer of a turn that somebody cancelled: no error, its events so far."""
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert (body["ok"], body["turn_index"], body["stop_reason"]) == (True, index, "cancelled")
    return body


# --- the caller leaves ----------------------------------------------------------------------------


def test_hanging_up_while_the_agent_works(scene: Scene) -> None:
    """The agent is told and stops; the same processes take the next turn, which remembers."""
    with raw_post(scene.app, f"{scene.path}/turn", {"prompt": "say: so far\nsleep: 600"}):
        scene.wait_asked("say: so far\nsleep: 600")
    scene.wait_ended((1, "cancelled", "caller_gone"))
    assert scene.finished == 1
    assert "so far" in scene.say("recall:")["text"]
    assert scene.tree == scene.processes


def test_hanging_up_before_the_first_byte(scene: Scene) -> None:
    """A turn of which nothing has been heard is cancelled like any other."""
    with raw_post(scene.app, f"{scene.path}/turn", {"prompt": "sleep: 600"}) as connection:
        scene.wait_asked("sleep: 600")
        connection.settimeout(0.1)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    scene.wait_ended((1, "cancelled", "caller_gone"))
    assert scene.query("SELECT text FROM turns WHERE session_id = :session") == [("",)]
    assert scene.tree == scene.processes


def test_hanging_up_while_waiting_in_line(scene: Scene) -> None:
    """The turn never starts; the one at work is not touched."""
    first = ask(scene, "say: first\nsleep: 2")
    with raw_post(scene.app, f"{scene.path}/turn", {"prompt": "never"}):
        wait_until(lambda: len(scene.endings) == 2, "the second turn is admitted")
    wait_until(
        lambda: (2, "cancelled", "caller_gone") in scene.endings, "the second turn has ended"
    )
    assert first.answer().json()["stop_reason"] == "end_turn"
    scene.wait_ended((1, "completed", None), (2, "cancelled", "caller_gone"))
    assert scene.asked == ["say: first\nsleep: 2"]
    assert scene.tree == scene.processes


def test_hanging_up_with_half_a_body_sent(scene: Scene) -> None:
    """There was no request yet: no turn, no index, and the agent has heard nothing."""
    body = {"prompt": "x" * 1000}
    with raw_post(scene.app, f"{scene.path}/turn", body, unsent_bytes=500):
        pass
    assert scene.say("hello")["turn_index"] == 1
    scene.wait_ended((1, "completed", None))
    assert scene.asked == ["hello"]


def test_hanging_up_on_a_detached_turn(scene: Scene) -> None:
    """It goes on alone, can be read afterwards, and can be cancelled."""
    body = {"prompt": "sleep: 1\nsay: done", "on_disconnect": "detach"}
    with raw_post(scene.app, f"{scene.path}/turn", body):
        scene.wait_asked("sleep: 1\nsay: done")
    scene.wait_ended((1, "completed", None))
    assert scene.app.get(f"{scene.path}/turns/1").json()["text"] == "done"
    body = {"prompt": "sleep: 600", "on_disconnect": "detach"}
    with raw_post(scene.app, f"{scene.path}/turn", body):
        scene.wait_asked("sleep: 1\nsay: done", "sleep: 600")
    assert scene.cancel(turn_index=2)["how"] == "agent"
    scene.wait_ended((1, "completed", None), (2, "cancelled", "cancel"))


# --- the clock ------------------------------------------------------------------------------------


def test_the_deadline(scene: Scene) -> None:
    """504 with the turn's index; the agent has stopped."""
    answer = scene.app.post(f"{scene.path}/turn", json={"prompt": "sleep: 600", "timeout_secs": 5})
    assert answer.status_code == 504
    problem = answer.json()
    assert (problem["turn_index"], problem["stop_reason"]) == (1, "timeout")
    assert problem["type"] == "urn:clawdforge:problem:agent-timed-out"
    assert 5000 <= problem["duration_ms"] < 7000
    ((_, ending, _),) = scene.endings
    assert ending == "timed_out"
    assert scene.finished == 1
    assert scene.tree == scene.processes


@pytest.mark.parametrize(
    ("field", "prompt", "kind"),
    [
        ("first_output_secs", "sleep: 600", "agent-never-spoke"),
        ("silence_secs", "say: a word\nsleep: 600", "agent-fell-silent"),
    ],
)
def test_silence(scene: Scene, field: str, prompt: str, kind: str) -> None:
    """504 of its own kind, long before the deadline."""
    answer = scene.app.post(f"{scene.path}/turn", json={"prompt": prompt, field: 1})
    assert answer.status_code == 504
    assert answer.json()["type"] == f"urn:clawdforge:problem:{kind}"
    assert 1000 <= answer.json()["duration_ms"] < 3000
    assert scene.finished == 1
    assert scene.tree == scene.processes


# --- cancel ---------------------------------------------------------------------------------------


def test_a_cancel_while_the_agent_works(scene: Scene) -> None:
    """The receipt says how, the turn's own answer is 200 with the events so far."""
    asked = ask(scene, "say: so far\nsleep: 600")
    receipt = scene.cancel(turn_index=1)
    assert receipt == {
        "ok": True,
        "cancelled": True,
        "turn_index": 1,
        "how": "agent",
        "took_ms": receipt["took_ms"],
    }
    assert scene.endings == [(1, "cancelled", "cancel")]
    body = expect_cancelled(asked.answer())
    assert body["text"] == "so far"
    assert body["events"][-1]["result"] == {"stopReason": "cancelled"}
    scene.wait_ended((1, "cancelled", "cancel"))
    assert scene.finished == 1
    assert scene.tree == scene.processes


def test_a_cancel_while_idle(scene: Scene) -> None:
    """Nothing happens, and nothing happens to the next turn."""
    receipt = scene.cancel()
    assert (receipt["cancelled"], receipt["turn_index"], receipt["how"]) == (False, None, "idle")
    assert scene.say("hello")["stop_reason"] == "end_turn"
    assert scene.cancel(turn_index=1)["how"] == "idle"
    assert scene.app.post(f"{scene.path}/cancel", json={"turn_index": 2}).status_code == 404
    scene.wait_ended((1, "completed", None))
    assert scene.tree == scene.processes


def test_a_cancel_while_the_agent_starts(server: Server, request: pytest.FixtureRequest) -> None:
    """The turn never starts; what had begun to start is gone, and the next turn remembers."""
    scene = Scene.open(server, app_name(request), agent="slow")
    kill(scene.agent_pid())
    wait_until(lambda: scene.tree == (), "the tree has gone with its agent")
    asked = Background(scene.app, f"{scene.path}/turn", {"prompt": "never"})
    wait_until(lambda: scene.tree != (), "a new tree starts")
    assert scene.cancel()["how"] == "not_started"
    expect_cancelled(asked.answer(), index=2)
    assert scene.tree == ()
    assert scene.say("recall:")["text"].endswith("pid")
    scene.wait_ended((1, "completed", None), (2, "cancelled", "cancel"), (3, "completed", None))
    assert "never" not in scene.asked
    scene.close()


def test_a_cancel_while_a_permission_is_asked_for(
    server: Server, request: pytest.FixtureRequest
) -> None:
    """The request ends as cancelled on the wire and in the audit, and the turn with it."""
    scene = Scene.open(server, app_name(request), permissions="ask")
    asked = ask(scene, "ask: may I?")
    path = f"{scene.path}/permissions"
    wait_until(lambda: scene.app.get(path).json()["count"] == 1, "the request waits")
    assert scene.cancel()["how"] == "agent"
    body = expect_cancelled(asked.answer())
    assert body["events"][-1]["result"] == {"stopReason": "cancelled"}
    assert scene.app.get(path).json()["count"] == 0
    decisions = "SELECT meta ->> 'by', meta ->> 'outcome' FROM session_events"
    where = " WHERE session_id = :session AND event = 'permission'"
    wait_until(
        lambda: scene.query(decisions + where) == [("cancel", "cancelled")], "the audit has it"
    )
    assert scene.finished == 1
    assert scene.tree == scene.processes
    scene.close()


def test_two_cancels_at_once(scene: Scene) -> None:
    """Both get a receipt that is true."""
    asked = ask(scene, "sleep: 600")
    cancels = [Background(scene.app, f"{scene.path}/cancel", {}) for _ in range(2)]
    receipts = [each.answer().json() for each in cancels]
    expect_cancelled(asked.answer())
    hit = [receipt for receipt in receipts if receipt["cancelled"]]
    assert hit, "at least the first to come hit the turn"
    for receipt in receipts:  # the second may come when all is over
        assert receipt["how"] == ("agent" if receipt["cancelled"] else "idle")
    scene.wait_ended((1, "cancelled", "cancel"))
    assert scene.tree == scene.processes


def test_a_deaf_agent(scene: Scene) -> None:
    """Killed after the grace, with all its processes; the next turn remembers the conversation."""
    scene.say("apples")
    asked = ask(scene, "deaf: 600")
    receipt = scene.cancel()
    assert (receipt["cancelled"], receipt["how"]) == (True, "killed")
    assert GRACE_SECS * 1000 <= receipt["took_ms"] < (GRACE_SECS + 2) * 1000
    assert not set(scene.tree) & set(scene.processes)
    expect_cancelled(asked.answer(), index=2)
    assert "apples" in scene.say("recall:")["text"]
    scene.wait_ended((1, "completed", None), (2, "cancelled", "cancel"), (3, "completed", None))
    assert len(scene.tree) == len(scene.processes)


# --- what is lost ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("victim", "reason"), [("agent", "SIGKILL"), ("host", "the acpx host was ended by signal 9")]
)
def test_a_process_that_is_killed_in_mid_turn(scene: Scene, victim: str, reason: str) -> None:
    """Answered at once with the reason; the whole tree is gone, and the next turn remembers."""
    pid = scene.agent_pid() if victim == "agent" else scene.host_pid()
    asked = ask(scene, "sleep: 600")
    began = time.monotonic()
    kill(pid)
    answer = asked.answer()
    assert time.monotonic() - began < 5  # milliseconds, but for a busy machine
    assert answer.status_code == 502
    problem = answer.json()
    assert problem["type"] == "urn:clawdforge:problem:agent-exited"
    assert reason in problem["detail"]
    assert problem["turn_index"] == 2
    wait_until(lambda: scene.tree == (), "the rest of the tree is gone", secs=2)
    assert "sleep: 600" in scene.say("recall:")["text"]
    assert [ending for _, ending, _ in scene.endings] == ["completed", "failed", "completed"]
    assert len(scene.tree) == len(scene.processes)


# --- the session goes -----------------------------------------------------------------------------


def test_a_delete_during_a_turn(scene: Scene) -> None:
    """The turn is cancelled first; when the answer comes, nothing lives."""
    asked = ask(scene, "say: so far\nsleep: 600")
    assert scene.app.delete(scene.path).json() == {"ok": True}
    assert scene.tree == ()
    assert expect_cancelled(asked.answer())["text"] == "so far"
    scene.wait_ended((1, "cancelled", "close"))
    assert scene.app.post(f"{scene.path}/turn", json={"prompt": "hello?"}).status_code == 410


def test_a_revocation_during_a_turn(scene: Scene, request: pytest.FixtureRequest) -> None:
    """The turn is cancelled, the token is nobody's, nothing lives."""
    asked = ask(scene, "say: so far\nsleep: 600")
    admin = scene.server.client(scene.server.admin_token)
    assert admin.delete(f"/admin/tokens/{app_name(request)}").json() == {"ok": True}
    assert scene.tree == ()
    expect_cancelled(asked.answer())
    assert scene.app.get(scene.path).status_code == 401
    scene.wait_ended((1, "cancelled", "close"))
    closed = scene.query("SELECT close_cause FROM sessions WHERE session_id = :session")
    assert closed == [("revoked",)]
