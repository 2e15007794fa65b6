"""Permission requests: each ends once, by a word, the clock, a cancel, and the audit says how."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from clawdforge.actors.permissions import MOST_NOTES
from clawdforge.domain.ids import SessionId
from clawdforge.domain.ports import PermissionRequest
from clawdforge.domain.turns import TurnTarget
from clawdforge.errors import (
    InvalidRequest,
    PermissionDecided,
    PermissionNotFound,
    StoreUnavailable,
)
from clawdforge.store.memory import MemoryStore
from clawdforge.testing.fake_launcher import OPTIONS
from tests.actors.conftest import APP, OpenStage, Stage

pytestmark = pytest.mark.virtual_time


async def pending(stage: Stage, session: SessionId) -> list[Any]:
    """What waits."""
    return list(await stage.service.list_permissions(session, APP))


async def decide(stage: Stage, session: SessionId, request_id: str, option_id: str) -> None:
    """A caller's word."""
    await stage.service.decide_permission(session, APP, request_id, option_id)


def noted(stage: Stage, session: SessionId) -> list[tuple[object, object]]:
    """Who decided and what, by the audit."""
    rows = [row for row in stage.store.audit if row.event == "permission"]
    return [(row.meta["by"], row.meta["outcome"]) for row in rows if row.session_id == session]


async def test_a_request_waits_in_the_open(open_stage: OpenStage) -> None:
    """What the agent wants, its options, its turn, and until when."""
    async with open_stage(permission_secs=120) as stage:
        session = await stage.open(permissions="ask")
        await stage.ask_turn(session, "ask: may I?")
        (request,) = await pending(stage, session)
        assert (request.turn_index, request.expires_at) == (1, stage.wall.seconds + 120)
        assert request.tool_call["title"] == "may I?"
        assert request.options == OPTIONS


async def test_a_word_decides_it_and_the_turn_goes_on(open_stage: OpenStage) -> None:
    """The agent hears the option, nothing waits any more, the audit has it."""
    async with open_stage() as stage:
        session = await stage.open(permissions="ask")
        asked = await stage.ask_turn(session, "ask: may I?")
        (request,) = await pending(stage, session)
        await decide(stage, session, request.request_id, "allow")
        await asked.done.wait()
        assert asked.answer.text == "Permission: allow"
        assert await pending(stage, session) == []
        assert noted(stage, session) == [("caller", "allow_once")]


async def test_a_second_word_comes_too_late(open_stage: OpenStage) -> None:
    """It is told who decided."""
    async with open_stage() as stage:
        session = await stage.open(permissions="ask")
        await stage.ask_turn(session, "ask: may I?\nsleep: 50")
        (request,) = await pending(stage, session)
        await decide(stage, session, request.request_id, "allow")
        with pytest.raises(PermissionDecided) as caught:
            await decide(stage, session, request.request_id, "reject")
        assert caught.value.by == "caller"
        assert len(stage.launcher.agents[0].permissions) == 1


async def test_an_option_that_was_not_offered_decides_nothing(open_stage: OpenStage) -> None:
    """The request goes on waiting."""
    async with open_stage() as stage:
        session = await stage.open(permissions="ask")
        await stage.ask_turn(session, "ask: may I?")
        (request,) = await pending(stage, session)
        with pytest.raises(InvalidRequest):
            await decide(stage, session, request.request_id, "allow everything")
        assert len(await pending(stage, session)) == 1


async def test_an_unknown_request_is_not_found(open_stage: OpenStage) -> None:
    """In a live session, and in one without an actor."""
    async with open_stage() as stage:
        session = await stage.open(permissions="ask")
        with pytest.raises(PermissionNotFound):
            await decide(stage, session, "nobody's", "allow")
        await stage.service.close_session(session, APP)
        with pytest.raises(PermissionNotFound):
            await decide(stage, session, "nobody's", "allow")
        assert await pending(stage, session) == []


async def test_the_clock_rejects_what_nobody_answers(open_stage: OpenStage) -> None:
    """With a reject option, not with cancelled: the agent has an answer to work with."""
    async with open_stage(permission_secs=20) as stage:
        session = await stage.open(permissions="ask")
        result = await stage.turn(session, "ask: may I?")
        assert result.text == "Permission: reject"
        assert noted(stage, session) == [("clock", "reject_once")]


async def test_a_request_never_outlives_its_turn_s_deadline(open_stage: OpenStage) -> None:
    """It says so from the beginning."""
    async with open_stage(permission_secs=120) as stage:
        session = await stage.open(permissions="ask")
        asked = await stage.ask_turn(session, "ask: may I?", within=10)
        (request,) = await pending(stage, session)
        assert request.expires_at == stage.wall.seconds + 10
        await asked.done.wait()
        assert asked.answer.ending == "timed_out"
        assert await pending(stage, session) == []


async def test_cancelling_answers_every_request_with_cancelled(open_stage: OpenStage) -> None:
    """Two at once, both ended on the wire; and the agent's turn is over."""
    async with open_stage() as stage:
        session = await stage.open(permissions="ask")
        await stage.ask_turn(session, "ask: may I?")
        agent = stage.launcher.agents[0]
        agent.request(PermissionRequest("second", {"title": "and this?"}, OPTIONS))
        assert len(await pending(stage, session)) == 2
        await stage.service.cancel_turn(session, APP, TurnTarget())
        await trio.testing.wait_all_tasks_blocked()
        assert [option for _, option in agent.permissions] == [None, None]
        assert noted(stage, session) == [("cancel", "cancelled")] * 2


async def test_a_request_that_comes_while_cancelling_is_cancelled_at_once(
    open_stage: OpenStage,
) -> None:
    """A tool that asks after the cancel does not run, and nobody is bothered with it."""
    async with open_stage(cancel_grace_secs=5) as stage:
        session = await stage.open(permissions="ask")
        stage.launcher.is_deaf = True
        asked = await stage.ask_turn(session, "sleep: 500")
        asked.hang_up()
        await trio.testing.wait_all_tasks_blocked()
        agent = stage.launcher.agents[0]
        agent.request(PermissionRequest("late", {"title": "now?"}, OPTIONS))
        await trio.testing.wait_all_tasks_blocked()
        assert agent.permissions == [("late", None)]
        assert await pending(stage, session) == []


async def test_a_request_between_turns_is_cancelled(open_stage: OpenStage) -> None:
    """It is nobody's."""
    async with open_stage() as stage:
        session = await stage.open(permissions="ask")
        await stage.turn(session, "hello")
        agent = stage.launcher.agents[0]
        agent.request(PermissionRequest("late", {"title": "now?"}, OPTIONS))
        await trio.testing.wait_all_tasks_blocked()
        assert agent.permissions == [("late", None)]


async def test_a_request_of_an_agent_that_dies_waits_no_more(open_stage: OpenStage) -> None:
    """Its turn is over, and so is the question."""
    async with open_stage() as stage:
        session = await stage.open(permissions="ask")
        asked = await stage.ask_turn(session, "ask: may I?")
        stage.launcher.agents[0].end("out of memory")
        await asked.done.wait()
        assert await pending(stage, session) == []


async def test_a_decision_that_cannot_be_noted_is_taken_all_the_same(
    open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent is not held up by a full disk."""

    async def fail(*_: object) -> None:
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(MemoryStore, "note_permission", fail)
    async with open_stage(permission_secs=20) as stage:
        session = await stage.open(permissions="ask")
        assert (await stage.turn(session, "ask: may I?")).text == "Permission: reject"
        assert (await stage.turn(session, "hello")).ending == "completed"


@pytest.mark.parametrize(
    ("mode", "outcome"), [("approve-all", "allow_once"), ("deny-all", "reject_once")]
)
async def test_what_a_mode_decides_is_in_the_audit_too(
    open_stage: OpenStage, mode: str, outcome: str
) -> None:
    """Nobody was asked, and still it can be looked up."""
    async with open_stage() as stage:
        session = await stage.open(permissions=mode)
        await stage.turn(session, "ask: may I?")
        await trio.testing.wait_all_tasks_blocked()  # no turn waits for the audit
        assert noted(stage, session) == [("mode", outcome)]
        assert await pending(stage, session) == []


async def test_an_agent_that_asks_without_end_is_noted_in_part(open_stage: OpenStage) -> None:
    """A flood of requests costs bounded memory, and no more than it may of the ledger."""
    async with open_stage() as stage:
        session = await stage.open(permissions="deny-all")
        asked = await stage.ask_turn(session, "sleep: 5")
        tool_call = {"toolCallId": "t", "title": "Write", "kind": "edit"}
        params = {"toolCall": tool_call, "options": list(OPTIONS)}
        for number in range(MOST_NOTES + 10):
            message = {"id": number, "method": "session/request_permission", "params": params}
            stage.launcher.agents[0].emit(message)
        await trio.testing.wait_all_tasks_blocked()
        assert len(noted(stage, session)) == MOST_NOTES
        await asked.done.wait()
        assert (await stage.turn(session, "ask: again?")).ending == "completed"
        await trio.testing.wait_all_tasks_blocked()
        assert len(noted(stage, session)) == MOST_NOTES + 1
