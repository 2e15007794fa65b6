"""Sessions on Claude over each transport: real acpx, the real adapter, the real CLI."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import pytest

from tests.claude.conftest import DIRECT, ask_and_leave, wait_gone
from tests.claude.model_api import Hang, ModelApi, Say, Use
from tests.system.conftest import Server, open_session, say

pytestmark = pytest.mark.claude

WRITE = Use("Bash", {"command": "touch pl''um && ls", "description": "make a file"})
"""What no mode but ``approve-all`` lets through unasked."""


@pytest.fixture(params=["claude", DIRECT])
def agent(request: pytest.FixtureRequest) -> str:
    """Claude behind the acpx host, and spoken to directly."""
    return str(request.param)


@pytest.fixture
def session(app: httpx.Client, server: Server, agent: str) -> Iterator[str]:
    """An open session; nothing of it is left when it is closed."""
    session_id = open_session(app, agent)
    yield session_id
    assert app.delete(f"/sessions/{session_id}").json()["ok"] is True
    wait_gone(server)


def methods(answer: httpx.Response) -> list[str | None]:
    """The methods of a turn's events; None for the response."""
    return [event.get("method") for event in answer.json()["events"]]


def tool_result(model: ModelApi) -> str:
    """What the model was told of the one tool that it has used."""
    contents = [message["content"] for body in model.asked for message in body["messages"]]
    blocks = [block for content in contents if isinstance(content, list) for block in content]
    results = [block for block in blocks if block.get("type") == "tool_result"]
    assert results, "the model was never told"
    return json.dumps(results[0]["content"])


def test_the_second_turn_knows_the_first(app: httpx.Client, model: ModelApi, session: str) -> None:
    """Two turns of one conversation, with the agent's text and the prompt's own response."""
    model.will(Say("Good morning, Ada"))
    first = say(app, session, "I am Ada")
    assert (first.json()["text"], first.json()["stop_reason"]) == ("Good morning, Ada", "end_turn")
    assert "session/update" in methods(first)
    assert first.json()["events"][-1]["result"]["stopReason"] == "end_turn"
    model.will(Say("Ada"))
    second = say(app, session, "Who am I?")
    assert (second.json()["text"], second.json()["turn_index"]) == ("Ada", 2)
    told = json.dumps(model.asked[-1]["messages"])
    assert "I am Ada" in told
    assert "Good morning, Ada" in told


def test_a_tool_that_needs_permission(app: httpx.Client, model: ModelApi, session: str) -> None:
    """The agent asks, the mode of the session decides, the tool's result goes to the model."""
    model.will(WRITE, Say("done"))
    answer = say(app, session, "Write it")
    assert answer.json()["text"] == "done", answer.text
    assert "session/request_permission" in methods(answer)
    assert "plum" in tool_result(model)


def test_a_mode_that_denies(app: httpx.Client, model: ModelApi, server: Server, agent: str) -> None:
    """The same request on a session that denies: the tool does not run, the turn goes on."""
    created = app.post("/sessions", json={"agent": agent, "permissions": "deny-all"})
    session_id = created.json()["session_id"]
    model.will(WRITE, Say("done"))
    answer = say(app, session_id, "Write it")
    assert answer.status_code == 200, answer.text
    assert "plum" not in tool_result(model)
    app.delete(f"/sessions/{session_id}")
    wait_gone(server)


def test_cancel(app: httpx.Client, model: ModelApi, session: str) -> None:
    """The agent stops at the word, the turn says so to its caller, and the next one is served."""
    model.will(Hang())
    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(say, app, session, "wait")
        assert model.hanging.wait(60)
        receipt = app.post(f"/sessions/{session}/cancel", json={}).json()
        assert (receipt["cancelled"], receipt["how"]) == (True, "agent")
        answer = turn.result(60)
    assert (answer.status_code, answer.json()["stop_reason"]) == (200, "cancelled")
    model.will(Say("here"))
    assert say(app, session, "Still there?").json()["text"] == "here"


def test_a_turn_whose_caller_leaves_is_cancelled(
    app: httpx.Client, model: ModelApi, session: str
) -> None:
    """The agent stops, and the next turn is served by the same conversation."""
    model.will(Say("noted"))
    say(app, session, "Remember the plum")
    ask_and_leave(app, model, f"/sessions/{session}/turn", prompt="wait")
    model.will(Say("plum"))
    answer = say(app, session, "What was it?")
    assert answer.json()["text"] == "plum", answer.text
    assert answer.json()["turn_index"] == 3
    assert "Remember the plum" in json.dumps(model.asked[-1]["messages"])
