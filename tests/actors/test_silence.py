"""Silence: an agent that says nothing is stopped long before its deadline, for its own reason."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from clawdforge.errors import AgentFellSilent, AgentNeverSpoke
from tests.actors.conftest import OpenStage

pytestmark = pytest.mark.virtual_time


async def test_an_agent_that_never_speaks_is_stopped(open_stage: OpenStage) -> None:
    """After first_output_secs, with the limit in the error."""
    async with open_stage() as stage:
        session = await stage.open()
        result = await stage.turn(session, "sleep: 500", first_output_secs=30, silence_secs=3)
        assert (result.ending, result.stop_reason) == ("timed_out", "never_spoke")
        assert isinstance(result.error, AgentNeverSpoke)
        assert (result.error.limit_secs, result.duration_ms) == (30, 30_000)
        assert stage.launcher.agents[0].cancels == [1]


async def test_an_agent_that_falls_silent_is_stopped(open_stage: OpenStage) -> None:
    """After silence_secs without a word, counted from the last one."""
    async with open_stage() as stage:
        session = await stage.open()
        prompt = "say: a\nsleep: 8\nsay: b\nsleep: 500"
        result = await stage.turn(session, prompt, silence_secs=10)
        assert (result.stop_reason, result.duration_ms) == ("fell_silent", 18_000)
        assert isinstance(result.error, AgentFellSilent)
        assert result.text == "ab"


async def test_without_limits_silence_is_no_fault(open_stage: OpenStage) -> None:
    """Off is the default; the deadline alone counts."""
    async with open_stage() as stage:
        session = await stage.open()
        assert (await stage.turn(session, "sleep: 500")).ending == "completed"


async def test_news_of_the_session_are_no_output(open_stage: OpenStage) -> None:
    """An agent that lists its commands has not begun to answer."""
    async with open_stage() as stage:
        session = await stage.open()
        asked = await stage.ask_turn(session, "sleep: 500", first_output_secs=30)
        await trio.sleep(20)
        stage.launcher.agents[0].update({"sessionUpdate": "available_commands_update"})
        await asked.done.wait()
        assert (asked.answer.stop_reason, asked.answer.duration_ms) == ("never_spoke", 30_000)


async def test_waiting_in_line_is_not_the_agent_s_silence(open_stage: OpenStage) -> None:
    """The clock starts when the agent is asked."""
    async with open_stage() as stage:
        session = await stage.open()
        await stage.ask_turn(session, "sleep: 100")
        assert (await stage.turn(session, "hello", first_output_secs=5)).ending == "completed"


async def test_the_clock_rests_while_a_person_decides(open_stage: OpenStage) -> None:
    """A permission request that waits is nobody's silence; afterwards the clock starts again."""
    async with open_stage(permission_secs=100) as stage:
        session = await stage.open(permissions="ask")
        prompt = "ask: may I?\nsleep: 500"
        result = await stage.turn(session, prompt, silence_secs=10)
        assert "reject" in result.text
        assert (result.stop_reason, result.duration_ms) == ("fell_silent", 110_000)


async def test_a_deaf_and_silent_agent_is_killed(open_stage: OpenStage) -> None:
    """Silence climbs the same ladder as every other cause."""
    async with open_stage(cancel_grace_secs=5) as stage:
        session = await stage.open()
        stage.launcher.is_deaf = True
        result = await stage.turn(session, "sleep: 500", first_output_secs=30)
        assert (result.stop_reason, result.duration_ms) == ("never_spoke", 35_000)
        assert stage.launcher.agents[0].kills == 1


async def test_an_agent_found_dead_gets_its_whole_time_when_it_is_asked_anew(
    open_stage: OpenStage,
) -> None:
    """Each asking has a clock of its own."""
    async with open_stage() as stage:
        session = await stage.open()
        await stage.turn(session, "apples")
        stage.launcher.hold_deaths()
        stage.launcher.agents[0].end("out of memory")
        asked = await stage.ask_turn(session, "recall:", first_output_secs=5)
        stage.launcher.release_deaths()
        await asked.done.wait()
        assert asked.answer.ending == "completed"
