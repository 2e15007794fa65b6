"""One-shot runs on the demo command: real processes, real directories."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from clawdforge.config import CLAUDE, DEMO
from clawdforge.domain.ids import AgentName
from clawdforge.domain.profiles import AgentProfile, RunCommand
from clawdforge.domain.runs import RunResult
from clawdforge.processes import claude
from clawdforge.processes.claude import CommandRunner

from .trees import family_of, new_incarnation, until

SECRET = "sk-very-secret-0123"


@pytest.fixture
def runner(tmp_path: Path) -> CommandRunner:
    """A runner of the demo command, in an environment with a secret."""
    (tmp_path / "data").mkdir()
    return CommandRunner(
        profile=AgentProfile(DEMO, env=("DEMO_KEY",), set_env={"MODE": "quiet-mode"}),
        data_dir=tmp_path / "data",
        runtime_dir=tmp_path / "runtime",
        incarnation=new_incarnation(),
        environment={"PATH": os.environ["PATH"], "DEMO_KEY": SECRET, "OTHER_KEY": "other"},
    )


async def run(runner: CommandRunner, prompt: str, **fields: Any) -> RunResult:
    """One run; nothing of it may be left."""
    with trio.fail_after(60):
        done = await runner.run(prompt=prompt, model="sonnet", timeout_secs=60, **fields)
    assert family_of(runner.incarnation) == []
    assert list((runner.data_dir / "runs").glob("*")) == []
    return done


async def test_a_result_comes_back(runner: CommandRunner) -> None:
    """Text as text, JSON as JSON, with the command's stop reason and a duration."""
    done = await run(runner, "-p\nsay: --help")
    assert (done.ok, done.result, done.error) == (True, "You said: -p\n--help", None)
    assert done.stop_reason == "end_turn"
    assert done.duration_ms > 0
    assert (await run(runner, 'json: {"a": 1}')).result == {"a": 1}


@pytest.mark.parametrize("length", [10, 40_000, 600_000])
@pytest.mark.parametrize("mode", ["append", "replace"])
async def test_options_and_texts_of_any_size(runner: CommandRunner, mode: str, length: int) -> None:
    """A system text reaches the command whole, as does a prompt that fills the pipe many times."""
    system = "-" + "é" * length
    prompt = "say: " + "p" * length + "\noptions"
    done = await run(runner, prompt, system=system, system_mode=mode, effort="xhigh")
    answer, _, options = done.result.rpartition("\n")
    assert answer == "p" * length
    texts = {"append": None, "replace": None, mode: system}
    assert json.loads(options) == {"model": "sonnet", "effort": "xhigh", **texts}


async def test_files_are_copies_with_names_of_ours(runner: CommandRunner, tmp_path: Path) -> None:
    """Named in the prompt and readable in the working directory."""
    first, second = tmp_path / "0a1b2c.txt", tmp_path / "3d4e5f"
    first.write_text("plum")
    second.write_text("pear")
    done = await run(runner, "read: attachment-1.txt\ncwd", files=(first, second))
    assert "You said: - attachment-1.txt\nYou said: - attachment-2" in done.result
    assert "plum\n" in done.result
    assert json.loads(done.result.rpartition("\n")[2]) == [
        "work",
        ["attachment-1.txt", "attachment-2"],
    ]


async def test_an_upload_stays_as_it_was_sent(runner: CommandRunner, tmp_path: Path) -> None:
    """Whatever a command does to the file that it is given."""
    upload = tmp_path / "0a1b2c.txt"
    upload.write_text("plum")
    script = """open("attachment-1.txt", "w").write("pear"); print('{"result": "done"}')"""
    profile = AgentProfile(DEMO, run=RunCommand((sys.executable, "-I", "-c", script)))
    done = await run(attrs.evolve(runner, profile=profile), "change it", files=(upload,))
    assert done.result == "done"
    assert upload.read_text() == "plum"


async def test_the_environment_is_an_allow_list(runner: CommandRunner) -> None:
    """What the profile lists and sets is there; nothing else of ours is."""
    assert (await run(runner, "env: DEMO_KEY")).result == SECRET
    assert (await run(runner, "env: MODE")).result == "quiet-mode"
    assert (await run(runner, "env: OTHER_KEY")).result == ""
    own = attrs.evolve(runner, profile=attrs.evolve(runner.profile, run=RunCommand(env=())))
    assert (await run(own, "env: DEMO_KEY")).result == ""


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        ("fail: no luck", "the command reports an error: no luck"),
        ("status: 429", "the model API limits the rate of requests (429): API Error: 429"),
        ("crash: 3", "the command ended with exit code 3 and no answer"),
        ("crash: 0", "the command printed no answer"),
        ("garbage", "the command's answer is not the JSON that was expected"),
        ("read: none", "the command ended with exit code 1 and no answer"),
    ],
)
async def test_each_failure_says_what_it_is(runner: CommandRunner, prompt: str, error: str) -> None:
    """A command that fails is a result with words, not an exception."""
    done = await run(runner, prompt)
    assert (done.ok, done.result, done.error, done.stop_reason) == (False, None, error, "error")


async def test_what_is_shown_has_no_secret_and_no_path(runner: CommandRunner) -> None:
    """Neither the error nor stderr; stderr is bounded, its end is kept."""
    talk = f"key {SECRET} in {runner.data_dir} with quiet-mode"
    done = await run(runner, f"warn: {'x' * 5000}\nwarn: {talk}\nfail: {talk}")
    assert done.error == "the command reports an error: key … in … with …"
    assert done.raw_stderr.endswith("\nkey … in … with …")
    assert len(done.raw_stderr) == claude.STDERR_CHARACTERS


async def test_a_flood_is_stopped(runner: CommandRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that prints without end is killed at the limit and says so."""
    monkeypatch.setattr(claude, "OUTPUT_BYTES", 100_000)
    done = await run(runner, f"flood: {10**12}")
    assert done.error == "the command printed more than 100000 bytes"


@pytest.mark.parametrize(
    ("profile", "error"),
    [
        (AgentProfile(CLAUDE), "claude is not installed (run: clawdforge setup --with claude)"),
        (AgentProfile(AgentName("x")), "its profile has no one-shot command"),
        (
            AgentProfile(AgentName("x"), run=RunCommand(("/no/such/command",))),
            "the command could not be started",
        ),
    ],
)
async def test_a_command_that_is_not_there(
    runner: CommandRunner, profile: AgentProfile, error: str
) -> None:
    """Says what is missing and, where there is one, the command that mends it."""
    done = await run(attrs.evolve(runner, profile=profile), "hello")
    assert (done.ok, done.error) == (False, error)


async def test_a_directory_that_cannot_be_made(runner: CommandRunner) -> None:
    """Is a failed run with the reason, and without the path."""
    (runner.data_dir / "runs").write_text("in the way")
    done = await runner.run(prompt="hello", model="sonnet", timeout_secs=60)
    assert done.error == "the run's directory: File exists"


async def test_a_command_that_does_not_read(runner: CommandRunner) -> None:
    """An answer given before the prompt was read is an answer all the same."""
    script = """print('{"result": "early"}')"""
    profile = AgentProfile(DEMO, run=RunCommand((sys.executable, "-I", "-c", script)))
    done = await run(attrs.evolve(runner, profile=profile), "p" * 1_000_000)
    assert done.result == "early"


async def test_cancelling_leaves_nothing(runner: CommandRunner) -> None:
    """A run whose caller leaves is gone with its grandchildren and its directory."""
    async with trio.open_nursery() as nursery:

        async def go() -> None:
            await runner.run(prompt="fork: 300\nsleep: 300", model="sonnet", timeout_secs=60)

        nursery.start_soon(go)
        await until(lambda: len(family_of(runner.incarnation)) == 3)
        nursery.cancel_scope.cancel()
    assert family_of(runner.incarnation) == []
    assert list((runner.data_dir / "runs").glob("*")) == []


def test_leftovers_of_an_earlier_life_are_cleared(runner: CommandRunner) -> None:
    """A service that was killed in the middle of a run removes its directory when it comes back."""
    runner.clear()
    (runner.data_dir / "runs" / "old" / "work").mkdir(parents=True)
    runner.clear()
    assert not (runner.data_dir / "runs").exists()
