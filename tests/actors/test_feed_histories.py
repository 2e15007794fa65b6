"""Random histories of a feed: whatever happens, no number is passed over in silence."""

from __future__ import annotations

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from clawdforge.actors.feed import WRITE_SECS, EventSpan
from clawdforge.domain.events import Gap, NumberedEvent
from clawdforge.domain.ports import TurnEnd, TurnStart
from tests.actors.test_feed import PLENTY, SESSION, Rig, drink, rigged
from tests.conftest import run_in_virtual_time

ACTS = st.lists(
    st.sampled_from(["say", "say", "burst", "turn", "rest", "read", "fail", "mend", "crash"]),
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(acts=ACTS, keep_bytes=st.sampled_from([200, 20_000, PLENTY]))
def test_whatever_happens_no_number_is_silent_or_shown_twice(
    acts: list[str], keep_bytes: int
) -> None:
    """Turns, crashes, a failing ledger: a reader that hangs on is told of each number once."""

    async def play() -> None:
        async with rigged(keep_bytes=keep_bytes) as rig:
            position, shown, turns = 0, {}, 0
            reader = rig.reader()

            async def read() -> None:
                nonlocal position
                for entry in await drink(reader):
                    first = entry.first if isinstance(entry, Gap) else entry.number
                    assert first == position + 1
                    position = entry.last if isinstance(entry, Gap) else entry.number
                    if isinstance(entry, NumberedEvent):
                        shown[entry.number] = entry.message

            for act in acts:
                await step(rig, act, turns := turns + 1)
                if act in {"read", "turn"} and rig.store.unavailable is None:
                    await read()
            rig.store.unavailable = None
            await trio.sleep(10 * WRITE_SECS)
            await read()
            assert position >= rig.feed.written
            reader.close()

    run_in_virtual_time(play)


async def step(rig: Rig, act: str, index: int) -> None:
    """One thing that may happen to a feed."""
    match act:
        case "say":
            rig.say(1)
        case "burst":
            rig.say(30, size=1000)
        case "turn" if rig.store.unavailable is None:
            await rig.store.begin_turn(TurnStart(SESSION, index, "", 5))
            with rig.feed.spanning(EventSpan()):
                rig.say(3)
                await trio.lowlevel.checkpoint()
            await end_turn(rig, index)
        case "rest":
            await trio.sleep(2 * WRITE_SECS)
        case "fail":
            rig.store.unavailable = "told to fail"
        case "mend":
            rig.store.unavailable = None
        case "crash" if rig.store.unavailable is None:
            await rig.store.begin_turn(TurnStart(SESSION, index, "", 5))
            with rig.feed.spanning(EventSpan()):
                rig.say(7)
            await rig.store.interrupt_turns(at=9)
            rig.feed.take_up(await rig.store.take_up_events(SESSION))


async def end_turn(rig: Rig, index: int) -> None:
    """The ending and what is not written yet, in one transaction."""
    batch = rig.feed.unwritten()
    end = TurnEnd(SESSION, index, "completed", "end_turn", "", 1, 6)
    await rig.store.end_turn(end, batch)
    rig.feed.mark_written(batch)
