"""The sweeper actor: lifetimes are kept, and the ledger wins over the pool."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from clawdforge.domain.ids import AppName
from clawdforge.domain.sweeping import SweepCounts
from clawdforge.errors import StoreUnavailable
from tests.actors.conftest import OpenStage

pytestmark = pytest.mark.virtual_time


async def test_an_idle_session_is_closed_and_says_so(open_stage: OpenStage) -> None:
    """Row, actor, process and slot go; the audit has sweep_close."""
    async with open_stage(session_ttl_secs=100) as stage:
        session = await stage.open()
        stage.wall.seconds += 100
        assert await stage.service.sweep_once() == SweepCounts(0, 0)
        stage.wall.seconds += 1
        assert await stage.service.sweep_once() == SweepCounts(1, 0)
        assert stage.row(session).close_cause == "idle"
        assert stage.audit(session) == [("create", None), ("sweep_close", "idle")]
        assert (stage.service.open_sessions, stage.launcher.live) == (0, 0)


async def test_idle_counts_from_the_last_turn(open_stage: OpenStage) -> None:
    """A turn gives the session its whole life again."""
    async with open_stage(session_ttl_secs=100) as stage:
        session = await stage.open()
        stage.wall.seconds += 90
        await stage.turn(session, "hello")
        stage.wall.seconds += 90
        assert await stage.service.sweep_once() == SweepCounts(0, 0)


async def test_a_session_with_a_turn_is_not_idle(open_stage: OpenStage) -> None:
    """However long it takes."""
    async with open_stage(session_ttl_secs=100) as stage:
        session = await stage.open()
        working = await stage.ask_turn(session, "sleep: 30")
        stage.wall.seconds += 1000
        assert await stage.service.sweep_once() == SweepCounts(0, 0)
        await working.done.wait()
        assert working.answer.ending == "completed"


async def test_a_session_without_an_actor_is_swept_too(open_stage: OpenStage) -> None:
    """After a restart, open rows age like the others."""
    async with open_stage(session_ttl_secs=100) as stage:
        session = await stage.open()
        stage.tree.pool._sessions[session]._nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        stage.wall.seconds += 101
        assert await stage.service.sweep_once() == SweepCounts(1, 0)
        assert stage.row(session).close_cause == "idle"


async def test_a_closed_row_is_deleted_after_its_time(open_stage: OpenStage) -> None:
    """The audit outlives it, with hard_delete as its last word."""
    async with open_stage(session_ttl_secs=100, session_hard_ttl_secs=500) as stage:
        session = await stage.open()
        await stage.service.close_session(session, AppName("kitchen"))
        stage.wall.seconds += 500
        assert await stage.service.sweep_once() == SweepCounts(0, 0)
        stage.wall.seconds += 1
        assert await stage.service.sweep_once() == SweepCounts(0, 1)
        assert session not in stage.store.sessions
        assert stage.audit(session)[-1][0] == "hard_delete"


async def test_a_row_closed_from_outside_stops_its_actor(open_stage: OpenStage) -> None:
    """The ledger wins: process and slot are gone after the next sweep."""
    async with open_stage() as stage:
        session = await stage.open()
        at = stage.wall.seconds
        await stage.store.close_session(session, event="close", cause="operator", at=at)
        assert await stage.service.sweep_once() == SweepCounts(0, 0)
        assert (stage.service.open_sessions, stage.launcher.live) == (0, 0)
        assert stage.row(session).close_cause == "operator"


async def test_a_row_deleted_from_outside_stops_its_actor(open_stage: OpenStage) -> None:
    """Likewise for a row that is missing."""
    async with open_stage() as stage:
        session = await stage.open()
        del stage.store.sessions[session]
        await stage.service.sweep_once()
        assert (stage.service.open_sessions, stage.launcher.live) == (0, 0)


async def test_an_app_revoked_from_outside_loses_its_live_sessions(open_stage: OpenStage) -> None:
    """Revocation by the command line acts on live work at the next sweep."""
    async with open_stage() as stage:
        session = await stage.open()
        await stage.store.revoke_app(AppName("kitchen"))
        await stage.service.sweep_once()
        assert stage.row(session).close_cause == "revoked"
        assert stage.launcher.live == 0


async def test_a_backdated_row_is_closed_then_deleted_by_two_sweeps(
    open_stage: OpenStage,
) -> None:
    """A row changed from outside is honoured by the next sweep."""
    async with open_stage(session_ttl_secs=100, session_hard_ttl_secs=500) as stage:
        session = await stage.open()
        stage.store.sessions[session] = attrs.evolve(stage.row(session), created_at=0)
        assert await stage.service.sweep_once() == SweepCounts(1, 0)
        stage.store.sessions[session] = attrs.evolve(stage.row(session), closed_at=1)
        assert await stage.service.sweep_once() == SweepCounts(0, 1)


async def test_a_session_that_is_starting_is_left_alone(open_stage: OpenStage) -> None:
    """It has no row yet, and that is no reason to stop it."""
    async with open_stage() as stage:
        stage.launcher.starting = "hangs"
        asked = stage.ask(stage.open)
        await trio.testing.wait_all_tasks_blocked()
        await stage.service.sweep_once()
        assert stage.service.open_sessions == 1
        asked.hang_up()


async def test_the_sweeper_ticks_by_itself(open_stage: OpenStage) -> None:
    """Nobody has to ask."""
    async with open_stage(session_ttl_secs=100, sweep_secs=60) as stage:
        session = await stage.open()
        stage.wall.seconds += 101
        await trio.sleep(61)
        assert stage.row(session).close_cause == "idle"


async def test_a_ledger_that_is_away_puts_the_sweep_off(open_stage: OpenStage) -> None:
    """The asker hears of it, the sweeper lives, and the next sweep does the work."""
    async with open_stage(session_ttl_secs=100, sweep_secs=60) as stage:
        session = await stage.open()
        stage.wall.seconds += 101
        stage.store.unavailable = "disk full"
        with pytest.raises(StoreUnavailable):
            await stage.service.sweep_once()
        await trio.sleep(150)
        stage.store.unavailable = None
        assert stage.row(session).closed_at is None
        await trio.sleep(60)
        assert stage.row(session).close_cause == "idle"


async def test_a_sweep_takes_uploaded_files_too(open_stage: OpenStage) -> None:
    """What is over goes with the sweep, counted with no session."""
    async with open_stage() as stage:
        files = stage.service.files
        async with files.receive(AppName("kitchen")) as upload:
            token = await upload.keep(ttl_secs=60, client_name=None)
        await stage.service.sweep_once()
        assert await files.claim(AppName("kitchen"), [token], hold_secs=0)
        stage.wall.seconds += 60
        assert await stage.service.sweep_once() == SweepCounts(0, 0)
        assert stage.store.files == {}
        assert await files.sweep() == 0, "a file without a row was left for the next sweep"


async def test_files_that_cannot_be_swept_stop_no_sweep(
    open_stage: OpenStage, tmp_path: Path
) -> None:
    """Sessions are swept, and the sweeper lives."""
    async with open_stage(session_ttl_secs=100) as stage:
        session = await stage.open()
        stage.wall.seconds += 101
        (tmp_path / "files").write_text("in the way")
        assert await stage.service.sweep_once() == SweepCounts(1, 0)
        assert stage.row(session).close_cause == "idle"
