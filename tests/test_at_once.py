"""What can be had at once costs no turn of the loop; what cannot is waited for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from clawdforge.at_once import acquire, give, take

pytestmark = pytest.mark.virtual_time


class Turns(trio.abc.Instrument):
    """Counts the turns of the loop."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:
        """One more."""
        self.count += 1


@pytest.fixture
async def turns() -> AsyncIterator[Turns]:
    """Counts from here on."""
    counting = Turns()
    trio.lowlevel.add_instrument(counting)
    yield counting
    trio.lowlevel.remove_instrument(counting)


async def test_what_can_be_had_at_once_costs_no_turn_of_the_loop(turns: Turns) -> None:
    """A message that there is room for, or that lies there, is handed over without a turn."""
    giving, taking = trio.open_memory_channel[int](3)
    turns.count = 0
    for number in range(3):
        await give(giving, number)
    assert [await take(taking) for _ in range(3)] == [0, 1, 2]
    assert turns.count == 0
    await trio.lowlevel.checkpoint()
    assert turns.count > 0  # so it does count


async def test_a_full_queue_is_waited_for() -> None:
    """Whoever gives waits until there is room: a large body comes at its reader's pace."""
    giving, taking = trio.open_memory_channel[int](1)
    await give(giving, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(give, giving, 2)
        await wait_all_tasks_blocked()
        assert taking.statistics().tasks_waiting_send == 1
        assert [await take(taking), await take(taking)] == [1, 2]


async def test_an_empty_queue_is_waited_for() -> None:
    """Whoever takes waits until there is something."""
    giving, taking = trio.open_memory_channel[int](1)
    got: list[int] = []

    async def take_one() -> None:
        got.append(await take(taking))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_one)
        await wait_all_tasks_blocked()
        assert got == []
        await give(giving, 7)
    assert got == [7]


async def test_a_cancelled_task_is_told_even_if_nothing_has_to_wait() -> None:
    """Handing over is a place where cancellation arrives, and takes nothing with it."""
    giving, taking = trio.open_memory_channel[int](2)
    await give(giving, 1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await take(taking)
    assert scope.cancelled_caught
    with trio.CancelScope() as scope:
        scope.cancel()
        await give(giving, 2)
    assert scope.cancelled_caught
    assert await take(taking) == 1
    assert taking.statistics().current_buffer_used == 0


async def test_a_free_lock_costs_no_turn_of_the_loop(turns: Turns) -> None:
    """Whoever comes first holds it at once; whoever comes next waits until it is released."""
    lock = trio.Lock()
    turns.count = 0
    await acquire(lock)
    assert turns.count == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(acquire, lock)
        await wait_all_tasks_blocked()
        assert lock.statistics().tasks_waiting == 1
        lock.release()


async def test_a_cancelled_task_gets_no_lock() -> None:
    """Not even one that is free, and it stays free."""
    lock = trio.Lock()
    with trio.CancelScope() as scope:
        scope.cancel()
        await acquire(lock)
    assert scope.cancelled_caught
    assert not lock.locked()
