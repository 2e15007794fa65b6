"""Cancelling: a named turn and no other, a receipt that is true, and nothing of the turn left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from clawdforge.domain.ids import SessionId
from clawdforge.domain.turns import CancelReceipt, TurnTarget
from clawdforge.errors import SessionNotFound, StoreUnavailable, TurnNotFound
from clawdforge.testing.fake_launcher import FakeAgent
from tests.actors.conftest import APP, Asked, OpenStage, Stage

pytestmark = pytest.mark.virtual_time

AT_WORK = TurnTarget()


async def cancel(stage: Stage, session: SessionId, target: TurnTarget = AT_WORK) -> CancelReceipt:
    """One cancel, answered."""
    return await stage.service.cancel_turn(session, APP, target)


async def answered(asked: Asked) -> str:
    """The stop reason that a turn's own caller got."""
    await asked.done.wait()
    assert asked.error is None
    reason: str = asked.answer.stop_reason
    return reason


async def test_a_cancel_is_answered_when_the_turn_is_over(open_stage: OpenStage) -> None:
    """The turn's own caller gets a cancelled turn with its events so far; the agent lives on."""
    async with open_stage() as stage:
        session = await stage.open()
        asked = await stage.ask_turn(session, "say: so far\nsleep: 500")
        receipt = await cancel(stage, session)
        assert receipt == CancelReceipt(True, 1, "agent", 0)
        assert [end and end.ending for end in stage.ends(session)] == ["cancelled"]
        assert await answered(asked) == "cancelled"
        assert asked.answer.text == "so far"
        assert (await stage.turn(session, "recall:")).ending == "completed"
        assert stage.launcher.agents[0].kills == 0


async def test_a_deaf_agent_is_killed_and_the_receipt_says_so(open_stage: OpenStage) -> None:
    """After the grace, not before; the next turn remembers the conversation."""
    async with open_stage(cancel_grace_secs=5) as stage:
        session = await stage.open()
        await stage.turn(session, "apples")
        stage.launcher.is_deaf = True
        asked = await stage.ask_turn(session, "sleep: 500")
        receipt = await cancel(stage, session)
        assert (receipt.how, receipt.took_ms) == ("killed", 5000)
        assert await answered(asked) == "cancelled"
        assert "apples" in (await stage.turn(session, "recall:")).text


async def test_a_turn_that_never_reached_its_agent_was_not_started(
    open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while its files are being linked: nothing is given, waited for or killed."""
    prompt = FakeAgent.prompt

    async def link_first(agent: FakeAgent, index: int, text: str, files: Sequence[Path]) -> str:
        await trio.sleep(60)
        return await prompt(agent, index, text, files)

    async with open_stage(cancel_grace_secs=5) as stage:
        session = await stage.open()
        monkeypatch.setattr(FakeAgent, "prompt", link_first)
        asked = await stage.ask_turn(session, "hello")
        assert await cancel(stage, session) == CancelReceipt(True, 1, "not_started", 0)
        assert await answered(asked) == "cancelled"
        monkeypatch.undo()
        assert (await stage.turn(session, "recall")).ending == "completed"
        (agent,) = stage.launcher.agents
        assert ([seen.text for seen in agent.prompts], agent.kills) == (["recall"], 0)


async def test_cancelling_an_idle_session_does_nothing(open_stage: OpenStage) -> None:
    """The next turn is not poisoned by it."""
    async with open_stage() as stage:
        session = await stage.open()
        assert await cancel(stage, session) == CancelReceipt(False, None, "idle", 0)
        assert (await stage.turn(session, "hello")).ending == "completed"
        assert stage.launcher.agents[0].cancels == []


async def test_a_waiting_turn_is_cancelled_by_its_name(open_stage: OpenStage) -> None:
    """It never starts; the turn at work and the one behind it are not touched."""
    async with open_stage() as stage:
        session = await stage.open()
        first = await stage.ask_turn(session, "sleep: 5")
        second = await stage.ask_turn(session, "never")
        third = await stage.ask_turn(session, "third")
        receipt = await cancel(stage, session, TurnTarget(turn_index=2))
        assert receipt == CancelReceipt(True, 2, "not_started", 0)
        assert await answered(second) == "cancelled"
        assert (await answered(first), await answered(third)) == ("end_turn", "end_turn")
        assert [seen.text for seen in stage.launcher.agents[0].prompts] == ["sleep: 5", "third"]


async def test_without_a_name_the_queue_is_left_alone(open_stage: OpenStage) -> None:
    """Only the turn at work on arrival is hit."""
    async with open_stage() as stage:
        session = await stage.open()
        first = await stage.ask_turn(session, "sleep: 500")
        second = await stage.ask_turn(session, "second")
        assert (await cancel(stage, session)).turn_index == 1
        assert (await answered(first), await answered(second)) == ("cancelled", "end_turn")


async def test_a_finished_turn_is_not_cancelled(open_stage: OpenStage) -> None:
    """The receipt says so, and the turn at work is not hit in its place."""
    async with open_stage() as stage:
        session = await stage.open()
        await stage.turn(session, "one")
        working = await stage.ask_turn(session, "sleep: 5")
        receipt = await cancel(stage, session, TurnTarget(turn_index=1))
        assert (receipt.is_cancelled, receipt.turn_index, receipt.how) == (False, 1, "idle")
        assert await answered(working) == "end_turn"


@pytest.mark.parametrize("target", [TurnTarget(turn_index=7), TurnTarget(key_name="nobody's")])
async def test_a_name_that_stands_for_no_turn_is_not_found(
    open_stage: OpenStage, target: TurnTarget
) -> None:
    """Neither a receipt nor a cancel of something else."""
    async with open_stage() as stage:
        session = await stage.open()
        working = await stage.ask_turn(session, "sleep: 5")
        with pytest.raises(TurnNotFound):
            await cancel(stage, session, target)
        assert await answered(working) == "end_turn"


async def test_a_session_that_is_closed_or_another_s(open_stage: OpenStage) -> None:
    """Closed, it has nothing to cancel; another app's is not there."""
    async with open_stage() as stage:
        session = await stage.open()
        await stage.turn(session, "one")
        await stage.service.close_session(session, APP)
        assert (await cancel(stage, session)).how == "idle"
        assert (await cancel(stage, session, TurnTarget(turn_index=1))).turn_index == 1
        with pytest.raises(SessionNotFound):
            await stage.service.cancel_turn(SessionId("x" * 32), APP, AT_WORK)


async def test_two_cancels_at_once_both_get_a_true_receipt(open_stage: OpenStage) -> None:
    """The agent is told once."""
    async with open_stage() as stage:
        session = await stage.open()
        asked = await stage.ask_turn(session, "sleep: 500")
        cancels = [stage.ask(lambda: cancel(stage, session)) for _ in range(2)]
        for each in cancels:
            await each.done.wait()
            assert (each.answer.is_cancelled, each.answer.how) == (True, "agent")
        assert await answered(asked) == "cancelled"
        assert stage.launcher.agents[0].cancels == [1]


async def test_a_turn_is_cancelled_while_its_agent_starts(open_stage: OpenStage) -> None:
    """Nothing was asked, and the half-started agent is gone."""
    async with open_stage() as stage:
        session = await stage.open()
        await stage.turn(session, "apples")
        stage.launcher.agents[0].end("out of memory")
        stage.launcher.starting = "hangs"
        asked = await stage.ask_turn(session, "hello")
        assert (await cancel(stage, session)).how == "not_started"
        assert await answered(asked) == "cancelled"
        assert stage.launcher.live == 0
        stage.launcher.starting = "works"
        assert "apples" in (await stage.turn(session, "recall:")).text


async def test_a_cancel_that_comes_too_late_says_that_it_did_nothing(
    open_stage: OpenStage,
) -> None:
    """An agent that finishes its work all the same has completed the turn."""
    async with open_stage(cancel_grace_secs=5) as stage:
        session = await stage.open()
        stage.launcher.is_deaf = True
        asked = await stage.ask_turn(session, "sleep: 2")
        receipt = await cancel(stage, session)
        assert (receipt.is_cancelled, receipt.how) == (False, "idle")
        assert await answered(asked) == "end_turn"


async def test_a_cancel_leaves_no_doubt_when_the_ledger_does(open_stage: OpenStage) -> None:
    """Without a written ending there is no receipt."""
    async with open_stage() as stage:
        session = await stage.open()
        await stage.ask_turn(session, "sleep: 500")
        asked = stage.ask(lambda: cancel(stage, session))
        with trio.CancelScope():
            stage.store.unavailable = "disk full"
            await asked.done.wait()
        assert isinstance(asked.error, StoreUnavailable)
        stage.store.unavailable = None


async def test_open_tool_calls_of_a_cancelled_turn_end_as_cancelled(
    open_stage: OpenStage,
) -> None:
    """In the answer and in the record; one that had completed is not among them."""
    async with open_stage() as stage:
        session = await stage.open()
        asked = await stage.ask_turn(session, "tool: done before\nsleep: 500")
        agent = stage.launcher.agents[0]
        agent.update({"sessionUpdate": "tool_call", "toolCallId": "open", "title": "Search"})
        agent.update({"sessionUpdate": "tool_call_update", "toolCallId": "open", "title": "S"})
        await cancel(stage, session)
        await asked.done.wait()
        assert asked.answer.cancelled_tool_calls == ("open",)
        (end,) = stage.ends(session)
        assert end is not None
        assert end.facts["cancelled_tool_calls"] == ["open"]


async def test_tool_calls_of_a_turn_that_ended_by_itself_are_the_agent_s_affair(
    open_stage: OpenStage,
) -> None:
    """Nothing is said of them that the agent did not say."""
    async with open_stage() as stage:
        session = await stage.open()
        asked = await stage.ask_turn(session, "sleep: 5")
        update = {"sessionUpdate": "tool_call", "toolCallId": "open", "title": "Search"}
        stage.launcher.agents[0].update(update)
        await asked.done.wait()
        assert asked.answer.cancelled_tool_calls == ()


async def test_closing_gives_a_cancel_its_receipt(open_stage: OpenStage) -> None:
    """A cancel that waits while the session is closed is answered, and truly."""
    async with open_stage(cancel_grace_secs=5) as stage:
        session = await stage.open()
        stage.launcher.is_deaf = True
        await stage.ask_turn(session, "sleep: 500")
        cancelling = stage.ask(lambda: cancel(stage, session))
        await trio.testing.wait_all_tasks_blocked()
        await stage.service.close_session(session, APP)
        await cancelling.done.wait()
        assert (cancelling.answer.is_cancelled, cancelling.answer.how) == (True, "killed")
