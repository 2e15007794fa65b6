"""Warm starts: trees that wait, the sessions that take them, and when they give way."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.testing

from clawdforge.actors.pool import PoolActor
from clawdforge.actors.session import SessionActor
from clawdforge.actors.warm import KEPT_MESSAGES, REFILL_SECS, RETRY_SECS, Relay
from clawdforge.config import CLAUDE, DEMO, built_in_agents
from clawdforge.domain.ports import Message, PermissionRequest
from clawdforge.errors import AgentNotStarted, CircuitOpen, PoolFull, SessionGone
from clawdforge.web.service import NewSession
from tests.actors.conftest import APP, OpenStage

pytestmark = pytest.mark.virtual_time


def wanting(warm: int, **fields: Any) -> dict[str, Any]:
    """Settings under which the demo agent has so many trees waiting."""
    agents = built_in_agents()
    return {"agents": {**agents, DEMO: attrs.evolve(agents[DEMO], warm=warm, **fields)}}


async def settled() -> None:
    """Let the shelf come to rest."""
    await trio.testing.wait_all_tasks_blocked()


async def test_a_session_takes_a_tree_that_waits(open_stage: OpenStage) -> None:
    """No agent is started for it, and the next one is soon on its way."""
    async with open_stage(max_live_sessions=5, **wanting(2)) as stage:
        await settled()
        waiting = {agent.spec.session_id for agent in stage.launcher.agents}
        session = await stage.open()
        assert len(waiting) == 2
        assert session in waiting
        assert (await stage.turn(session, "hello")).text == "You said: hello"
        assert len(stage.launcher.agents) == 2
        await trio.sleep(REFILL_SECS)
        await settled()
        assert [agent.exit for agent in stage.launcher.agents] == [None] * 3
        assert list(stage.store.sessions) == [session]


async def test_nothing_waits_unless_asked_for(open_stage: OpenStage) -> None:
    """By default no agent is started before there is a session."""
    async with open_stage() as stage:
        await settled()
        assert stage.launcher.agents == []


@pytest.mark.parametrize(
    "choice", [{"model": "opus"}, {"permissions": "ask"}, {"permissions": "deny-all"}]
)
async def test_another_choice_starts_cold(open_stage: OpenStage, choice: dict[str, Any]) -> None:
    """A tree that waits has the profile's model and mode; a session with others gets its own."""
    async with open_stage(**wanting(1)) as stage:
        await settled()
        [waiting] = stage.launcher.agents
        assert await stage.open(**choice) != waiting.spec.session_id
        assert stage.launcher.agents[-1].spec.permissions == choice.get(
            "permissions", "approve-reads"
        )


async def test_a_tree_that_waits_may_take_its_time(open_stage: OpenStage) -> None:
    """It is told that nobody waits for it; one that a creation waits for is not."""
    async with open_stage(**wanting(1)) as stage:
        await settled()
        await stage.open(permissions="ask")
        assert [agent.spec.is_for_later for agent in stage.launcher.agents] == [True, False]


async def test_another_agent_starts_cold(open_stage: OpenStage) -> None:
    """A tree is of one profile only."""
    async with open_stage(**wanting(1)) as stage:
        await settled()
        row = await stage.service.create_session(NewSession(app=APP, agent=CLAUDE))
        assert row.session_id != stage.launcher.agents[0].spec.session_id


async def test_a_full_house_leaves_nothing_waiting(open_stage: OpenStage) -> None:
    """What waits counts against the cap, and gives way to a session that would be refused."""
    async with open_stage(max_live_sessions=2, **wanting(2)) as stage:
        await settled()
        assert stage.launcher.live == 2
        await stage.open(model="opus")
        await settled()
        assert stage.launcher.live == 2
        await stage.open(model="opus")
        await settled()
        assert stage.launcher.live == 2
        with pytest.raises(PoolFull):
            await stage.open()


async def test_a_place_that_is_free_again_is_filled(open_stage: OpenStage) -> None:
    """When a session ends there is room for a tree to wait."""
    async with open_stage(max_live_sessions=1, **wanting(1)) as stage:
        await settled()
        session = await stage.open()
        await settled()
        assert stage.launcher.live == 1
        await stage.service.close_session(session, APP)
        await trio.sleep(REFILL_SECS)
        await settled()
        assert [agent.exit is None for agent in stage.launcher.agents] == [False, True]


async def test_a_tree_that_gave_way_leaves_no_directory(open_stage: OpenStage) -> None:
    """What was retired is discarded; what was adopted is the session's to discard."""
    async with open_stage(max_live_sessions=1, **wanting(1)) as stage:
        await settled()
        [waiting] = stage.launcher.agents
        session = await stage.open(model="opus")
        await settled()
        assert stage.launcher.discarded == [waiting.spec.session_id]
        await stage.service.close_session(session, APP)
        assert stage.launcher.discarded == [waiting.spec.session_id, session]


async def test_whoever_waits_with_a_tree_goes_with_it(open_stage: OpenStage) -> None:
    """An actor whose tree gave way or died ends, and was never a session."""
    async with open_stage(max_live_sessions=2, **wanting(2)) as stage:
        await settled()
        assert len(stage.feeds) == 2
        stage.launcher.agents[0].end("crashed")
        await stage.open(model="opus")
        await settled()
        assert len(stage.feeds) == 2
        await stage.open(model="opus")
        await settled()
        assert len(stage.feeds) == 2
        assert len(stage.store.audit) == 2


async def test_a_tree_whose_actor_crashed_gets_another(
    open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The creation that takes it is answered all the same."""

    async def crash(_self: SessionActor) -> None:
        raise RuntimeError

    async with open_stage(**wanting(1)) as stage:
        with monkeypatch.context() as patch:
            patch.setattr(SessionActor, "_read_mailbox", crash)
            await settled()
        session = await stage.open()
        assert session == stage.launcher.agents[0].spec.session_id
        assert (await stage.turn(session, "hello")).ending == "completed"


async def test_a_pool_that_crashed_has_trees_again(
    open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that waited died with it; new ones wait, and are taken."""

    def crash(*_: object) -> None:
        raise RuntimeError

    async with open_stage(**wanting(2)) as stage:
        await settled()
        with monkeypatch.context() as patch:
            patch.setattr(PoolActor, "_open", crash)
            with pytest.raises(SessionGone):
                await stage.open()
        await trio.sleep(REFILL_SECS)
        await settled()
        assert [agent.exit is None for agent in stage.launcher.agents] == [False] * 2 + [True] * 2
        assert await stage.open() in {agent.spec.session_id for agent in stage.launcher.agents[2:]}


async def test_an_adopted_tree_dies_with_its_session(open_stage: OpenStage) -> None:
    """The close is answered when the tree is dead, whoever had started it."""
    async with open_stage(**wanting(1)) as stage:
        await settled()
        session = await stage.open()
        stage.launcher.hold_deaths()
        closing = stage.ask(lambda: stage.service.close_session(session, APP))
        await settled()
        assert not closing.done.is_set()
        stage.launcher.release_deaths()
        await closing.done.wait()
        assert stage.launcher.agents[0].exit is not None


async def test_an_adopted_tree_that_is_killed_is_followed_by_a_cold_one(
    open_stage: OpenStage,
) -> None:
    """After a kill the conversation is taken up in a tree of the session's own."""
    async with open_stage(**wanting(1)) as stage:
        await settled()
        session = await stage.open()
        stage.launcher.is_deaf = True
        assert (await stage.turn(session, "sleep: 600", within=5)).ending == "timed_out"
        stage.launcher.is_deaf = False
        assert (await stage.turn(session, "hello")).ending == "completed"
        again = stage.launcher.agents[-1].spec
        assert (again.session_id, again.is_resuming) == (session, True)


async def test_old_trees_are_replaced(open_stage: OpenStage) -> None:
    """A tree that has waited as long as a session may idle is retired, and another one started."""
    async with open_stage(session_ttl_secs=100, **wanting(1)) as stage:
        await settled()
        await trio.sleep(99)
        assert stage.launcher.agents[0].exit is None
        await trio.sleep(2)
        await settled()
        assert [agent.exit is None for agent in stage.launcher.agents] == [False, True]


async def test_a_tree_that_dies_waiting_is_replaced_later(open_stage: OpenStage) -> None:
    """Not at once, so that an agent which cannot live is no storm of starts."""
    async with open_stage(**wanting(1)) as stage:
        await settled()
        stage.launcher.agents[0].end("crashed")
        await settled()
        assert len(stage.launcher.agents) == 1
        await trio.sleep(RETRY_SECS + 1)
        assert len(stage.launcher.agents) == 2


async def test_starts_that_fail_leave_the_agent_alone(open_stage: OpenStage) -> None:
    """The circuit counts warm starts like others; creations are told why."""
    async with open_stage(circuit_failures=2, circuit_secs=60, **wanting(1)) as stage:
        stage.launcher.starting = "fails"
        await trio.sleep(30)
        with pytest.raises(CircuitOpen):
            await stage.open()
        stage.launcher.starting = "works"
        await trio.sleep(120)
        await stage.open()
        await trio.sleep(REFILL_SECS)
        await settled()
        assert stage.launcher.live == 2


async def test_a_start_that_hangs_gives_way(open_stage: OpenStage) -> None:
    """A tree on its way counts, and is called off when its place is wanted."""
    async with open_stage(max_live_sessions=1, start_secs=60, **wanting(1)) as stage:
        stage.launcher.starting = "hangs"
        await settled()
        stage.launcher.starting = "works"
        began = trio.current_time()
        await stage.open(model="opus")
        assert trio.current_time() - began < 60


async def test_a_creation_whose_caller_left_takes_its_tree_along(open_stage: OpenStage) -> None:
    """Nothing of an abandoned creation goes back to the shelf."""
    async with open_stage(max_live_sessions=2, **wanting(1)) as stage:
        await settled()
        asked = stage.ask(stage.open)
        asked.hang_up()
        await trio.sleep(REFILL_SECS)
        await settled()
        assert stage.launcher.live == 1
        assert stage.service.open_sessions == 0


async def test_draining_fills_nothing(open_stage: OpenStage) -> None:
    """A server that ends starts nothing for sessions to come."""
    async with open_stage(max_live_sessions=1, **wanting(1)) as stage:
        await settled()
        session = await stage.open()
        stage.service.start_drain()
        await stage.service.close_session(session, APP)
        await settled()
        assert stage.launcher.live == 0


class Heard:
    """A sink that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def on_event(self, message: Message, wire: bytes) -> None:
        self.heard.append(message)

    def on_skipped(self, count: int) -> None:
        self.heard.append(count)

    def on_permission(self, request: PermissionRequest) -> None:
        self.heard.append(request)


async def test_what_was_said_while_waiting_is_passed_on_first() -> None:
    """A session hears what its agent said before it, in order."""
    relay, heard = Relay(pytest.fail), Heard()
    relay.on_event({"n": 1}, b"1")
    relay.on_skipped(3)
    relay.point(heard)
    relay.on_event({"n": 2}, b"2")
    relay.on_skipped(1)
    relay.on_permission(PermissionRequest("r", {}, ()))
    assert heard.heard == [{"n": 1}, {"n": 2}, 1, PermissionRequest("r", {}, ())]


async def test_an_agent_that_works_unasked_is_not_waiting() -> None:
    """More words than a handshake needs, or a question, make a tree unfit."""
    unfit: list[int] = []
    relay = Relay(lambda: unfit.append(1))
    for _ in range(KEPT_MESSAGES):
        relay.on_event({}, b"{}")
    assert unfit == []
    relay.on_event({}, b"{}")
    relay.on_permission(PermissionRequest("r", {}, ()))
    assert unfit == [1, 1]


async def test_an_unfit_tree_is_replaced(open_stage: OpenStage) -> None:
    """A tree that talks while it should wait is killed, and nobody gets it."""
    async with open_stage(**wanting(1)) as stage:
        await settled()
        [talker] = stage.launcher.agents
        for number in range(KEPT_MESSAGES + 1):
            talker.update({"sessionUpdate": "agent_message_chunk", "n": number})
        await settled()
        assert talker.exit is not None
        assert await stage.open() != talker.spec.session_id


async def test_a_warm_start_counts_no_failed_creation(open_stage: OpenStage) -> None:
    """A creation while warm starts fail is refused in its own name."""
    async with open_stage(circuit_failures=10, **wanting(1)) as stage:
        stage.launcher.starting = "fails"
        await settled()
        with pytest.raises(AgentNotStarted):
            await stage.open()
