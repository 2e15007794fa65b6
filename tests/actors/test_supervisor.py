"""Supervision: who comes back, how often, and who hears of it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from clawdforge.actors.supervisor import ChildEnded, ChildSpec, IntensityReached, run_child
from clawdforge.domain.restarting import Intensity


class Crash(Exception):
    """What the children of these tests die of."""


class Child:
    """Ends as its script says, one life a word; after the script it waits for ever."""

    def __init__(self, *script: str) -> None:
        self.script = list(script)
        self.lives = 0

    async def run(self) -> None:
        self.lives += 1
        await trio.lowlevel.checkpoint()
        if not self.script:
            await trio.sleep_forever()
        if self.script.pop(0) == "crash":
            raise Crash


async def test_a_temporary_child_that_crashes_stays_down() -> None:
    """It is reported and not started again."""
    child, reports = Child("crash"), list[ChildEnded]()
    await run_child(ChildSpec("session", child.run, "temporary"), reports.append)
    assert child.lives == 1
    assert [(r.name, type(r.error), r.is_restarted) for r in reports] == [("session", Crash, False)]


@pytest.mark.parametrize("end", ["crash", "return"])
async def test_a_permanent_child_comes_back(end: str) -> None:
    """Whether it crashed or just ended."""
    child, reports = Child(end), list[ChildEnded]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_child, ChildSpec("pool", child.run, "permanent"), reports.append)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert child.lives == 2
    assert [r.is_restarted for r in reports] == [True]


async def test_a_child_that_keeps_crashing_is_given_up_aloud() -> None:
    """Past its intensity the supervisor itself fails, naming the child."""
    child, reports = Child(*["crash"] * 9), list[ChildEnded]()
    with pytest.raises(IntensityReached) as caught:
        await run_child(
            ChildSpec("pool", child.run, "permanent"), reports.append, Intensity(3, 5.0)
        )
    assert child.lives == 4
    assert caught.value.name == "pool"
    assert [r.is_restarted for r in reports] == [True, True, True, False]
    assert isinstance(caught.value.__cause__, Crash)


@pytest.mark.virtual_time
async def test_crashes_far_apart_never_spend_the_budget() -> None:
    """The budget counts only what happened within its time."""
    lives = 0

    async def run() -> None:
        nonlocal lives
        lives += 1
        await trio.sleep(6)
        if lives < 10:
            raise Crash
        await trio.sleep_forever()

    with trio.move_on_after(100):
        await run_child(ChildSpec("pool", run, "permanent"), lambda _: None, Intensity(1, 5.0))
    assert lives == 10


async def test_cancelling_is_nobodys_crash() -> None:
    """A child that is cancelled is neither reported nor restarted."""
    child, reports = Child(), list[ChildEnded]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_child, ChildSpec("pool", child.run, "permanent"), reports.append)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert (child.lives, reports) == (1, [])
