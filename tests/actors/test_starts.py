"""Starting agents: the circuit, the places and the memory, on the real tree in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from clawdforge.actors.starts import SESSION_BYTES, Starts
from clawdforge.config import DEMO, Config
from clawdforge.errors import (
    AgentNotStarted,
    CircuitOpen,
    MachineFull,
    TooManyStarts,
)
from tests.actors.conftest import OpenStage, Stage

pytestmark = pytest.mark.virtual_time

RULE: dict[str, Any] = {"circuit_failures": 3, "circuit_secs": 60}


async def fail_to_open(stage: Stage, times: int) -> None:
    """Open sessions while no agent starts."""
    stage.launcher.starting = "fails"
    for _ in range(times):
        with pytest.raises(AgentNotStarted):
            await stage.open()


async def test_an_agent_that_keeps_failing_is_left_alone(open_stage: OpenStage) -> None:
    """The third failure opens the circuit: refused at once, with the wait and the last reason."""
    async with open_stage(**RULE) as stage:
        await fail_to_open(stage, 3)
        rows, audit = len(stage.store.sessions), len(stage.store.audit)
        with pytest.raises(CircuitOpen, match="told to fail") as caught:
            await stage.open()
        assert caught.value.retry_after_secs == 60
        assert (len(stage.store.sessions), len(stage.store.audit)) == (rows, audit)
        assert stage.service.resting_agents == {DEMO}
        await trio.sleep(59)
        with pytest.raises(CircuitOpen) as caught:
            await stage.open()
        assert caught.value.retry_after_secs == 1


async def test_one_probe_decides(open_stage: OpenStage) -> None:
    """After the wait one creation of many tries; its success lets all the others in again."""
    async with open_stage(**RULE) as stage:
        await fail_to_open(stage, 3)
        await trio.sleep(60)
        assert stage.service.resting_agents == frozenset()
        stage.launcher.starting = "hangs"
        probe = stage.ask(stage.open)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CircuitOpen):
            await stage.open()
        await probe.done.wait()
        assert isinstance(probe.error, AgentNotStarted)  # no handshake in time: open again
        with pytest.raises(CircuitOpen):
            await stage.open()
        await trio.sleep(60)
        stage.launcher.starting = "works"
        await stage.open()
        await stage.open()


async def test_a_probe_whose_caller_leaves_makes_room_for_the_next(open_stage: OpenStage) -> None:
    """Leaving is no verdict: neither is the agent blamed, nor is the circuit stuck."""
    async with open_stage(**RULE) as stage:
        await fail_to_open(stage, 3)
        await trio.sleep(60)
        stage.launcher.starting = "hangs"
        probe = stage.ask(stage.open)
        await trio.testing.wait_all_tasks_blocked()
        probe.hang_up()
        await trio.testing.wait_all_tasks_blocked()
        stage.launcher.starting = "works"
        await stage.open()


async def test_what_is_not_the_agents_fault_is_not_counted(open_stage: OpenStage) -> None:
    """Callers that hang up and a full pool never open the circuit."""
    async with open_stage(**RULE, max_live_sessions=1) as stage:
        stage.launcher.starting = "hangs"
        for _ in range(5):
            asked = stage.ask(stage.open)
            await trio.testing.wait_all_tasks_blocked()
            asked.hang_up()
            await trio.testing.wait_all_tasks_blocked()
        assert stage.service.resting_agents == frozenset()
        stage.launcher.starting = "works"
        await stage.open()


async def test_sleeping_and_bereft_sessions_obey_it_too(open_stage: OpenStage) -> None:
    """No turn starts an agent while the circuit is open; the session stays, and answers later."""
    async with open_stage(**RULE) as stage:
        bereft, sleeping = await stage.open(), await stage.open()
        await stage.turn(bereft, "apples")
        await stage.turn(sleeping, "pears")
        stage.launcher.agents[0].end("exit code 9")
        stage.tree.pool._sessions[sleeping]._nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await fail_to_open(stage, 3)
        for session in (bereft, sleeping):
            with pytest.raises(CircuitOpen):
                await stage.turn(session, "recall:")
            assert stage.row(session).turn_count == 1
        await trio.sleep(60)
        stage.launcher.starting = "works"
        assert "apples" in (await stage.turn(bereft, "recall:")).text
        assert "pears" in (await stage.turn(sleeping, "recall:")).text


async def test_starts_wait_for_their_place(open_stage: OpenStage) -> None:
    """One at a time here; who waits for too long was never tried, and the agent is not blamed."""
    async with open_stage(**RULE, start_concurrency=1, start_secs=10) as stage:
        stage.launcher.starting = "hangs"
        asked = [stage.ask(stage.open) for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        assert stage.launcher.live == 1
        for each in asked:
            await each.done.wait()
        kinds = sorted(type(each.error).__name__ for each in asked)
        assert kinds.count(TooManyStarts.__name__) >= 1
        assert stage.service.resting_agents == frozenset()
        assert stage.service.open_sessions == 0


async def test_no_memory_no_agent(open_stage: OpenStage) -> None:
    """With too little left a creation is refused before anything is started."""
    left = [SESSION_BYTES]
    starts = Starts(Config(), spare_memory=lambda: left[0])
    async with open_stage(starts=starts) as stage:
        await stage.open()
        left[0] -= 1
        with pytest.raises(MachineFull, match="memory") as caught:
            await stage.open()
        assert caught.value.retry_after_secs > 0
        assert stage.launcher.live == 1
