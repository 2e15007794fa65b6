"""The feed: numbers without gaps, written in batches, read by position, never in anybody's way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from clawdforge.actors.feed import RECENT_BYTES, WRITE_SECS, EventSpan, Feed, Feeds
from clawdforge.actors.reader import EventReader, TurnReader
from clawdforge.domain.events import EVENT_RESERVE, Entry, EventBatch, Gap, NumberedEvent
from clawdforge.domain.ids import AgentName, AppName, SessionId
from clawdforge.domain.ports import SessionRow, TurnStart
from clawdforge.domain.questions import PendingPermission
from clawdforge.errors import StoreUnavailable
from clawdforge.store.memory import MemoryStore

pytestmark = pytest.mark.virtual_time

SESSION = SessionId("session-of-the-kitchen-0")
PLENTY = 1 << 30


@attrs.define
class CountingStore(MemoryStore):
    """A ledger that remembers how it was written to, and may take its time."""

    batches: list[int] = attrs.field(factory=list)
    takes_secs: float = 0
    is_full: bool = False

    async def append_events(self, batch: EventBatch) -> None:
        await trio.sleep(self.takes_secs)
        if self.is_full:
            raise StoreUnavailable("the disk is full")
        await super().append_events(batch)
        self.batches.append(len(batch.events))


@attrs.frozen
class Rig:
    """A feed with its writer running, and what it stands on."""

    store: CountingStore
    feeds: Feeds
    feed: Feed

    def say(self, count: int, *, size: int = 0) -> None:
        for _ in range(count):
            message = {"n": self.feed.last + 1, "pad": "x" * size}
            self.feed.add(message, json.dumps(message).encode())

    def reader(self, after: int = 0) -> EventReader:
        return EventReader(self.feeds, SESSION, after=after)


@asynccontextmanager
async def rigged(*, keep_bytes: int = PLENTY) -> AsyncIterator[Rig]:
    """A feed of a session that is in the ledger."""
    store = CountingStore()
    await store.add_session(
        SessionRow(SESSION, AppName("kitchen"), AgentName("demo"), None, 1, "ask")
    )
    feeds = Feeds(store, keep_bytes)
    feed = feeds.hold(SESSION)
    feed.take_up(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run_writer)
        yield Rig(store, feeds, feed)
        nursery.cancel_scope.cancel()


async def drink(reader: EventReader) -> list[Entry]:
    """Everything that there is to take."""
    entries: list[Entry] = []
    while taken := await reader.take():
        entries += taken
    return entries


def numbers(entries: Sequence[Entry]) -> list[int]:
    """The numbers of the events among them."""
    return [entry.number for entry in entries if isinstance(entry, NumberedEvent)]


async def test_numbers_begin_at_one_and_have_no_gaps() -> None:
    """A reader gets what was said, word for word, in order."""
    async with rigged() as rig:
        with rig.feed.spanning(EventSpan()):
            for wire in ('{ "text":"ä\u2028",  "one":1.0}\r', '{"text":"ä\ud800"}'):
                rig.feed.add(json.loads(wire), wire.encode("utf-8", "surrogatepass"))
            rig.say(2)
            entries = await drink(rig.reader())
    assert numbers(entries) == [1, 2, 3, 4]
    texts = [entry.message for entry in entries[:2] if isinstance(entry, NumberedEvent)]
    # As it was written; but for half a surrogate pair, which UTF-8 has no bytes for.
    assert texts == ['{ "text":"ä\u2028",  "one":1.0}', '{"text":"\\u00e4\\ud800"}']


async def test_a_turn_is_written_in_batches_not_one_by_one() -> None:
    """Twenty events within a second are one write."""
    async with rigged() as rig:
        with rig.feed.spanning(EventSpan()):
            for _ in range(20):
                rig.say(1)
                await trio.sleep(WRITE_SECS / 40)
            await trio.sleep(2 * WRITE_SECS)
        assert rig.store.batches == [20]


async def test_what_the_endings_transaction_has_is_not_written_again() -> None:
    """A turn shorter than a second costs no write of its own."""
    async with rigged() as rig:
        with rig.feed.spanning(EventSpan()):
            rig.say(5)
        batch = rig.feed.unwritten()
        await rig.store.append_events(batch)
        rig.feed.mark_written(batch)
        await trio.sleep(10 * WRITE_SECS)
        assert rig.store.batches == [5]


async def test_a_burst_is_written_before_the_second_is_over() -> None:
    """Many events, or large ones, do not wait for the tick."""
    async with rigged() as rig:
        with rig.feed.spanning(EventSpan()):
            rig.say(300)
            await trio.testing.wait_all_tasks_blocked()
            assert rig.store.batches == [300]
            rig.say(1, size=RECENT_BYTES // 2)
            await trio.testing.wait_all_tasks_blocked()
            assert rig.store.batches == [300, 1]


async def test_between_turns_an_event_is_written_before_it_is_shown() -> None:
    """No turn is open, so a crash would not be noticed: nothing runs ahead of the log."""
    async with rigged() as rig:
        rig.store.takes_secs = 5
        rig.say(1)
        reader = rig.reader()
        await trio.sleep(4)
        assert await drink(reader) == []
        await trio.sleep(2)
        assert numbers(await drink(reader)) == [1]


async def test_showing_never_runs_further_ahead_than_the_reserve() -> None:
    """With a ledger that hangs, readers of a turn get EVENT_RESERVE events and then wait."""
    async with rigged() as rig:
        rig.store.takes_secs = 3600
        with rig.feed.spanning(EventSpan()):
            rig.say(EVENT_RESERVE + 100)
            reader = rig.reader()
            assert len(await drink(reader)) == EVENT_RESERVE
            await trio.sleep(4000)
            assert len(await drink(reader)) == 100


async def test_a_crash_never_makes_a_number_be_given_twice() -> None:
    """What a reader was shown before a crash in a turn lies before what is numbered afterwards."""
    async with rigged() as rig:
        await rig.store.begin_turn(TurnStart(SESSION, 1, "hello", 5))
        rig.store.takes_secs = 3600
        with rig.feed.spanning(EventSpan()):
            rig.say(10)
            reader = rig.reader()
            assert numbers(await drink(reader)) == list(range(1, 11))
            # The process dies here. What the next one finds:
            await rig.store.interrupt_turns(at=9)
            last = await rig.store.take_up_events(SESSION)
    assert last >= 10
    again = Feeds(rig.store, PLENTY).hold(SESSION)
    again.take_up(last)
    page = await again.page(10, 1000)
    assert page.up_to == last
    assert list(page.events) == []


async def test_a_slow_reader_is_served_from_the_log() -> None:
    """Far more than memory holds: nothing is lost, nothing is repeated, the order is kept."""
    async with rigged() as rig:
        reader = rig.reader()
        with rig.feed.spanning(EventSpan()):
            for _ in range(40):
                rig.say(50, size=2000)
                await trio.testing.wait_all_tasks_blocked()
            held = sum(event.size_bytes for event in rig.feed._recent)
            assert held <= RECENT_BYTES
            assert numbers(await drink(reader)) == list(range(1, 2001))


async def test_what_the_log_has_dropped_is_said() -> None:
    """A reader that comes too late is told which numbers it will not get."""
    async with rigged(keep_bytes=100_000) as rig:
        with rig.feed.spanning(EventSpan()):
            for _ in range(40):
                rig.say(50, size=2000)
                await trio.testing.wait_all_tasks_blocked()
            gap, *entries = await drink(rig.reader(after=3))
    assert isinstance(gap, Gap)
    assert gap.first == 4
    assert numbers(entries) == list(range(gap.last + 1, 2001))


async def test_what_neither_memory_nor_log_could_hold_is_said() -> None:
    """With a ledger that fails for long, the oldest are lost, and readers learn which."""
    async with rigged() as rig:
        reader = rig.reader()
        rig.store.is_full = True
        with rig.feed.spanning(EventSpan()):
            rig.say(300, size=100_000)
            gap, *rest = await drink(reader)
            assert isinstance(gap, Gap)
            assert numbers(rest) == list(range(gap.last + 1, 301))
            rig.store.is_full = False
            await trio.sleep(10 * WRITE_SECS)
            page = await rig.store.read_events(SESSION, after=0, max_bytes=PLENTY)
            assert (page.events[0].number, page.up_to) == (gap.last + 1, 300)


async def test_taking_in_never_waits() -> None:
    """Twenty thousand events go in between two scheduling steps, whatever reader and ledger do."""
    async with rigged() as rig:
        rig.store.takes_secs = 3600
        reader = rig.reader()
        with rig.feed.spanning(EventSpan()):
            began_at = trio.current_time()
            rig.say(20_000)
            assert trio.current_time() == began_at
        assert rig.feed.last == 20_000
        assert reader.position == 0


async def test_a_reader_is_woken_once_there_is_something() -> None:
    """Its bell rings for events, for questions and for the end, and not otherwise."""
    async with rigged() as rig:
        reader = rig.reader()
        with trio.move_on_after(100) as quiet:
            await reader.bell.wait()
        assert quiet.cancelled_caught
        acts: list[Callable[[], None]] = [
            lambda: rig.say(1),
            lambda: rig.feed.ask(PendingPermission("p-1", 1, {}, (), 0)),
            lambda: rig.feed.leave(end="asked"),
        ]
        for act in acts:
            act()
            await reader.bell.wait()
        assert reader.end == "asked"


async def test_questions_come_after_the_events_before_them() -> None:
    """Each pending request is taken once, in its place; one that is settled not at all."""
    async with rigged() as rig:
        with rig.feed.spanning(EventSpan()):
            rig.say(2)
            rig.feed.ask(PendingPermission("p-1", 1, {}, (), 0))
            rig.feed.ask(PendingPermission("p-2", 1, {}, (), 0))
            rig.feed.settle("p-2")
            reader = rig.reader()
            assert reader.take_questions() == []
            await drink(reader)
            assert [one.request_id for one in reader.take_questions()] == ["p-1"]
            assert reader.take_questions() == []


async def test_a_turns_reader_gets_its_turn_and_nothing_else() -> None:
    """Not what came before, not what came after, and nothing before it has begun."""
    async with rigged() as rig:
        rig.say(3)
        await trio.testing.wait_all_tasks_blocked()
        span = EventSpan()
        reader = TurnReader(rig.feeds, SESSION, span)
        assert await drink(reader) == []
        with rig.feed.spanning(span):
            rig.say(2)
            assert numbers(await drink(reader)) == [4, 5]
            rig.say(2)
        rig.say(3)
        await trio.testing.wait_all_tasks_blocked()
        assert numbers(await drink(reader)) == [6, 7]
        assert numbers(await drink(TurnReader(rig.feeds, SESSION, span))) == [4, 5, 6, 7]


async def test_a_feed_is_there_while_it_is_held() -> None:
    """Readers that have closed leave nothing behind."""
    async with rigged() as rig:
        readers = [rig.reader() for _ in range(10)]
        rig.feeds.let_go(rig.feed)
        assert len(rig.feeds) == 1
        for reader in readers:
            reader.close()
            reader.close()
        assert len(rig.feeds) == 0
        assert "0 readers" in repr(rig.feed)


async def test_a_reader_outlives_the_actor_and_finds_the_next() -> None:
    """An actor that ends without closing its session leaves the reader waiting for another."""
    async with rigged() as rig:
        reader = rig.reader()
        rig.say(2)
        await trio.testing.wait_all_tasks_blocked()
        assert numbers(await drink(reader)) == [1, 2]
        rig.feed.leave(end=None)
        assert await drink(reader) == []
        rig.feed.take_up(2)
        rig.say(1)
        await trio.testing.wait_all_tasks_blocked()
        assert numbers(await drink(reader)) == [3]
