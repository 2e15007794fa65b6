"""The event log, clause by clause, for both twins."""

from __future__ import annotations

from pathlib import Path

import attrs

from clawdforge.domain.events import (
    EVENT_RESERVE,
    EventBatch,
    EventPage,
    NumberedEvent,
)
from clawdforge.domain.ports import Store

from .examples import ended, from_outside, session, session_id, turn

PLENTY = 1 << 30


def events(*numbers: int, size: int = 10) -> list[NumberedEvent]:
    """Events of ``size`` bytes each."""
    return [NumberedEvent(number, f"{number:0{size}d}") for number in numbers]


def batch(*numbers: int, keep_bytes: int = PLENTY, of: int = 1) -> EventBatch:
    """Events of ``session(of)``."""
    return EventBatch(session_id(of), events(*numbers), keep_bytes)


async def page(store: Store, after: int = 0, *, max_bytes: int = PLENTY, of: int = 1) -> EventPage:
    """What the log answers, in lists so that pages compare."""
    found = await store.read_events(session_id(of), after=after, max_bytes=max_bytes)
    return EventPage(list(found.events), found.up_to)


async def test_events_come_back_in_order(store: Store) -> None:
    """What batches brought is one sequence, and the page says how far it speaks."""
    await store.add_session(session())
    await store.append_events(batch(1, 2))
    await store.append_events(batch(3))
    assert await page(store) == EventPage(events(1, 2, 3), 3)
    assert await page(store, 2) == EventPage(events(3), 3)
    assert await page(store, 3) == EventPage([], 3)


async def test_a_page_is_bounded_and_never_empty_in_vain(store: Store) -> None:
    """As many events as fit the bound, at least one; a cut page speaks no further than it goes."""
    await store.add_session(session())
    await store.append_events(batch(1, 2, 3, 4, 5))
    assert await page(store, max_bytes=25) == EventPage(events(1, 2), 2)
    assert await page(store, max_bytes=1) == EventPage(events(1), 1)
    assert await page(store, 3, max_bytes=20) == EventPage(events(4, 5), 5)


async def test_appending_may_be_repeated(store: Store) -> None:
    """Numbers that the log has are left as they are, also when a batch brings some new ones."""
    await store.add_session(session())
    await store.append_events(batch(1, 2))
    other = [NumberedEvent(2, "another"), *events(3)]
    await store.append_events(attrs.evolve(batch(), events=other))
    assert await page(store) == EventPage(events(1, 2, 3), 3)


async def test_the_oldest_are_dropped_past_the_limit(store: Store) -> None:
    """What stays fits the limit, and a dropped number is not given again."""
    await store.add_session(session())
    for number in range(1, 8):
        await store.append_events(batch(number, keep_bytes=35))
    assert await page(store) == EventPage(events(5, 6, 7), 7)
    await store.append_events(batch(8, keep_bytes=0))
    assert await page(store) == EventPage([], 8)
    await store.append_events(batch(8))
    assert await page(store) == EventPage([], 8)


async def test_bytes_are_counted_not_characters(store: Store) -> None:
    """The limit is of UTF-8."""
    await store.add_session(session())
    wide = [NumberedEvent(1, "ä" * 5), NumberedEvent(2, "ä" * 5)]
    await store.append_events(EventBatch(session_id(1), wide, 19))
    assert await page(store) == EventPage(wide[1:], 2)


async def test_every_session_has_its_own_log(store: Store) -> None:
    """The same numbers in two sessions are two events; a missing session has no log."""
    await store.add_session(session(1))
    await store.add_session(session(2))
    await store.append_events(batch(1, 2, of=1))
    await store.append_events(batch(1, of=2))
    await store.append_events(batch(1, of=3))
    assert (await page(store, of=1)).up_to == 2
    assert await page(store, of=2) == EventPage(events(1), 1)
    assert await page(store, of=3) == EventPage([], 0)
    await store.add_session(session(3))
    assert await page(store, of=3) == EventPage([], 0)


async def test_a_deleted_session_takes_its_events_along(store: Store) -> None:
    """Deleted or undone: nothing of the log is left."""
    for number in (1, 2):
        await store.add_session(session(number))
        await store.append_events(batch(1, 2, of=number))
    await store.delete_session(session_id(1), at=80)
    await store.undo_session(session(2), cause="caller_gone", at=80)
    assert await page(store, of=1) == await page(store, of=2) == EventPage([], 0)


async def test_a_turns_last_events_are_written_with_its_ending(store: Store) -> None:
    """One call, and the ending says which events were the turn's."""
    await store.add_session(session())
    await store.begin_turn(turn())
    end = attrs.evolve(ended(), first_event=1, last_event=2)
    assert await store.end_turn(end, batch(1, 2))
    assert not await store.end_turn(end, batch(2, 3))
    (found,) = await store.list_turns(session_id(1), before=None, limit=9)
    assert found.end == end
    assert await page(store) == EventPage(events(1, 2, 3), 3)


async def test_numbers_that_a_crash_may_have_shown_are_not_given_again(store: Store) -> None:
    """An open turn at start-up costs its session the reserve; other sessions go on as they were."""
    for number in (1, 2):
        await store.add_session(session(number))
        await store.append_events(batch(1, 2, of=number))
    await store.begin_turn(turn(1))
    await store.interrupt_turns(at=3000)
    assert await page(store, 2) == EventPage([], 2 + EVENT_RESERVE)
    assert await store.take_up_events(session_id(1)) == 2 + EVENT_RESERVE
    assert await store.take_up_events(session_id(2)) == 2
    assert await store.take_up_events(session_id(3)) == 0


async def test_taking_up_passes_over_what_an_open_turn_may_have_shown(store: Store) -> None:
    """An ending that could not be written is like a crash, and it is remembered."""
    await store.add_session(session())
    await store.begin_turn(turn())
    assert await store.take_up_events(session_id(1)) == EVENT_RESERVE
    assert (await page(store)).up_to == EVENT_RESERVE
    await store.end_turn(ended())
    assert await store.take_up_events(session_id(1)) == EVENT_RESERVE


async def test_what_the_log_holds_is_what_its_session_says(database: Path) -> None:
    """The count in the row, which the limit is measured by, is the size of the rows."""
    from clawdforge.store.sqlite import open_sqlite_store

    async with open_sqlite_store(database) as store:
        await store.add_session(session())
        for first in range(1, 40, 3):
            await store.append_events(batch(first, first + 1, first + 2, keep_bytes=95))
    ((held,), (counted,)) = (
        rows[0]
        for rows in from_outside(
            database,
            "SELECT coalesce(sum(length(message)), 0) FROM agent_events",
            "SELECT event_bytes FROM sessions",
        )
    )
    assert held == counted == 90


async def test_the_write_ahead_log_has_a_size(sqlite_store: Store, database: Path) -> None:
    """Past 4000 pages it is begun anew, not sooner, however much is written."""
    await sqlite_store.add_session(session())
    log, sizes = Path(f"{database}-wal"), []
    for number in range(1, 60):
        one = EventBatch(session_id(1), events(number, size=1_000_000), keep_bytes=2_000_000)
        await sqlite_store.append_events(one)
        sizes.append(log.stat().st_size)  # noqa: ASYNC240 - for a moment
    assert 16_000_000 < max(sizes) < 19_000_000
