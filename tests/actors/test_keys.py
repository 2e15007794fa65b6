"""Idempotency keys: one request, however often it is sent; one answer, whenever it is asked for."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from clawdforge.app import settle_ledger
from clawdforge.domain.keys import CREATION_KEY_SECS, IdempotencyKey
from clawdforge.domain.ports import TurnStart
from clawdforge.domain.turns import TurnTarget
from clawdforge.errors import (
    AgentExited,
    AgentNotStarted,
    IdempotencyKeyReused,
    PoolFull,
    SessionBusy,
    SessionClosed,
    ShuttingDown,
)
from clawdforge.store.memory import MemoryStore
from tests.actors.conftest import APP, OpenStage

pytestmark = pytest.mark.virtual_time

KEY = IdempotencyKey("order 66", "these fields")
OTHER_FIELDS = IdempotencyKey("order 66", "other fields")


# --- turns ----------------------------------------------------------------------------------------


async def test_a_retry_gets_the_stored_answer(open_stage: OpenStage) -> None:
    """Events, usage and all; the agent is asked once."""
    async with open_stage() as stage:
        session = await stage.open()
        first = await stage.turn(session, "say: hello\nusage: 7", key=KEY)
        again = await stage.turn(session, "say: hello\nusage: 7", key=KEY)
        assert again == first
        assert again.usage == {"used": 7, "size": 200_000}
        assert len(stage.launcher.agents[0].prompts) == 1
        assert stage.row(session).turn_count == 1


async def test_a_failure_is_stored_like_any_other_ending(open_stage: OpenStage) -> None:
    """The retry is told the same, and nothing is tried again."""
    async with open_stage() as stage:
        session = await stage.open()
        first = await stage.turn(session, "crash: 3", key=KEY)
        again = await stage.turn(session, "crash: 3", key=KEY)
        assert isinstance(again.error, AgentExited)
        assert (str(again.error), again.duration_ms) == (str(first.error), first.duration_ms)
        assert len(stage.launcher.agents) == 1


async def test_a_cancelled_turn_is_not_sent_again(open_stage: OpenStage) -> None:
    """Who hung up and comes back finds the turn cancelled."""
    async with open_stage() as stage:
        session = await stage.open()
        asked = await stage.ask_turn(session, "sleep: 500", key=KEY)
        asked.hang_up()
        await trio.testing.wait_all_tasks_blocked()
        again = await stage.turn(session, "sleep: 500", key=KEY)
        assert (again.ending, again.turn_index) == ("cancelled", 1)
        assert len(stage.launcher.agents[0].prompts) == 1


async def test_a_retry_attaches_to_a_turn_that_runs(open_stage: OpenStage) -> None:
    """Both get the one answer; the line has one turn."""
    async with open_stage() as stage:
        session = await stage.open()
        first = await stage.ask_turn(session, "sleep: 5", key=KEY)
        second = await stage.ask_turn(session, "sleep: 5", key=KEY)
        await first.done.wait()
        await second.done.wait()
        assert first.answer is second.answer
        assert stage.row(session).turn_count == 1


async def test_a_turn_lives_while_one_caller_is_left(open_stage: OpenStage) -> None:
    """The first to leave changes nothing, the last takes the turn along."""
    async with open_stage() as stage:
        session = await stage.open()
        first = await stage.ask_turn(session, "sleep: 500", key=KEY)
        second = await stage.ask_turn(session, "sleep: 500", key=KEY)
        first.hang_up()
        await trio.testing.wait_all_tasks_blocked()
        assert stage.launcher.agents[0].cancels == []
        second.hang_up()
        await trio.testing.wait_all_tasks_blocked()
        assert stage.launcher.agents[0].cancels == [1]
        assert [end and end.ending for end in stage.ends(session)] == ["cancelled"]


async def test_other_fields_under_a_key_are_refused(open_stage: OpenStage) -> None:
    """While the turn runs, and afterwards."""
    async with open_stage() as stage:
        session = await stage.open()
        first = await stage.ask_turn(session, "sleep: 5", key=KEY)
        with pytest.raises(IdempotencyKeyReused):
            await stage.turn(session, "other", key=OTHER_FIELDS)
        await first.done.wait()
        with pytest.raises(IdempotencyKeyReused):
            await stage.turn(session, "other", key=OTHER_FIELDS)


async def test_a_key_belongs_to_its_session(open_stage: OpenStage) -> None:
    """In another session it is another request."""
    async with open_stage() as stage:
        one, two = await stage.open(), await stage.open()
        await stage.turn(one, "say: one", key=KEY)
        assert (await stage.turn(two, "say: two", key=OTHER_FIELDS)).text == "two"


async def test_a_refusal_is_not_stored(open_stage: OpenStage) -> None:
    """What was not admitted may be tried again under the same key."""
    async with open_stage() as stage:
        session = await stage.open()
        stage.launcher.hold_turns()
        busy = [await stage.ask_turn(session, "x") for _ in range(3)]
        with pytest.raises(SessionBusy):
            await stage.turn(session, "hello", key=KEY)
        stage.launcher.release_turns()
        for each in busy:
            await each.done.wait()
        assert (await stage.turn(session, "hello", key=KEY)).ending == "completed"


async def test_an_answer_outlives_its_session_s_actor_and_its_closing(
    open_stage: OpenStage,
) -> None:
    """Nothing is activated for it, and a drain or a full pool does not matter."""
    async with open_stage(max_live_sessions=1) as stage:
        session = await stage.open()
        first = await stage.turn(session, "hello", key=KEY)
        await stage.service.close_session(session, APP)
        await stage.open()
        stage.service.start_drain()
        assert await stage.turn(session, "hello", key=KEY) == first
        with pytest.raises((SessionClosed, ShuttingDown)):
            await stage.turn(session, "hello")


async def test_a_retry_may_attach_while_the_service_drains(open_stage: OpenStage) -> None:
    """It is no new work."""
    async with open_stage() as stage:
        session = await stage.open()
        first = await stage.ask_turn(session, "sleep: 5", key=KEY)
        stage.service.start_drain()
        assert (await stage.turn(session, "sleep: 5", key=KEY)).turn_index == 1
        await first.done.wait()


async def test_a_turn_that_a_crash_cut_off_is_never_sent_again(open_stage: OpenStage) -> None:
    """Its key is answered with: outcome unknown."""
    async with open_stage() as stage:
        session = await stage.open()
        start = TurnStart(session, 1, "pay", stage.wall.seconds, KEY)
        await stage.store.begin_turn(start)
        await stage.service.close_session(session, APP)
        await settle_ledger(stage.store, stage.launcher, stage.wall.seconds)
        again = await stage.turn(session, "pay", key=KEY)
        assert (again.ending, again.turn_index) == ("interrupted", 1)
        assert stage.launcher.agents[0].prompts == []


async def test_a_turn_whose_ending_was_never_written_is_not_sent_again(
    open_stage: OpenStage,
) -> None:
    """The ledger says that it began; whether it was done nobody knows."""
    async with open_stage() as stage:
        session = await stage.open()
        asked = await stage.ask_turn(session, "sleep: 5", key=KEY)
        stage.store.unavailable = "disk full"
        await asked.done.wait()
        stage.store.unavailable = None
        again = await stage.turn(session, "sleep: 5", key=KEY)
        assert again.ending == "interrupted"
        assert len(stage.launcher.agents[0].prompts) == 1


async def test_two_that_miss_each_other_are_one_turn_all_the_same(
    open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second looked before the first had begun and came when it was over."""
    async with open_stage() as stage:
        session = await stage.open()
        first = await stage.turn(session, "hello", key=KEY)
        find, looks = MemoryStore.find_keyed_turn, []

        async def find_late(*args: object) -> object:
            looks.append(args)
            return None if len(looks) == 1 else await find(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(MemoryStore, "find_keyed_turn", find_late)
        assert await stage.turn(session, "hello", key=KEY) == first
        assert len(stage.launcher.agents[0].prompts) == 1


async def test_a_turn_is_cancelled_by_its_key(open_stage: OpenStage) -> None:
    """At work and waiting; finished it is not cancelled any more."""
    async with open_stage() as stage:
        session = await stage.open()
        other = await stage.ask_turn(session, "sleep: 5")
        await stage.ask_turn(session, "never", key=KEY)
        target = TurnTarget(key_name=KEY.name)
        receipt = await stage.service.cancel_turn(session, APP, target)
        assert (receipt.is_cancelled, receipt.turn_index, receipt.how) == (True, 2, "not_started")
        await other.done.wait()
        receipt = await stage.service.cancel_turn(session, APP, target)
        assert (receipt.is_cancelled, receipt.turn_index, receipt.how) == (False, 2, "idle")


# --- creations ------------------------------------------------------------------------------------


async def test_a_retried_creation_is_the_same_session(open_stage: OpenStage) -> None:
    """One agent, one row, one slot; other fields are refused."""
    async with open_stage() as stage:
        first = await stage.open(key=KEY)
        assert await stage.open(key=KEY) == first
        assert (stage.launcher.live, stage.service.open_sessions) == (1, 1)
        with pytest.raises(IdempotencyKeyReused):
            await stage.open(key=OTHER_FIELDS)


async def test_a_hung_up_creation_is_kept_and_the_retry_gets_it(open_stage: OpenStage) -> None:
    """With a key the caller can come back, so nothing is undone."""
    async with open_stage() as stage:
        stage.launcher.starting = "hangs"
        asked = stage.ask(lambda: stage.open(key=KEY))
        await trio.testing.wait_all_tasks_blocked()
        asked.hang_up()
        retry = stage.ask(lambda: stage.open(key=KEY))
        await trio.testing.wait_all_tasks_blocked()
        assert stage.service.open_sessions == 1
        assert stage.launcher.live == 1
        retry.hang_up()


async def test_two_creations_at_once_under_a_key_are_one(open_stage: OpenStage) -> None:
    """Both are answered with it; a third with other fields is refused."""
    async with open_stage() as stage:
        both = [stage.ask(lambda: stage.open(key=KEY)) for _ in range(2)]
        await trio.testing.wait_all_tasks_blocked()
        other = stage.ask(lambda: stage.open(key=OTHER_FIELDS))
        for each in (*both, other):
            await each.done.wait()
        assert both[0].answer == both[1].answer
        assert isinstance(other.error, IdempotencyKeyReused)
        assert stage.launcher.live == 1


async def test_a_creation_that_fails_fails_for_all_and_may_be_tried_again(
    open_stage: OpenStage,
) -> None:
    """Only what came to be is stored."""
    async with open_stage() as stage:
        stage.launcher.starting = "fails"
        both = [stage.ask(lambda: stage.open(key=KEY)) for _ in range(2)]
        for each in both:
            await each.done.wait()
            assert isinstance(each.error, AgentNotStarted)
        stage.launcher.starting = "works"
        await stage.open(key=KEY)


async def test_a_creation_s_refusal_is_not_stored(open_stage: OpenStage) -> None:
    """A full pool is another story a minute later."""
    async with open_stage(max_live_sessions=1) as stage:
        held = await stage.open()
        with pytest.raises(PoolFull):
            await stage.open(key=KEY)
        await stage.service.close_session(held, APP)
        await stage.open(key=KEY)


async def test_a_creation_s_key_lives_for_a_day(open_stage: OpenStage) -> None:
    """It answers after the session is closed, and a day later it means a new one."""
    async with open_stage() as stage:
        first = await stage.open(key=KEY)
        await stage.service.close_session(first, APP)
        assert await stage.open(key=KEY) == first
        stage.wall.seconds += CREATION_KEY_SECS + 1
        assert await stage.open(key=KEY) != first


async def test_creations_that_miss_each_other_are_one_session_all_the_same(
    open_stage: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger has the last word; the second agent is stopped again."""
    async with open_stage() as stage:
        first = await stage.open(key=KEY)
        ref = stage.tree.pool.lookup(first)
        assert ref is not None
        for actor in stage.tree.pool._sessions.values():
            monkeypatch.setattr(actor, "is_twin", lambda *_: False)
        find, looks = MemoryStore.find_creation, []

        async def find_late(*args: object, **fields: object) -> object:
            looks.append(args)
            return None if len(looks) == 1 else await find(*args, **fields)  # type: ignore[arg-type]

        monkeypatch.setattr(MemoryStore, "find_creation", find_late)
        assert await stage.open(key=KEY) == first
        assert (stage.launcher.live, stage.service.open_sessions) == (1, 1)
        assert len(stage.store.sessions) == 1
