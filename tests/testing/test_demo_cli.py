"""The demo command: it takes what ``claude -p`` takes, and answers what ``claude -p`` answers."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from clawdforge.protocol.claude import plan_invocation
from clawdforge.testing import demo_cli

ARGUMENTS = plan_invocation(
    model="opus", system="be brief", system_mode="append", effort="high", system_file=""
).arguments


def run(prompt: str, *more: str) -> subprocess.CompletedProcess[str]:
    """One run, as the service starts it."""
    return subprocess.run(
        [sys.executable, "-I", "-S", demo_cli.__file__, *ARGUMENTS, *more],
        input=prompt,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def answer_of(prompt: str) -> Any:
    """The result object of a run."""
    return json.loads(run(prompt).stdout)


def test_text_is_quoted_and_commands_are_obeyed() -> None:
    """Line by line, in order, in one result."""
    answer = answer_of('Good morning\nsay: a: b\njson: {"a": 1}\noptions')
    lines = answer["result"].split("\n")
    assert lines[:5] == ["You said: Good morning", "a: b", "```json", '{"a": 1}', "```"]
    wanted = {"model": "opus", "append": "be brief", "replace": None, "effort": "high"}
    assert json.loads(lines[5]) == wanted
    assert (answer["subtype"], answer["stop_reason"]) == ("success", "end_turn")


@pytest.mark.parametrize(
    ("prompt", "code", "fields"),
    [
        ("fail: no luck", 1, {"is_error": True, "result": "no luck"}),
        ("status: 429", 1, {"is_error": True, "api_error_status": 429}),
    ],
)
def test_failures_are_answers(prompt: str, code: int, fields: dict[str, Any]) -> None:
    """Like the real one, it prints an answer and exits non-zero."""
    done = run(prompt)
    assert done.returncode == code
    assert fields.items() <= json.loads(done.stdout).items()


@pytest.mark.parametrize(
    ("prompt", "code", "stdout"), [("crash: 3", 3, ""), ("garbage", 0, "this is not JSON\n")]
)
def test_some_ends_have_no_answer(prompt: str, code: int, stdout: str) -> None:
    """What a broken command does."""
    done = run(prompt)
    assert (done.returncode, done.stdout) == (code, stdout)


def test_an_argument_it_does_not_know_is_refused() -> None:
    """A test notices when the service passes what ``claude`` was never asked to take."""
    assert run("hello", "--unknown").returncode == 2
    assert run("hello", "loose").returncode == 2
