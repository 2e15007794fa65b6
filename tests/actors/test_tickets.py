"""Tickets: a turn is admitted, held by its callers, and stopped when the last of them has left."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from clawdforge.actors.mailbox import Reply
from clawdforge.actors.messages import ActivateSession, StartTurn
from clawdforge.actors.ticket import TurnTicket
from clawdforge.domain.ids import AppName, SessionId
from clawdforge.domain.ports import SessionRow
from clawdforge.domain.turns import TurnRequest
from clawdforge.errors import SessionBusy, SessionClosed, SessionNotFound
from clawdforge.store.memory import MemoryStore
from clawdforge.web.service import NewTurn
from tests.actors.conftest import APP, OpenStage

pytestmark = pytest.mark.virtual_time


async def test_a_turn_is_in_the_ledger_when_its_ticket_is_given(open_stage: OpenStage) -> None:
    """Admission has an index and a row before the agent has answered."""
    async with open_stage() as stage:
        session = await stage.open()
        stage.launcher.hold_turns()
        ticket = await stage.start(session, "hello")
        assert ticket.turn_index == 1
        assert stage.ends(session) == [None]
        stage.launcher.release_turns()
        assert (await ticket.result()).ending == "completed"


async def test_who_only_waits_for_the_end_is_woken_once(open_stage: OpenStage) -> None:
    """A patient asker has its ticket when the turn is over, and not on its admission."""
    async with open_stage() as stage:
        session = await stage.open()
        reply: Reply[TurnTicket] = Reply()
        ref = stage.tree.pool.lookup(session)
        ref.tell(StartTurn(TurnRequest(prompt="sleep: 5", timeout_secs=60), True, reply))
        await trio.sleep(1)
        assert stage.ends(session) == [None]
        assert not reply.is_answered
        ticket = await reply.wait()
        assert ticket.is_over
        assert (await ticket.result()).ending == "completed"


async def test_a_patient_asker_that_leaves_takes_the_turn_along(open_stage: OpenStage) -> None:
    """It holds its ticket from its place in line on, whether it has been handed out or not."""
    async with open_stage() as stage:
        session = await stage.open()
        asked = await stage.ask_turn(session, "sleep: 500")
        asked.hang_up()
        await trio.testing.wait_all_tasks_blocked()
        (end,) = stage.ends(session)
        assert (end.ending, end.detail) == ("cancelled", "caller_gone")


async def test_a_live_session_is_looked_up_by_its_own_app_only(
    open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger is asked for any other's, as for one that never was; and it has the last word."""
    asked: list[SessionId] = []
    find = MemoryStore.find_session

    async def count(store: MemoryStore, session_id: SessionId, app: AppName) -> SessionRow | None:
        asked.append(session_id)
        return await find(store, session_id, app)

    monkeypatch.setattr(MemoryStore, "find_session", count)
    async with open_stage() as stage:
        session = await stage.open()
        await stage.turn(session, "hello")
        assert asked == []
        new = NewTurn(prompt="hello", timeout_secs=60)
        for session_id in (session, SessionId("never-was-a-session-0")):
            with pytest.raises(SessionNotFound):
                await stage.service.run_turn(session_id, AppName("garage"), new)
        assert asked == [session, "never-was-a-session-0"]
        stage.store.sessions[session] = attrs.evolve(
            stage.row(session), closed_at=1, close_cause="by hand"
        )
        with pytest.raises(SessionClosed, match="by hand"):
            await stage.turn(session, "hello")


async def test_a_result_may_be_asked_for_again(open_stage: OpenStage) -> None:
    """A ticket answers the same, however often and however late it is asked."""
    async with open_stage() as stage:
        session = await stage.open()
        ticket = await stage.start(session, "hello")
        first = await ticket.result()
        assert await ticket.result() is first


async def test_refusals_come_before_the_ticket(open_stage: OpenStage) -> None:
    """What is not admitted has no ticket, no index and no row."""
    async with open_stage() as stage:
        session = await stage.open()
        stage.launcher.hold_turns()
        tickets = [await stage.start(session, "x") for _ in range(3)]
        with pytest.raises(SessionBusy):
            await stage.start(session, "one too many")
        assert [ticket.turn_index for ticket in tickets] == [1, 2, 3]
        assert len(stage.ends(session)) == 3


async def test_leaving_the_ticket_cancels_the_turn_once(open_stage: OpenStage) -> None:
    """Leaving is hanging up: the agent is told once, whoever leaves how often."""
    async with open_stage() as stage:
        session = await stage.open()
        ticket = await stage.start(session, "sleep: 500")
        await trio.testing.wait_all_tasks_blocked()
        ticket.leave()
        ticket.leave()
        assert (await ticket.result()).stop_reason == "cancelled"
        assert stage.launcher.agents[0].cancels == [1]


async def test_waiting_for_a_result_may_be_given_up(open_stage: OpenStage) -> None:
    """Only leaving ends the turn; a cancelled wait may be taken up again."""
    async with open_stage() as stage:
        session = await stage.open()
        ticket = await stage.start(session, "sleep: 5")
        with trio.move_on_after(1):
            await ticket.result()
        assert (await ticket.result()).ending == "completed"


async def test_leaving_a_finished_turn_changes_nothing(open_stage: OpenStage) -> None:
    """The ending stands, and the next turn is not touched."""
    async with open_stage() as stage:
        session = await stage.open()
        ticket = await stage.start(session, "hello")
        await ticket.result()
        ticket.leave()
        assert (await stage.turn(session, "again")).ending == "completed"
        assert stage.launcher.agents[0].cancels == []


async def test_a_detached_turn_outlives_its_caller(open_stage: OpenStage) -> None:
    """It goes on alone and its ending is in the ledger."""
    async with open_stage() as stage:
        session = await stage.open()
        ticket = await stage.start(session, "sleep: 5", on_disconnect="detach")
        ticket.leave()
        await trio.sleep(6)
        (end,) = stage.ends(session)
        assert end is not None
        assert end.ending == "completed"


async def test_a_detached_turn_ends_by_its_deadline(open_stage: OpenStage) -> None:
    """Nobody waits, and still it does not run for ever."""
    async with open_stage() as stage:
        session = await stage.open()
        asked = await stage.ask_turn(session, "sleep: 500", within=10, on_disconnect="detach")
        asked.hang_up()
        await trio.sleep(11)
        (end,) = stage.ends(session)
        assert end is not None
        assert end.ending == "timed_out"


async def test_a_drain_waits_for_a_turn_without_a_caller(open_stage: OpenStage) -> None:
    """What is in progress is counted by its turn, not by its request."""
    async with open_stage() as stage:
        session = await stage.open()
        (await stage.start(session, "sleep: 5", on_disconnect="detach")).leave()
        began = trio.current_time()
        await stage.service.wait_idle()
        assert trio.current_time() - began == pytest.approx(5, abs=0.1)


async def test_an_actor_started_anew_goes_on_counting(open_stage: OpenStage) -> None:
    """Indices are never used twice, whatever the asker knew of the session."""
    async with open_stage() as stage:
        session = await stage.open()
        stale = stage.row(session)
        await stage.turn(session, "one")
        await stage.service.close_session(session, APP)
        now = stage.row(session)
        stage.store.sessions[session] = attrs.evolve(now, closed_at=None, close_cause=None)
        ref = await stage.tree.pool.mailbox.ref.ask(
            lambda reply: ActivateSession(row=stale, reply=reply)
        )
        assert stage.tree.pool.lookup(session) is ref
        assert (await stage.start(session, "two")).turn_index == 2
