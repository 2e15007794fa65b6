"""The pool actor: the cap holds, racers get one actor, and slots come back."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from clawdforge.domain.ids import AppName
from clawdforge.errors import PoolFull, SessionClosed, ShuttingDown
from clawdforge.web.service import NewTurn
from tests.actors.conftest import OpenStage

pytestmark = pytest.mark.virtual_time


async def test_one_session_over_the_cap_is_refused(open_stage: OpenStage) -> None:
    """PoolFull names the limit, and nothing of the refused one stays."""
    async with open_stage(max_live_sessions=2) as stage:
        await stage.open()
        await stage.open()
        with pytest.raises(PoolFull) as caught:
            await stage.open()
        assert caught.value.limit == 2
        assert caught.value.retry_after_secs > 0
        assert (len(stage.store.sessions), stage.launcher.live) == (2, 2)


async def test_a_session_that_is_starting_counts(open_stage: OpenStage) -> None:
    """A slot is taken from the moment of admission."""
    async with open_stage(max_live_sessions=1) as stage:
        stage.launcher.starting = "hangs"
        stage.ask(stage.open)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(PoolFull):
            await stage.open()


async def test_racers_for_the_last_slot_never_both_get_it(open_stage: OpenStage) -> None:
    """Admission is one step: of five at once, the cap's number is let in."""
    async with open_stage(max_live_sessions=3) as stage:
        asked = [stage.ask(stage.open) for _ in range(5)]
        for each in asked:
            await each.done.wait()
        assert sum(isinstance(each.error, PoolFull) for each in asked) == 2
        assert stage.service.open_sessions == 3


async def test_a_slot_is_free_when_the_close_is_answered(open_stage: OpenStage) -> None:
    """The next creation after a close is never refused for the old session's sake."""
    async with open_stage(max_live_sessions=1) as stage:
        for _ in range(5):
            session = await stage.open()
            await stage.service.close_session(session, AppName("kitchen"))


async def test_a_slot_is_held_until_the_tree_is_dead(open_stage: OpenStage) -> None:
    """A killed process that has not died yet still counts."""
    async with open_stage(max_live_sessions=1) as stage:
        session = await stage.open()
        stage.launcher.hold_deaths()
        stage.ask(lambda: stage.service.close_session(session, AppName("kitchen")))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(PoolFull):
            await stage.open()
        stage.launcher.release_deaths()
        await trio.testing.wait_all_tasks_blocked()
        await stage.open()


async def test_the_cap_can_be_changed_while_serving(open_stage: OpenStage) -> None:
    """The next request obeys; who is in stays in."""
    async with open_stage(max_live_sessions=2) as stage:
        await stage.open()
        stage.service.max_live_sessions = 1
        with pytest.raises(PoolFull):
            await stage.open()
        stage.service.max_live_sessions = 2
        await stage.open()


async def test_two_turns_on_a_sleeping_session_share_one_actor(open_stage: OpenStage) -> None:
    """An open session without an actor is activated once, however many ask."""
    async with open_stage() as stage:
        session = await stage.open()
        await stage.turn(session, "apples")
        stage.tree.pool._sessions[session]._nursery.cancel_scope.cancel()  # its actor is lost
        await trio.testing.wait_all_tasks_blocked()
        assert stage.service.open_sessions == 0
        asked = [stage.ask(lambda: stage.turn(session, "recall:")) for _ in range(2)]
        for each in asked:
            await each.done.wait()
        assert {each.answer.turn_index for each in asked} == {2, 3}
        assert all("apples" in each.answer.text for each in asked)
        assert stage.launcher.live == 1


async def test_activation_obeys_the_cap(open_stage: OpenStage) -> None:
    """A turn on an open session without an actor may be PoolFull; the session stays open."""
    async with open_stage(max_live_sessions=1) as stage:
        session = await stage.open()
        stage.tree.pool._sessions[session]._nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await stage.open()
        with pytest.raises(PoolFull):
            await stage.turn(session, "hello")
        assert stage.row(session).closed_at is None


async def test_draining_refuses_sessions_and_turns_and_lets_work_finish(
    open_stage: OpenStage,
) -> None:
    """What runs ends by itself; what comes is ShuttingDown."""
    async with open_stage() as stage:
        session = await stage.open()
        working = await stage.ask_turn(session, "sleep: 30")
        stage.service.start_drain()
        with pytest.raises(ShuttingDown):
            await stage.open()
        with pytest.raises(ShuttingDown):
            await stage.turn(session, "hello")
        await stage.service.wait_idle()
        assert working.answer.ending == "completed"


async def test_shutdown_leaves_resumable_sessions_open(open_stage: OpenStage) -> None:
    """Their conversation goes on after a restart; the others are closed with the reason."""
    for can_resume, closed in ((True, None), (False, "shutdown")):
        async with open_stage(can_resume=can_resume) as stage:
            session = await stage.open()
            working = await stage.ask_turn(session, "sleep: 30")
        await working.done.wait()
        assert working.answer.stop_reason == "cancelled"
        assert stage.row(session).close_cause == closed


async def test_revoking_closes_only_that_apps_sessions(open_stage: OpenStage) -> None:
    """Its live sessions are gone when the answer comes; the neighbour's work goes on."""
    async with open_stage() as stage:
        await stage.service.mint(AppName("garage"), ())
        mine, other = await stage.open(), await stage.open(app=AppName("garage"))
        working = await stage.ask_turn(mine, "sleep: 30")
        await stage.service.revoke(AppName("garage"))
        assert stage.row(other).close_cause == "revoked"
        await working.done.wait()
        assert working.answer.ending == "completed"
        turn = NewTurn(prompt="hello?", timeout_secs=5)
        with pytest.raises(SessionClosed, match="revoked"):
            await stage.service.run_turn(other, AppName("garage"), turn)


async def test_the_status_line_tells_the_count(open_stage: OpenStage) -> None:
    """``repr`` is true and short."""
    async with open_stage(max_live_sessions=2) as stage:
        session = await stage.open()
        assert repr(stage.tree.pool) == "<PoolActor 1 of 2 live>"
        await stage.ask_turn(session, "sleep: 30")
        (actor,) = stage.tree.pool._sessions.values()
        assert repr(actor) == "<SessionActor demo working, 1 turns in line>"
