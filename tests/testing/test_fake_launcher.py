"""The fake launcher's own levers. What it shares with the real one is in the launcher contract."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from clawdforge.domain.ids import AgentName, SessionId
from clawdforge.domain.ports import LaunchSpec, Message, PermissionRequest
from clawdforge.domain.profiles import AgentProfile, Permissions
from clawdforge.errors import (
    AgentExited,
    AgentMisbehaved,
    AgentNotResumable,
    AgentNotStarted,
)
from clawdforge.protocol.acp import text_of, update_of
from clawdforge.testing.fake_launcher import FakeAgent, FakeLauncher, SeenPrompt

PROFILE = AgentProfile(AgentName("demo"))


@attrs.define
class Notes:
    """A sink that keeps everything."""

    events: list[Message] = attrs.field(factory=list)
    skipped: int = 0
    permissions: list[PermissionRequest] = attrs.field(factory=list)

    def on_event(self, message: Message, wire: bytes) -> None:
        assert json.loads(wire) == message
        self.events.append(message)

    def on_skipped(self, count: int) -> None:
        self.skipped += count

    def on_permission(self, request: PermissionRequest) -> None:
        self.permissions.append(request)


def spec_of(permissions: Permissions = "approve-reads", *, is_resuming: bool = False) -> LaunchSpec:
    """A spec for one session of the demo agent."""
    return LaunchSpec(SessionId("s" * 32), PROFILE, "opus", permissions, is_resuming)


@asynccontextmanager
async def running(
    launcher: FakeLauncher, sink: Notes, spec: LaunchSpec | None = None
) -> AsyncIterator[FakeAgent]:
    """An agent that is alive in the block."""
    async with trio.open_nursery() as nursery:
        agent = await nursery.start(launcher.run_agent, spec or spec_of(), sink)
        yield agent
        agent.kill()


async def test_prepared_events_are_handed_back_unchanged() -> None:
    """next_turn_events are one turn's events, with the stop reason of the response among them."""
    launcher, sink = FakeLauncher(), Notes()
    events: list[Message] = [
        {"method": "session/update", "params": {"sessionUpdate": "agent_message_chunk"}},
        {"id": 9, "result": {"stopReason": "max_tokens"}},
    ]
    async with running(launcher, sink) as agent:
        launcher.next_turn_events = events
        assert await agent.prompt(1, "hello", ()) == "max_tokens"
        assert sink.events == events
        assert await agent.prompt(2, "hello", ()) == "end_turn"


async def test_without_them_there_is_one_chunk() -> None:
    """A plain turn is one text chunk, the response, and end_turn."""
    launcher, sink = FakeLauncher(), Notes()
    async with running(launcher, sink) as agent:
        assert await agent.prompt(1, "hello", [Path("a.txt")]) == "end_turn"
        assert agent.prompts == [SeenPrompt(1, "hello", (Path("a.txt"),))]
    assert text_of(sink.events) == "You said: hello"
    assert len(sink.events) == 2


async def test_it_obeys_the_commands_of_the_demo_agent() -> None:
    """The command words do in memory what they do in the demo agent."""
    launcher, sink = FakeLauncher(), Notes()
    async with running(launcher, sink) as agent:
        await agent.prompt(1, "first", ())
        sink.events.clear()
        prompt = "say: yes\nmodel\nthink: hm\nplan: a\ngarbage: 2\nlate: T\nrecall\nstop: refusal"
        assert await agent.prompt(2, prompt, ()) == "refusal"
        with pytest.raises(AgentMisbehaved, match="no luck"):
            await agent.prompt(3, "fail: no luck", ())
    assert text_of(sink.events) == "yesModel: opusYou said before:\nfirst"
    assert sink.skipped == 2
    found = [update["sessionUpdate"] for event in sink.events if (update := update_of(event))]
    assert found[2:4] == ["agent_thought_chunk", "plan"]
    assert found[-1] == "session_info_update"


async def test_a_crash_fails_the_turn_and_ends_the_agent() -> None:
    """A process that ends in mid-turn resolves its asker first, then run_agent returns."""
    launcher, sink = FakeLauncher(), Notes()
    async with running(launcher, sink) as agent:
        with pytest.raises(AgentExited, match="exit code 7"):
            await agent.prompt(1, "crash: 7", ())
        with pytest.raises(AgentExited):
            await agent.prompt(2, "hello", ())
    assert launcher.live == 0
    assert agent.exit is not None
    assert not agent.exit.was_killed


@pytest.mark.virtual_time
async def test_a_held_turn_waits_and_can_be_cancelled() -> None:
    """Turns are held until released; a cancel gets through to a held one, unless deaf."""
    launcher, sink = FakeLauncher(), Notes()
    launcher.hold_turns()
    reasons: list[str] = []
    async with running(launcher, sink) as agent, trio.open_nursery() as nursery:

        async def ask(index: int) -> None:
            reasons.append(await agent.prompt(index, "hello", ()))

        nursery.start_soon(ask, 1)
        await trio.testing.wait_all_tasks_blocked()
        await agent.cancel(2)
        await agent.cancel(1)
        await trio.testing.wait_all_tasks_blocked()
        assert reasons == ["cancelled"]

        launcher.is_deaf = True
        nursery.start_soon(ask, 3)
        await trio.testing.wait_all_tasks_blocked()
        await agent.cancel(3)
        await trio.testing.wait_all_tasks_blocked()
        assert reasons == ["cancelled"]
        launcher.release_turns()
    assert reasons == ["cancelled", "end_turn"]
    assert agent.cancels == [2, 1, 3]


async def test_a_start_can_fail() -> None:
    """A failing start raises before ``started`` and leaves nothing."""
    launcher = FakeLauncher()
    launcher.starting = "fails"
    with pytest.RaisesGroup(AgentNotStarted):
        async with running(launcher, Notes()):
            pass
    assert (launcher.live, launcher.agents) == (0, [])


@pytest.mark.virtual_time
async def test_a_start_can_hang() -> None:
    """A hanging start lasts until its caller gives up, and counts as a live tree till then."""
    launcher = FakeLauncher()
    launcher.starting = "hangs"
    with trio.move_on_after(5) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nursery.start, launcher.run_agent, spec_of(), Notes())
            await trio.testing.wait_all_tasks_blocked()
            assert launcher.live == 1
    assert scope.cancelled_caught
    assert launcher.live == 0


@pytest.mark.parametrize(("can_resume", "is_known"), [(False, True), (True, False)])
async def test_a_conversation_may_not_be_resumable(can_resume: bool, is_known: bool) -> None:
    """Resuming fails loudly when the agent cannot, or does not know the conversation."""
    launcher = FakeLauncher(can_resume=can_resume)
    if is_known:
        async with running(launcher, Notes()):
            pass
    with pytest.RaisesGroup(AgentNotResumable):
        async with running(launcher, Notes(), spec_of(is_resuming=True)):
            pass


@pytest.mark.virtual_time
async def test_deaths_can_be_held() -> None:
    """A killed agent is live until its death is released, even against a cancel."""
    launcher = FakeLauncher()
    launcher.hold_deaths()
    async with trio.open_nursery() as nursery:
        agent = await nursery.start(launcher.run_agent, spec_of(), Notes())
        agent.kill()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            assert launcher.live == 1
            launcher.release_deaths()
    assert launcher.live == 0


@pytest.mark.parametrize(
    ("mode", "text"),
    [("approve-all", "allow"), ("approve-reads", "reject"), ("deny-all", "reject")],
)
async def test_a_mode_answers_permissions_itself(mode: Permissions, text: str) -> None:
    """Outside mode ``ask`` nobody is asked."""
    sink = Notes()
    async with running(FakeLauncher(), sink, spec_of(mode)) as agent:
        await agent.prompt(1, "ask: edit", ())
    assert text_of(sink.events) == f"Permission: {text}"
    assert sink.permissions == []
