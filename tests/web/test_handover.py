"""The queue between a connection and its request: no turn of the loop, and the same limits."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from clawdforge.handover import give, take

pytestmark = pytest.mark.virtual_time


class Turns(trio.abc.Instrument):
    """Counts the turns of the loop."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:
        """One more."""
        self.count += 1


async def test_what_can_be_had_at_once_costs_no_turn_of_the_loop() -> None:
    """A message that there is room for, or that lies there, is handed over without a turn."""
    giving, taking = trio.open_memory_channel[int](3)
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    try:
        for number in range(3):
            await give(giving, number)
        assert [await take(taking) for _ in range(3)] == [0, 1, 2]
        assert turns.count == 0
        await trio.lowlevel.checkpoint()
        assert turns.count > 0  # so it does count
    finally:
        trio.lowlevel.remove_instrument(turns)


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
