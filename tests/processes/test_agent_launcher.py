"""What the launcher promises beyond the port, on every transport: real agents, real kills."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import attrs
import pytest
import trio

from clawdforge.domain.ids import AgentName, SessionId
from clawdforge.domain.ports import LaunchSpec, Message
from clawdforge.domain.profiles import AgentProfile
from clawdforge.errors import AgentExited, AgentNotResumable, AgentNotStarted
from clawdforge.processes.lodging import DEMO_AGENT, Lodging
from clawdforge.protocol.acp import text_of
from tests.processes import odd_agent
from tests.processes.conftest import OverTransport
from tests.processes.test_launcher_contract import DEADLINE_SECS, Notes, Running, running, spec_of
from tests.processes.trees import family_of, new_incarnation

SOON_SECS = 5.0
"""A call must be resolved within this time of the death it waits on; far above what it takes."""

PYTHON = (sys.executable, "-I", "-S")


def spec(*options: str, **fields: Any) -> LaunchSpec:
    """A session of the demo agent started with ``options``, unless ``fields`` say otherwise."""
    profile = AgentProfile(AgentName("mine"), argv=(*PYTHON, str(DEMO_AGENT), *options))
    return attrs.evolve(spec_of("s"), **{"profile": profile, **fields})


ODD = AgentProfile(AgentName("odd"), argv=(*PYTHON, odd_agent.__file__))


def text(one: Running) -> str:
    """What the agent has said so far."""
    return text_of(one.sink.events)


async def said_pid(one: Running) -> int:
    """The pid of the agent's process, as it says itself."""
    one.sink.events.clear()
    await one.turn(1, "pid")
    return int("".join(filter(str.isdigit, text(one))))


async def test_a_warm_turn_costs_milliseconds(agent_launcher: OverTransport) -> None:
    """No transport adds a wait; acpx's second of silence after each turn is gone."""
    async with running(agent_launcher, spec()) as one:
        took = []
        for index in range(1, 12):
            began = perf_counter()
            await one.turn(index, "hello")
            took.append(perf_counter() - began)
        assert median(took) < 0.5


async def test_messages_are_passed_on_as_they_are(agent_launcher: OverTransport) -> None:
    """What the agent wrote is what the sink gets, to the byte; nothing added or lost."""
    lines: list[bytes] = []

    class Lines(Notes):
        def on_event(self, message: Message, wire: bytes) -> None:
            lines.append(wire)
            super().on_event(message, wire)

    sink = Lines()
    odd = attrs.evolve(spec_of("o"), profile=ODD)
    async with trio.open_nursery() as nursery:
        agent = await nursery.start(agent_launcher.run_agent, odd, sink)
        with trio.fail_after(DEADLINE_SECS):
            assert await agent.prompt(1, "odd", ()) == "end_turn"
        agent.kill()
    *updates, response = sink.events
    assert updates == [json.loads(line) for line in odd_agent.ODD_LINES]
    assert lines[:-1] == [line.encode() for line in odd_agent.ODD_LINES]
    assert response["result"] == {"stopReason": "end_turn"}


async def test_the_chosen_option_is_the_one_selected(agent_launcher: OverTransport) -> None:
    """Of two options of one kind the agent gets the one that was chosen, not the first."""
    odd = attrs.evolve(spec_of("o", "ask"), profile=ODD)
    async with running(agent_launcher, odd) as one, trio.open_nursery() as nursery:

        async def answer() -> None:
            await one.sink.wait_for(lambda sink: sink.permissions)
            await one.agent.answer_permission(one.sink.permissions[0].request_id, "everywhere")

        nursery.start_soon(answer)
        await one.turn(1, "choose")
        assert json.loads(text(one)) == {"outcome": "selected", "optionId": "everywhere"}


async def test_resume_alone_is_enough(agent_launcher: OverTransport) -> None:
    """An agent that offers session/resume and no session/load can be taken up again."""
    odd = attrs.evolve(spec_of("o"), profile=ODD)
    async with running(agent_launcher, odd) as one:
        assert one.agent.info.can_resume
    async with running(agent_launcher, attrs.evolve(odd, is_resuming=True)) as two:
        assert await two.turn(1, "odd") == "end_turn"


async def test_an_agent_without_load_is_not_resumed(agent_launcher: OverTransport) -> None:
    """It says so at once, and the resuming start raises; a new conversation is never begun."""
    async with running(agent_launcher, spec("--no-load")) as one:
        assert not one.agent.info.can_resume
        await one.turn(1, "hello")
    with pytest.RaisesGroup(AgentNotResumable):
        async with running(agent_launcher, spec("--no-load", is_resuming=True)):
            pass
    assert family_of(agent_launcher.incarnation) == []


async def test_garbage_and_giants_are_left_out(agent_launcher: OverTransport) -> None:
    """Lines that are not JSON, and one of 50 MB, are skipped and counted; the turn goes on."""
    async with running(agent_launcher, spec()) as one:
        assert await one.turn(1, "garbage: 3\nhuge: 50000000\nsay: after") == "end_turn"
        assert text(one) == "after"
        assert one.sink.skipped == 4


@pytest.mark.parametrize("victim", ["agent", "parent"])
async def test_a_death_in_mid_turn_is_told_at_once(
    agent_launcher: OverTransport, victim: str
) -> None:
    """The turn is AgentExited soon after the process is gone, and nothing of the tree is left.

    The agent's parent is the acpx host, or on the direct transport the warden itself.
    """
    async with running(agent_launcher, spec()) as one, trio.open_nursery() as nursery:
        agent_pid = await said_pid(one)

        async def strike() -> None:
            await one.sink.wait_for(lambda sink: "here" in text_of(sink.events))
            [parent] = [
                v.parent_pid for v in family_of(agent_launcher.incarnation) if v.pid == agent_pid
            ]
            os.kill(agent_pid if victim == "agent" else parent, signal.SIGKILL)
            deadline.deadline = trio.current_time() + SOON_SECS

        nursery.start_soon(strike)
        with trio.CancelScope() as deadline, pytest.raises(AgentExited) as caught:
            await one.turn(2, "setsid: 600\nsay: here\nsleep: 600")
        assert not deadline.cancelled_caught
        is_host = victim == "parent" and agent_launcher.transport == "acpx"
        assert ("acpx host" if is_host else signal.SIGKILL.name) in str(caught.value)
    assert one.exit is not None
    assert not one.exit.was_killed
    assert family_of(agent_launcher.incarnation) == []


async def test_the_most_stubborn_tree_dies(agent_launcher: OverTransport) -> None:
    """A deaf agent that ignores TERM and end of input, with setsid grandchildren: none is left."""
    async with running(agent_launcher, spec("--stubborn")) as one, trio.open_nursery() as nursery:

        async def strike() -> None:
            await one.sink.wait_for(lambda sink: "here" in text_of(sink.events))
            await one.agent.cancel(1)
            one.agent.kill()

        nursery.start_soon(strike)
        with pytest.raises(AgentExited):
            await one.turn(1, "fork: 600\nsetsid: 600\nsay: here\ndeaf: 600")
    assert one.exit is not None
    assert one.exit.was_killed
    assert family_of(agent_launcher.incarnation) == []


async def test_leaving_a_prompt_leaves_the_turn(agent_launcher: OverTransport) -> None:
    """Cancelling the wait stops nothing: the turn goes on until it is cancelled itself."""
    async with running(agent_launcher, spec()) as one:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.turn, 1, "say: here\nsleep: 600")
                await one.sink.wait_for(lambda sink: text_of(sink.events))
                scope.cancel()
        await one.agent.cancel(1)
        await one.sink.wait_for(lambda sink: "cancelled" in str(sink.events))
        assert await one.turn(2, "hello") == "end_turn"


async def test_the_environment_is_an_allow_list(agent_launcher: OverTransport) -> None:
    """The agent sees PATH, LANG, its home, what its profile lists, and nothing else of ours."""
    profile = attrs.evolve(
        spec().profile, env=("OTHER", "CLAWDFORGE_ADMIN_TOKEN", "UNSET"), set_env={"MODE": "quiet"}
    )
    async with running(agent_launcher, spec(profile=profile)) as one:
        await one.turn(1, "env: HOME")
        names, home = text(one).splitlines()
    assert set(names.removeprefix("Names: ").split()) - {"LC_CTYPE"} == {
        "CLAWDFORGE_MARK",
        "DEMO_AGENT_STATE",
        "HOME",
        "LANG",
        "MODE",
        "OTHER",
        "PATH",
    }
    assert home == f"HOME={agent_launcher.lodging.data_dir / 'homes' / 'mine'}"


async def test_folders_are_private_and_go_with_the_session(agent_launcher: OverTransport) -> None:
    """Every folder is 0700; discarding leaves nothing of the conversation."""
    async with running(agent_launcher, spec()) as one:
        await one.turn(1, "my cat is Miro")
    folders = agent_launcher.lodging.folders(SessionId("s" * 24))
    home = agent_launcher.lodging.data_dir / "homes" / "mine"
    for folder in (folders.root, folders.work, folders.state, home):
        assert folder.stat().st_mode & 0o777 == 0o700
    await agent_launcher.discard(SessionId("s" * 24))
    left = [path for path in agent_launcher.lodging.data_dir.rglob("*") if path.is_file()]
    assert not [path for path in left if b"Miro" in path.read_bytes()]


async def test_files_are_put_where_the_agent_can_read_them(
    agent_launcher: OverTransport, tmp_path: Path
) -> None:
    """Attached files are in the working directory, and the prompt begins by naming them."""
    (tmp_path / "notes.txt").write_text("cats")
    async with running(agent_launcher, spec()) as one:
        with trio.fail_after(DEADLINE_SECS):
            await one.agent.prompt(1, "say: done", (tmp_path / "notes.txt",))
        assert "attachment-1-1.txt" in text(one).splitlines()[-2]
        assert text(one).endswith("done")
    staged = agent_launcher.lodging.folders(SessionId("s" * 24)).work / "attachment-1-1.txt"
    assert staged.read_text() == "cats"


async def test_the_model_is_chosen(agent_launcher: OverTransport) -> None:
    """A session's model reaches the agent."""
    async with running(agent_launcher, spec(model="opus")) as one:
        await one.turn(1, "model")
        assert "opus" in text(one)


async def test_what_the_agent_offers_is_passed_on(agent_launcher: OverTransport) -> None:
    """Its models, at the start and when a conversation is taken up again."""
    for is_resuming in (False, True):
        async with running(agent_launcher, spec(is_resuming=is_resuming)) as one:
            models = one.agent.info.menus.models
            assert models is not None
            assert {"demo", "opus"} <= {choice.id for choice in models.available}
            await one.turn(1, "hello")


@pytest.mark.parametrize(
    ("argv", "model", "reason"),
    [
        (("/nowhere/agent",), None, "its command was not found"),
        ((*PYTHON, str(DEMO_AGENT), "--exit-at-start", "7"), None, "exit code 7"),
        ((*PYTHON, str(DEMO_AGENT)), "no-such-model", "does not offer the model"),
    ],
)
async def test_a_failed_start_says_why_and_leaves_nothing(
    agent_launcher: OverTransport, argv: tuple[str, ...], model: str | None, reason: str
) -> None:
    """AgentNotStarted in plain words, without a path; no process stays."""
    profile = AgentProfile(AgentName("mine"), argv=argv)
    with pytest.raises(AgentNotStarted) as caught:
        await agent_launcher.run_agent(
            spec(profile=profile, model=model), Notes(), task_status=trio.TASK_STATUS_IGNORED
        )
    assert reason in caught.value.reason
    assert "/" not in caught.value.reason
    assert caught.value.is_callers_choice == (model is not None)
    assert family_of(agent_launcher.incarnation) == []


async def test_a_start_that_hangs_can_be_cancelled(agent_launcher: OverTransport) -> None:
    """The caller's deadline ends a handshake that never comes, and nothing is left of it."""
    with trio.move_on_after(3) as scope:
        await agent_launcher.run_agent(
            spec("--no-handshake"), Notes(), task_status=trio.TASK_STATUS_IGNORED
        )
    assert scope.cancelled_caught
    assert family_of(agent_launcher.incarnation) == []


async def test_an_agent_that_is_not_installed_says_what_to_run(
    agent_launcher: OverTransport, tmp_path: Path
) -> None:
    """AgentNotStarted carries the one command that mends it."""
    lodging = attrs.evolve(agent_launcher.lodging, runtime_dir=tmp_path / "empty")
    claude = spec(profile=AgentProfile(AgentName("claude")))
    with pytest.raises(AgentNotStarted) as caught:
        await attrs.evolve(agent_launcher, lodging=lodging).run_agent(
            claude, Notes(), task_status=trio.TASK_STATUS_IGNORED
        )
    assert caught.value.remedy == "run: clawdforge setup --with claude"


async def test_an_acpx_that_is_not_installed_says_what_to_run(tmp_path: Path) -> None:
    """Every agent behind the acpx host needs acpx."""
    lodging = Lodging(
        data_dir=tmp_path / "data",
        runtime_dir=tmp_path / "empty",
        incarnation=new_incarnation(),
        environment={},
    )
    with pytest.raises(AgentNotStarted) as caught:
        await OverTransport("acpx", lodging).run_agent(
            spec(), Notes(), task_status=trio.TASK_STATUS_IGNORED
        )
    assert caught.value.remedy == "run: clawdforge setup"
