"""Endings that could not be written: told to the caller, and written when the ledger is well."""

from __future__ import annotations

import pytest
import trio

from clawdforge.actors.debts import MOST, RETRY_SECS, Debts
from clawdforge.domain.ids import SessionId
from clawdforge.domain.ports import TurnEnd
from clawdforge.errors import StoreUnavailable
from clawdforge.store.memory import MemoryStore
from tests.actors.conftest import APP, OpenStage, Stage

pytestmark = pytest.mark.virtual_time


async def fail_to_end(stage: Stage) -> SessionId:
    """A turn that ends while the disk is full."""
    session = await stage.open()
    asked = await stage.ask_turn(session, "sleep: 10")
    stage.store.unavailable = "the disk is full"
    await asked.done.wait()
    assert isinstance(asked.error, StoreUnavailable)
    assert stage.ends(session) == [None]
    return session


def endings(stage: Stage, session: SessionId) -> list[str | None]:
    """How the session's turns ended, by the ledger."""
    return [None if end is None else end.ending for end in stage.ends(session)]


async def test_an_ending_is_written_when_the_disk_has_room_again(open_stage: OpenStage) -> None:
    """Not before, and once: the history shows how the turn really ended."""
    async with open_stage() as stage:
        session = await fail_to_end(stage)
        await trio.sleep(10 * RETRY_SECS)
        assert stage.ends(session) == [None]
        stage.store.unavailable = None
        await trio.sleep(RETRY_SECS)
        assert endings(stage, session) == ["completed"]
        assert (await stage.turn(session, "hello")).turn_index == 2


async def test_a_session_pays_before_it_ends(open_stage: OpenStage) -> None:
    """A close writes what is owed first."""
    async with open_stage() as stage:
        session = await fail_to_end(stage)
        stage.store.unavailable = None
        await stage.service.close_session(session, APP)
        assert endings(stage, session) == ["completed"]


async def test_a_creation_that_cannot_be_written_leaves_no_directory(open_stage: OpenStage) -> None:
    """The agent was started for nothing: what it left goes, whatever the ledger says."""
    async with open_stage() as stage:
        stage.store.unavailable = "the disk is full"
        with pytest.raises(StoreUnavailable):
            await stage.open()
        assert len(stage.launcher.discarded) == 1
        assert stage.launcher.conversations == {}


async def test_debts_are_bounded() -> None:
    """A ledger that never takes anything does not take the memory."""
    debts = Debts(MemoryStore())
    for index in range(100):
        debts.owe(TurnEnd(SessionId("s" * 16), index, "completed", "end_turn", "x", 1, 1))
    assert len(debts) == MOST


async def test_an_ending_is_written_whoever_cancels(open_stage: OpenStage) -> None:
    """All is cancelled under a turn at work: the ledger has its ending all the same."""
    with trio.CancelScope() as everything:
        async with open_stage() as stage:
            session = await stage.open()
            await stage.ask_turn(session, "sleep: 100")
            everything.cancel()
            await trio.sleep_forever()
    assert endings(stage, session) == ["cancelled"]
