"""One suite for every launcher: what the port promises, the fake and the real ones all keep."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from clawdforge.domain.ids import AgentName, SessionId
from clawdforge.domain.ports import (
    Agent,
    AgentExit,
    Launcher,
    LaunchSpec,
    Message,
    PermissionRequest,
    Started,
)
from clawdforge.domain.profiles import AgentProfile, Permissions
from clawdforge.errors import AgentExited, AgentMisbehaved, AgentNotResumable
from clawdforge.processes.lodging import Lodging
from clawdforge.protocol.acp import stop_reason_of, text_of
from clawdforge.testing.fake_launcher import FakeLauncher
from tests.processes.conftest import OverTransport
from tests.processes.trees import new_incarnation

DEADLINE_SECS = 60.0
"""Far beyond what any step takes, cold Node included: past it the test fails loudly."""


@pytest.fixture(params=["fake", "acp", pytest.param("acpx", marks=pytest.mark.system)])
def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> Launcher:
    """Each launcher in turn; the real one over each transport."""
    if request.param == "fake":
        return FakeLauncher()
    runtime_dir = tmp_path / "no-node"
    if request.param == "acpx":
        runtime_dir = request.getfixturevalue("runtime_dir")
    lodging = Lodging(
        data_dir=tmp_path,
        runtime_dir=runtime_dir,
        incarnation=new_incarnation(),
        environment={"PATH": os.environ["PATH"]},
    )
    return OverTransport(request.param, lodging)


class Notes:
    """A sink that keeps everything and can be waited on."""

    def __init__(self) -> None:
        self.events: list[Message] = []
        self.skipped = 0
        self.permissions: list[PermissionRequest] = []
        self._changed = trio.Event()

    def on_event(self, message: Message, wire: bytes) -> None:
        assert json.loads(wire) == message
        self.events.append(message)
        self._wake()

    def on_skipped(self, count: int) -> None:
        self.skipped += count
        self._wake()

    def on_permission(self, request: PermissionRequest) -> None:
        self.permissions.append(request)
        self._wake()

    async def wait_for(self, is_there: Callable[[Notes], object]) -> None:
        """Wait until the condition holds."""
        with trio.fail_after(DEADLINE_SECS):
            while not is_there(self):
                await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@attrs.define
class Running:
    """A live agent, what it sent, and how it ended once it has."""

    agent: Agent
    sink: Notes
    exit: AgentExit | None = None

    async def turn(self, index: int, text: str) -> str:
        with trio.fail_after(DEADLINE_SECS):
            return await self.agent.prompt(index, text, ())


def spec_of(
    name: str, permissions: Permissions = "ask", *, is_resuming: bool = False
) -> LaunchSpec:
    """A spec for one session of the demo agent."""
    profile = AgentProfile(AgentName("demo"))
    return LaunchSpec(SessionId(name * 24), profile, None, permissions, is_resuming)


@asynccontextmanager
async def running(launcher: Launcher, spec: LaunchSpec) -> AsyncIterator[Running]:
    """An agent that is alive in the block and proved dead after it."""
    async with trio.open_nursery() as nursery:

        async def run_agent(*, task_status: Started[Agent]) -> None:  # noqa: ASYNC128  # handed on
            found.exit = await launcher.run_agent(spec, found.sink, task_status=task_status)

        found = Running(agent=None, sink=Notes())  # type: ignore[arg-type]  # set in the next line
        with trio.fail_after(DEADLINE_SECS):
            found.agent = await nursery.start(run_agent)
        yield found
        found.agent.kill()


async def test_a_turn_gives_its_events_and_stop_reason(launcher: Launcher) -> None:
    """A turn's events are the agent's updates and its response, in order."""
    async with running(launcher, spec_of("a")) as one:
        assert await one.turn(1, "good morning") == "end_turn"
        assert text_of(one.sink.events) == "You said: good morning"
        assert stop_reason_of(one.sink.events) == "end_turn"
        methods = {message.get("method") for message in one.sink.events}
        assert methods == {"session/update", None}
    assert one.exit is not None
    assert one.exit.was_killed


async def test_a_second_turn_recalls_the_first(launcher: Launcher) -> None:
    """One live agent keeps its conversation."""
    async with running(launcher, spec_of("b")) as one:
        await one.turn(1, "my cat is Miro")
        one.sink.events.clear()
        await one.turn(2, "recall")
        assert "Miro" in text_of(one.sink.events)


async def test_a_killed_agent_is_resumed(launcher: Launcher) -> None:
    """A new agent takes the conversation up; the replay is no event of a turn."""
    async with running(launcher, spec_of("c")) as one:
        assert one.agent.info.can_resume
        await one.turn(1, "my cat is Miro")
    async with running(launcher, spec_of("c", is_resuming=True)) as two:
        await two.turn(2, "recall")
        assert text_of(two.sink.events).startswith("You said before:")
        assert "Miro" in text_of(two.sink.events)


async def test_a_lost_conversation_is_not_replaced(launcher: Launcher) -> None:
    """Resuming what is not there is AgentNotResumable, at the start or at the first turn."""
    with pytest.RaisesGroup(AgentNotResumable):
        async with running(launcher, spec_of("d", is_resuming=True)) as one:
            await one.turn(1, "recall")


async def test_a_cancelled_turn_answers_cancelled(launcher: Launcher) -> None:
    """A cancel ends the turn in hand, and the next one works."""
    async with running(launcher, spec_of("e")) as one, trio.open_nursery() as nursery:

        async def cancel() -> None:
            await one.sink.wait_for(lambda sink: text_of(sink.events))
            await one.agent.cancel(1)

        nursery.start_soon(cancel)
        assert await one.turn(1, "say: here\nsleep: 600") == "cancelled"
        assert await one.turn(2, "hello") == "end_turn"


async def test_a_turn_that_was_left_is_waited_for_again(launcher: Launcher) -> None:
    """Whoever stops waiting leaves the turn at work; a cancel ends it for who waits again."""
    async with running(launcher, spec_of("p")) as one:
        with trio.fail_after(DEADLINE_SECS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.agent.prompt, 1, "say: here\nsleep: 600", ())
                await one.sink.wait_for(lambda sink: text_of(sink.events))
                nursery.cancel_scope.cancel()
            await one.agent.cancel(1)
            assert await one.agent.rejoin(1) == "cancelled"
            assert await one.agent.rejoin(1) == "cancelled"
        assert await one.turn(2, "hello") == "end_turn"


async def test_a_prompt_that_was_never_given_is_not_waited_for(launcher: Launcher) -> None:
    """Left before its first byte: the agent knows of no such turn, and nobody waits for it."""
    async with running(launcher, spec_of("q")) as one:
        with trio.CancelScope() as scope:
            scope.cancel()
            await one.agent.prompt(1, "hello", ())
        assert scope.cancelled_caught
        with trio.fail_after(DEADLINE_SECS):
            assert await one.agent.rejoin(1) is None
        assert one.sink.events == []
        assert await one.turn(2, "recall") == "end_turn"
        assert "hello" not in text_of(one.sink.events)


async def test_a_turn_that_was_left_fails_with_its_agent(launcher: Launcher) -> None:
    """The end of the process answers whoever waits again, too."""
    async with running(launcher, spec_of("r")) as one:
        with trio.fail_after(DEADLINE_SECS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.agent.prompt, 1, "say: here\ndeaf: 600", ())
                await one.sink.wait_for(lambda sink: text_of(sink.events))
                nursery.cancel_scope.cancel()
            one.agent.kill()
            with pytest.raises(AgentExited):
                await one.agent.rejoin(1)


async def test_a_cancel_of_another_turn_does_nothing(launcher: Launcher) -> None:
    """A cancel for a turn that is over or not begun is a no-op."""
    async with running(launcher, spec_of("f")) as one:
        await one.agent.cancel(1)
        await one.turn(1, "hello")
        await one.agent.cancel(1)
        await one.agent.cancel(2)
        assert await one.turn(2, "hello") == "end_turn"


async def test_a_kill_fails_the_turn_in_hand(launcher: Launcher) -> None:
    """Killing a deaf agent resolves its turn with AgentExited; a second kill does nothing."""
    async with running(launcher, spec_of("g")) as one, trio.open_nursery() as nursery:

        async def kill() -> None:
            await one.sink.wait_for(lambda sink: text_of(sink.events))
            await one.agent.cancel(1)
            one.agent.kill()
            one.agent.kill()

        nursery.start_soon(kill)
        with pytest.raises(AgentExited):
            await one.turn(1, "say: here\ndeaf: 600")
        with pytest.raises(AgentExited):
            await one.turn(2, "hello")
        await one.agent.cancel(2)


async def test_a_crash_fails_the_turn(launcher: Launcher) -> None:
    """A process that ends by itself in mid-turn is AgentExited."""
    async with running(launcher, spec_of("h")) as one:
        with pytest.raises(AgentExited):
            await one.turn(1, "crash")


async def test_an_error_of_the_agent_leaves_it_alive(launcher: Launcher) -> None:
    """The agent's own error is AgentMisbehaved, and the next turn works."""
    async with running(launcher, spec_of("i")) as one:
        with pytest.raises(AgentMisbehaved):
            await one.turn(1, "fail: no luck")
        assert await one.turn(2, "hello") == "end_turn"


@pytest.mark.parametrize(
    ("option_id", "text"),
    [
        ("allow", "Permission: allow"),
        ("reject", "Permission: reject"),
        (None, "Permission: cancelled"),
    ],
)
async def test_a_permission_is_asked_and_answered(
    launcher: Launcher, option_id: str | None, text: str
) -> None:
    """In mode ``ask`` the sink hears the question and the agent gets the answer."""
    async with running(launcher, spec_of("j")) as one, trio.open_nursery() as nursery:

        async def answer() -> None:
            await one.sink.wait_for(lambda sink: sink.permissions)
            request = one.sink.permissions[0]
            assert [option["kind"] for option in request.options] == ["allow_once", "reject_once"]
            await one.agent.answer_permission("unknown", "allow")
            await one.agent.answer_permission(request.request_id, option_id)

        nursery.start_soon(answer)
        assert await one.turn(1, "ask: edit notes") == "end_turn"
        assert text_of(one.sink.events) == text


@pytest.mark.parametrize(
    ("mode", "text"), [("approve-all", "Permission: allow"), ("deny-all", "Permission: reject")]
)
async def test_a_mode_answers_by_itself(launcher: Launcher, mode: Permissions, text: str) -> None:
    """Outside mode ``ask`` the sink is not asked."""
    async with running(launcher, spec_of("k", mode)) as one:
        await one.turn(1, "ask: edit notes")
        assert text_of(one.sink.events) == text
        assert one.sink.permissions == []


async def test_late_updates_belong_to_the_session(launcher: Launcher) -> None:
    """An update after the response still reaches the sink."""
    async with running(launcher, spec_of("l")) as one:
        await one.turn(1, "late: A title")
        await one.sink.wait_for(lambda sink: "session_info_update" in str(sink.events))


async def test_cancelling_run_agent_kills_the_agent(launcher: Launcher) -> None:
    """The cancellation is let through when the tree is dead, and the turn in hand has failed."""
    async with running(launcher, spec_of("m")) as other:
        with trio.fail_after(DEADLINE_SECS):
            async with trio.open_nursery() as nursery:
                sink = Notes()
                agent = await nursery.start(launcher.run_agent, spec_of("n"), sink)
                nursery.cancel_scope.cancel()
        with pytest.raises(AgentExited):
            await agent.prompt(1, "hello", ())
        assert await other.turn(1, "hello") == "end_turn"


async def test_discard_may_be_repeated(launcher: Launcher) -> None:
    """Discarding forgets the conversation; doing it again is no error."""
    async with running(launcher, spec_of("o")) as one:
        await one.turn(1, "hello")
    session_id = SessionId("o" * 24)
    await launcher.discard(session_id)
    await launcher.discard(session_id)
    with pytest.RaisesGroup(AgentNotResumable):
        async with running(launcher, spec_of("o", is_resuming=True)) as two:
            await two.turn(2, "recall")
