"""The session actor: turns in line, one ending each, and one clean-up for every end."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing

from clawdforge.actors.permissions import PermissionDesk
from clawdforge.domain.ids import AppName, SessionId
from clawdforge.domain.ports import Ending
from clawdforge.errors import (
    AgentExited,
    AgentMisbehaved,
    AgentNotResumable,
    AgentNotStarted,
    AgentTimedOut,
    SessionBusy,
    SessionClosed,
    StoreUnavailable,
)
from clawdforge.protocol.menus import Choice, Menu, Menus
from clawdforge.store.memory import MemoryStore
from tests.actors.conftest import OpenStage, Stage

pytestmark = pytest.mark.virtual_time


def endings(stage: Stage, session: SessionId) -> list[Ending | None]:
    """How each turn ended, in order."""
    return [None if end is None else end.ending for end in stage.ends(session)]


async def test_a_turn_answers_with_what_the_agent_said(open_stage: OpenStage) -> None:
    """Text, stop reason, index and events come back; the ledger has the ending."""
    async with open_stage() as stage:
        session = await stage.open()
        result = await stage.turn(session, "hello")
        assert (result.turn_index, result.ending, result.stop_reason) == (
            1,
            "completed",
            "end_turn",
        )
        assert result.text == "You said: hello"
        assert json.loads(result.events)[-1]["result"] == {"stopReason": "end_turn"}
        assert endings(stage, session) == ["completed"]
        assert stage.row(session).turn_count == 1


async def test_a_second_turn_recalls_the_first(open_stage: OpenStage) -> None:
    """One agent serves all turns of its session."""
    async with open_stage() as stage:
        session = await stage.open()
        await stage.turn(session, "apples")
        assert "apples" in (await stage.turn(session, "recall:")).text
        assert len(stage.launcher.agents) == 1


async def test_turns_of_one_session_run_one_by_one_in_order(open_stage: OpenStage) -> None:
    """Indices are given on admission, and the agent sees one prompt at a time."""
    async with open_stage() as stage:
        session = await stage.open()
        stage.launcher.hold_turns()
        asked = [await stage.ask_turn(session, f"turn {n}") for n in (1, 2, 3)]
        (agent,) = stage.launcher.agents
        assert [seen.turn_index for seen in agent.prompts] == [1]
        stage.launcher.release_turns()
        for each in asked:
            await each.done.wait()
        assert [seen.turn_index for seen in agent.prompts] == [1, 2, 3]
        assert [each.answer.turn_index for each in asked] == [1, 2, 3]


async def test_more_turns_than_may_wait_are_refused_with_the_limit(open_stage: OpenStage) -> None:
    """One works, two wait, the fourth is SessionBusy and takes no index."""
    async with open_stage() as stage:
        session = await stage.open()
        stage.launcher.hold_turns()
        asked = [await stage.ask_turn(session, "x") for _ in range(3)]
        with pytest.raises(SessionBusy) as caught:
            await stage.turn(session, "one too many")
        assert caught.value.limit == 2
        stage.launcher.release_turns()
        for each in asked:
            await each.done.wait()
        assert (await stage.turn(session, "x")).turn_index == 4


async def test_a_caller_that_hangs_up_has_its_turn_cancelled(open_stage: OpenStage) -> None:
    """The agent is told, the ending is written, and the next turn runs on the same agent."""
    async with open_stage() as stage:
        session = await stage.open()
        asked = await stage.ask_turn(session, "sleep: 500")
        asked.hang_up()
        await trio.testing.wait_all_tasks_blocked()
        (agent,) = stage.launcher.agents
        assert (agent.cancels, agent.kills) == ([1], 0)
        assert endings(stage, session) == ["cancelled"]
        (end,) = stage.ends(session)
        assert end is not None
        assert end.detail == "caller_gone"
        assert (await stage.turn(session, "hello")).ending == "completed"


async def test_a_waiting_turn_whose_caller_leaves_never_starts(open_stage: OpenStage) -> None:
    """It is ended as cancelled, the agent never hears of it, and the line goes on."""
    async with open_stage() as stage:
        session = await stage.open()
        stage.launcher.hold_turns()
        first = await stage.ask_turn(session, "first")
        waiting = await stage.ask_turn(session, "never")
        third = await stage.ask_turn(session, "third")
        waiting.hang_up()
        await trio.testing.wait_all_tasks_blocked()
        stage.launcher.release_turns()
        await first.done.wait()
        await third.done.wait()
        assert [seen.text for seen in stage.launcher.agents[0].prompts] == ["first", "third"]
        assert endings(stage, session) == ["completed", "cancelled", "completed"]


async def test_a_deaf_agent_is_killed_after_the_grace_and_resumes(open_stage: OpenStage) -> None:
    """The tree is dead when the grace is over; the next turn remembers the conversation."""
    async with open_stage(cancel_grace_secs=5) as stage:
        session = await stage.open()
        await stage.turn(session, "apples")
        stage.launcher.is_deaf = True
        asked = await stage.ask_turn(session, "sleep: 500")
        began = trio.current_time()
        asked.hang_up()
        after = await stage.turn(session, "recall:")
        assert trio.current_time() - began == pytest.approx(5, abs=0.1)
        assert stage.launcher.agents[0].kills == 1
        assert "apples" in after.text
        assert endings(stage, session) == ["completed", "cancelled", "completed"]


async def test_a_killed_agent_that_cannot_resume_closes_the_session(open_stage: OpenStage) -> None:
    """The next turn is SessionClosed, saying so; no new conversation is faked."""
    async with open_stage(can_resume=False) as stage:
        session = await stage.open()
        stage.launcher.is_deaf = True
        asked = await stage.ask_turn(session, "sleep: 500")
        asked.hang_up()
        await trio.sleep(60)
        with pytest.raises(SessionClosed) as caught:
            await stage.turn(session, "hello?")
        assert caught.value.cause == "not_resumable"
        assert stage.audit(session) == [("create", None), ("close", "not_resumable")]


async def test_a_turn_past_its_deadline_is_timed_out(open_stage: OpenStage) -> None:
    """The agent is told to stop, and the answer names the limit."""
    async with open_stage() as stage:
        session = await stage.open()
        result = await stage.turn(session, "sleep: 500", within=10)
        assert (result.ending, result.stop_reason) == ("timed_out", "timeout")
        assert isinstance(result.error, AgentTimedOut)
        assert result.error.timeout_secs == 10
        assert result.duration_ms == 10_000
        assert stage.launcher.agents[0].cancels == [1]


async def test_the_deadline_covers_waiting_in_line(open_stage: OpenStage) -> None:
    """A turn that never got its place is timed out all the same."""
    async with open_stage() as stage:
        session = await stage.open()
        working = await stage.ask_turn(session, "sleep: 100")
        result = await stage.turn(session, "late", within=10)
        assert (result.ending, result.duration_ms) == ("timed_out", 10_000)
        await working.done.wait()
        assert [seen.turn_index for seen in stage.launcher.agents[0].prompts] == [1]


async def test_an_agent_that_fails_a_turn_lives_on(open_stage: OpenStage) -> None:
    """The agent's own error is the turn's ending; the session takes the next turn."""
    async with open_stage() as stage:
        session = await stage.open()
        result = await stage.turn(session, "fail: no tokens left")
        assert result.ending == "failed"
        assert isinstance(result.error, AgentMisbehaved)
        assert (await stage.turn(session, "hello")).ending == "completed"
        assert len(stage.launcher.agents) == 1


async def test_an_agent_that_dies_fails_its_turn_at_once(open_stage: OpenStage) -> None:
    """Nobody waits for a dead agent, and the next turn has a new one that remembers."""
    async with open_stage() as stage:
        session = await stage.open()
        await stage.turn(session, "apples")
        result = await stage.turn(session, "crash: 3")
        assert result.ending == "failed"
        assert isinstance(result.error, AgentExited)
        assert result.duration_ms == 0
        assert "apples" in (await stage.turn(session, "recall:")).text
        assert len(stage.launcher.agents) == 2


async def test_an_agent_found_dead_is_replaced_before_it_is_asked(open_stage: OpenStage) -> None:
    """It died unnoticed since the last turn: the prompt never got out, so the turn goes on."""
    async with open_stage() as stage:
        session = await stage.open()
        await stage.turn(session, "apples")
        stage.launcher.hold_deaths()
        stage.launcher.agents[0].end("out of memory")
        asked = await stage.ask_turn(session, "recall:")
        stage.launcher.release_deaths()
        await asked.done.wait()
        assert "apples" in asked.answer.text
        assert [len(agent.prompts) for agent in stage.launcher.agents] == [1, 1]


async def test_a_conversation_that_is_lost_is_said_to_be_lost(open_stage: OpenStage) -> None:
    """The turn that finds out fails, and the session is closed for that reason."""
    async with open_stage() as stage:
        session = await stage.open()
        await stage.turn(session, "apples")
        stage.launcher.agents[0].end("out of memory")
        stage.launcher.conversations.clear()
        result = await stage.turn(session, "recall:")
        assert isinstance(result.error, AgentNotResumable)
        with pytest.raises(SessionClosed, match="not_resumable"):
            await stage.turn(session, "hello?")


async def test_an_agent_lost_before_any_turn_is_simply_started_anew(open_stage: OpenStage) -> None:
    """There is no conversation yet that could be lost."""
    async with open_stage(can_resume=False) as stage:
        session = await stage.open()
        stage.launcher.agents[0].end("out of memory")
        await trio.testing.wait_all_tasks_blocked()
        assert (await stage.turn(session, "hello")).ending == "completed"


async def test_closing_during_a_turn_cancels_it_first(open_stage: OpenStage) -> None:
    """The turn's caller gets a cancelled turn, the closer a closed session."""
    async with open_stage() as stage:
        session = await stage.open()
        asked = await stage.ask_turn(session, "sleep: 500")
        assert await stage.service.close_session(session, AppName("kitchen")) is True
        await asked.done.wait()
        assert asked.answer.stop_reason == "cancelled"
        assert stage.launcher.live == 0
        assert stage.service.open_sessions == 0
        assert stage.row(session).closed_at == stage.wall.seconds
        assert stage.audit(session) == [("create", None), ("close", "caller")]
        assert stage.launcher.discarded == [session]


async def test_two_who_close_at_once_are_both_answered(open_stage: OpenStage) -> None:
    """One close is written; neither asker hangs."""
    async with open_stage() as stage:
        session = await stage.open()
        asked = [
            stage.ask(lambda: stage.service.close_session(session, AppName("kitchen")))
            for _ in range(2)
        ]
        for each in asked:
            await each.done.wait()
            assert each.error is None
        assert stage.audit(session).count(("close", "caller")) == 1


async def test_a_turn_that_arrives_while_closing_is_refused(open_stage: OpenStage) -> None:
    """A session on its way out takes nothing new."""
    async with open_stage() as stage:
        session = await stage.open()
        stage.launcher.is_deaf = True
        await stage.ask_turn(session, "sleep: 500")
        stage.ask(lambda: stage.service.close_session(session, AppName("kitchen")))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(SessionClosed):
            await stage.turn(session, "hello?")


async def test_an_agent_that_does_not_start_leaves_nothing(open_stage: OpenStage) -> None:
    """No row, no slot, no process; the error says why."""
    async with open_stage(max_live_sessions=1) as stage:
        stage.launcher.starting = "fails"
        with pytest.raises(AgentNotStarted, match="told to fail"):
            await stage.open()
        assert (stage.store.sessions, stage.service.open_sessions) == ({}, 0)
        stage.launcher.starting = "works"
        await stage.open()


async def test_a_handshake_that_never_comes_is_given_up(open_stage: OpenStage) -> None:
    """Starting is bounded by start_secs."""
    async with open_stage(start_secs=7) as stage:
        stage.launcher.starting = "hangs"
        with pytest.raises(AgentNotStarted, match="no handshake within 7 s"):
            await stage.open()
        assert trio.current_time() >= 7
        assert (stage.launcher.live, stage.service.open_sessions) == (0, 0)


async def test_hanging_up_on_a_creation_undoes_it(open_stage: OpenStage) -> None:
    """Process, slot and row are gone; the audit has create, then close: caller_gone."""
    async with open_stage() as stage:
        stage.launcher.starting = "hangs"
        asked = stage.ask(stage.open)
        await trio.testing.wait_all_tasks_blocked()
        assert stage.service.open_sessions == 1
        asked.hang_up()
        await trio.testing.wait_all_tasks_blocked()
        assert (stage.launcher.live, stage.service.open_sessions) == (0, 0)
        assert stage.store.sessions == {}
        assert [(row.event, row.meta.get("cause")) for row in stage.audit_rows()] == [
            ("create", None),
            ("close", "caller_gone"),
        ]


async def test_a_creation_whose_caller_leaves_with_the_answer_is_undone(
    open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written but never received is gone again: row, slot and process."""
    add = MemoryStore.add_session
    async with open_stage() as stage:
        asked = stage.ask(stage.open)

        async def add_and_lose_the_caller(*args: Any) -> None:
            await add(*args)
            asked.hang_up()

        monkeypatch.setattr(MemoryStore, "add_session", add_and_lose_the_caller)
        await asked.done.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert asked.answer is None
        assert (stage.store.sessions, stage.launcher.live) == ({}, 0)
        assert stage.service.open_sessions == 0


async def test_a_creation_that_cannot_be_written_leaves_nothing(open_stage: OpenStage) -> None:
    """A full disk refuses the creation; agent and slot are gone."""
    async with open_stage() as stage:
        stage.store.unavailable = "disk full"
        with pytest.raises(StoreUnavailable):
            await stage.open()
        assert (stage.launcher.live, stage.service.open_sessions) == (0, 0)
        stage.store.unavailable = None
        assert stage.store.sessions == {}


async def test_a_turn_that_cannot_be_written_is_never_asked(open_stage: OpenStage) -> None:
    """The row comes before the agent; without it the turn is refused."""
    async with open_stage() as stage:
        session = await stage.open()
        ref = stage.tree.pool.lookup(session)
        assert ref is not None
        stage.store.unavailable = "disk full"
        asked = stage.ask(lambda: stage.turn(session, "hello"))
        await asked.done.wait()
        assert isinstance(asked.error, StoreUnavailable)
        assert stage.launcher.agents[0].prompts == []
        stage.store.unavailable = None
        assert (await stage.turn(session, "hello")).ending == "completed"


async def test_an_ending_that_cannot_be_written_is_not_acknowledged(open_stage: OpenStage) -> None:
    """The caller gets StoreUnavailable, not an answer that the ledger does not know."""
    async with open_stage() as stage:
        session = await stage.open()
        asked = await stage.ask_turn(session, "sleep: 5")
        stage.store.unavailable = "disk full"
        await asked.done.wait()
        assert isinstance(asked.error, StoreUnavailable)
        stage.store.unavailable = None
        assert (await stage.turn(session, "hello")).ending == "completed"


async def test_a_row_closed_from_outside_is_honoured_by_the_next_turn(
    open_stage: OpenStage,
) -> None:
    """The ledger is the truth, whatever the actor thinks."""
    async with open_stage() as stage:
        session = await stage.open()
        await stage.store.close_session(session, event="close", cause="operator", at=1)
        with pytest.raises(SessionClosed, match="operator"):
            await stage.turn(session, "hello?")


async def test_a_permission_nobody_answers_is_rejected_in_time(open_stage: OpenStage) -> None:
    """The agent gets a reject option and the turn goes on."""
    async with open_stage(permission_secs=20) as stage:
        session = await stage.open(permissions="ask")
        result = await stage.turn(session, "ask: may I?")
        assert "Permission: reject" in result.text
        assert result.duration_ms == 20_000


async def test_a_permission_of_a_cancelled_turn_is_cancelled(open_stage: OpenStage) -> None:
    """The agent hears the outcome ``cancelled`` before the turn is over."""
    async with open_stage(permission_secs=300) as stage:
        session = await stage.open(permissions="ask")
        asked = await stage.ask_turn(session, "ask: may I?")
        asked.hang_up()
        await trio.testing.wait_all_tasks_blocked()
        ((_, decision),) = stage.launcher.agents[0].permissions
        assert decision is None


async def test_a_crash_fails_its_askers_and_frees_the_slot(
    open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in one session is that session's end and nobody else's."""
    async with open_stage() as stage:
        session, other = await stage.open(), await stage.open()

        def crash(self: PermissionDesk) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(PermissionDesk, "cancel_all", crash)
            result = await stage.turn(session, "hello")
        assert result.ending == "failed"
        await trio.testing.wait_all_tasks_blocked()
        assert stage.service.open_sessions == 1
        assert stage.row(session).closed_at is None
        assert (await stage.turn(other, "hello")).ending == "completed"
        assert (await stage.turn(session, "recall:")).turn_index == 2


async def test_text_of_a_long_turn_outlives_its_events(open_stage: OpenStage) -> None:
    """Past the limit the oldest updates go and are counted; the stop reason stays."""
    async with open_stage(max_turn_bytes=2_000) as stage:
        session = await stage.open()
        result = await stage.turn(session, "\n".join(f"say: part {n}" for n in range(50)))
        assert result.events_dropped > 0
        assert result.stop_reason == "end_turn"
        assert "part 0" in result.text
        assert "result" in json.loads(result.events)[-1]


async def test_what_an_agent_offers_is_known_while_it_lives(open_stage: OpenStage) -> None:
    """From its handshake, with the model that was asked for, and as its updates change it."""
    async with open_stage() as stage:
        choices = (Choice("opus", "Opus"), Choice("haiku", "Haiku"))
        stage.launcher.menus = Menus(Menu("opus", choices), Menu("plan", (Choice("plan", "Plan"),)))
        session = await stage.open(model="haiku")
        menus = stage.service.menus(session)
        assert menus.models == Menu("haiku", choices)
        stage.launcher.agents[0].update(
            {"sessionUpdate": "current_mode_update", "currentModeId": "go"}
        )
        menus = stage.service.menus(session)
        assert menus.modes is not None
        assert menus.modes.current == "go"
        await stage.service.close_session(session, AppName("kitchen"))
        assert stage.service.menus(session) == Menus()
