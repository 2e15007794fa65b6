"""``POST /run`` on the real ``claude`` command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import trio

from clawdforge.config import CLAUDE, built_in_agents
from clawdforge.processes.claude import CommandRunner
from clawdforge.processes.marks import Incarnation
from tests.claude.conftest import KEY, ask_and_leave, wait_gone
from tests.claude.model_api import Hang, ModelApi, Refuse, Say, Use
from tests.system.conftest import Server

pytestmark = pytest.mark.claude


def asked_for(model: ModelApi) -> str:
    """All user texts of the last request."""
    return json.dumps(model.asked[-1]["messages"], ensure_ascii=False)


def run(app: httpx.Client, prompt: str, **fields: Any) -> httpx.Response:
    """One run."""
    return app.post("/run", json={"prompt": prompt, **fields})


def test_text_with_a_system_text_added(app: httpx.Client, model: ModelApi) -> None:
    """Prompt and system text begin with dashes and arrive as texts; four fields come back."""
    answer = run(app, "--help me", system="-p is no flag", model="sonnet")
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"ok", "result", "duration_ms", "stop_reason"}
    assert (answer.json()["result"], answer.json()["stop_reason"]) == ("hello", "end_turn")
    assert "--help me" in asked_for(model)
    system = model.asked[0]["system"]
    assert system[-1]["text"].endswith("-p is no flag")
    assert len(system[-1]["text"]) > 1000
    assert "sonnet" in model.asked[0]["model"]


def test_json_with_a_system_text_in_its_place(
    app: httpx.Client, model: ModelApi, server: Server
) -> None:
    """JSON in fences is JSON; the system text replaces the CLI's own; effort reaches the model.

    Afterwards neither directory nor transcript of the run is left.
    """
    model.will(Say('```json\n{"colours": ["red"]}\n```'))
    answer = run(app, "colours", system="-only this", system_mode="replace", effort="low")
    assert answer.json()["result"] == {"colours": ["red"]}
    assert model.asked[0]["system"][-1]["text"] == "-only this"
    assert model.asked[0]["output_config"]["effort"] == "low"
    assert list((server.data_dir / "runs").iterdir()) == []
    home = server.data_dir / "homes" / "claude"
    assert [path for path in home.rglob("*.jsonl") if "colours" in path.read_text()] == []


def test_a_large_prompt_and_a_large_system_text(app: httpx.Client, model: ModelApi) -> None:
    """600 KB by standard input, 40 KB by a file: both arrive whole."""
    prompt, system = "p" * 600_000, "s" * 40_000
    # The CLI itself refuses what does not fit the model's context, by its own estimate.
    answer = run(app, prompt, system=system, model="sonnet[1m]")
    assert answer.json()["ok"] is True, answer.text
    assert prompt in asked_for(model)
    assert model.asked[0]["system"][-1]["text"].endswith(system)


def test_an_attached_file_is_read_by_the_tool(app: httpx.Client, model: ModelApi) -> None:
    """The prompt names it, the model asks for it by that name, and gets what was uploaded."""
    upload = app.post("/files", files={"file": ("my notes.txt", b"the word is plum")})
    model.will(Use("Read", {"file_path": "attachment-1.txt"}), Say("plum"))
    answer = run(app, "Which word?", files=[upload.json()["file_token"]])
    assert answer.json()["result"] == "plum", answer.text
    first, second = model.asked
    assert "- attachment-1.txt" in json.dumps(first["messages"])
    assert "the word is plum" in json.dumps(second["messages"][-1])
    assert "my notes" not in json.dumps(second)


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (Refuse(401, "authentication_error", "invalid x-api-key"), "credentials (401)"),
        (
            Refuse(429, "rate_limit_error", f"slow {KEY} /etc/x"),
            "limits the rate of requests (429)",
        ),
        (Refuse(500, "api_error", "boom"), "model API failed (500)"),
    ],
)
def test_errors_of_the_model_api(
    app: httpx.Client, model: ModelApi, refusal: Refuse, words: str
) -> None:
    """Each is a flat 502 that says which it was, without the key and without a path."""
    model.will(refusal)
    answer = run(app, "hi")
    assert answer.status_code == 502
    body = answer.json()
    assert body.keys() == {"ok", "error", "stderr", "duration_ms", "stop_reason"}
    assert (body["ok"], body["stop_reason"]) == (False, "error")
    assert words in body["error"]
    assert KEY not in answer.text
    assert "/etc/x" not in answer.text


def test_a_connection_that_hangs_is_timed_out(
    app: httpx.Client, model: ModelApi, server: Server
) -> None:
    """The deadline is kept, the answer says so, and no process is left when it is given."""
    model.will(Hang())
    answer = run(app, "hi", timeout_secs=15)
    assert (answer.status_code, answer.json()["stop_reason"]) == (502, "timeout")
    assert 15_000 <= answer.json()["duration_ms"] < 25_000
    assert model.hanging.is_set()
    wait_gone(server)


def test_a_caller_who_leaves_stops_the_run(
    app: httpx.Client, model: ModelApi, server: Server
) -> None:
    """The process tree goes with the connection, long before the run's own time is over."""
    ask_and_leave(app, model, "/run", prompt="hi", timeout_secs=600)
    wait_gone(server)


async def test_a_command_that_is_not_logged_in(claude_runtime_dir: Path, tmp_path: Path) -> None:
    """Without credentials the error says which variables the service lacks; no report stays."""
    runner = CommandRunner(
        profile=built_in_agents()[CLAUDE],
        data_dir=tmp_path,
        runtime_dir=claude_runtime_dir,
        incarnation=Incarnation("claude-test", "first"),
        environment={"IS_SANDBOX": "1"},
    )
    with trio.fail_after(60):
        done = await runner.run(prompt="hi", model="sonnet", timeout_secs=60)
    assert done.error is not None
    assert "not logged in" in done.error
    assert "ANTHROPIC_API_KEY" in done.error
    assert not (tmp_path / "homes" / "claude" / ".claude" / "telemetry").exists()
