"""Thirty days in a few seconds: sessions come and go, and nothing is kept that need not be."""

from __future__ import annotations

import gc
import random
from typing import Final

import attrs
import pytest
import trio
import trio.testing

from clawdforge.domain.ids import AppName, SessionId
from clawdforge.errors import AgentNotStarted, CapacityError, SessionClosed
from tests.actors.conftest import OpenStage, Stage

pytestmark = pytest.mark.virtual_time

HOUR_SECS: Final = 3600
WARM_DAYS: Final = 5
DAYS: Final = 30


@attrs.frozen
class Sizes:
    """Everything that could grow."""

    rows: int
    turns: int
    audit: int
    conversations: int
    slots: int
    tasks: int
    objects: int


def measure(stage: Stage) -> Sizes:
    """What there is now, the fake launcher's own notes left out."""
    stage.launcher.agents.clear()
    stage.launcher.discarded.clear()
    gc.collect()
    return Sizes(
        rows=len(stage.store.sessions),
        turns=sum(map(len, stage.store.turns.values())),
        audit=len(stage.store.audit),
        conversations=len(stage.launcher.conversations),
        slots=stage.service.open_sessions,
        tasks=trio.lowlevel.current_statistics().tasks_living,
        objects=len(gc.get_objects()),
    )


async def pass_time(stage: Stage, secs: int) -> None:
    """Both clocks go on together; the sweeper ticks as it likes."""
    for _ in range(secs // 900):
        stage.wall.seconds += 900
        await trio.sleep(900)


async def live_a_while(stage: Stage, rng: random.Random) -> None:
    """Some sessions are opened, used, mistreated, closed or left to themselves."""
    opened: list[SessionId] = []
    for _ in range(rng.randrange(1, 4)):
        stage.launcher.starting = "works" if rng.random() < 0.9 else "fails"
        try:
            opened.append(await stage.open())
        except (CapacityError, AgentNotStarted):
            continue
    stage.launcher.starting = "works"
    for session in opened:
        await use(stage, session, rng)
        if rng.random() < 0.3:
            await stage.service.close_session(session, AppName("kitchen"))
    await pass_time(stage, 3 * HOUR_SECS)


async def use(stage: Stage, session: SessionId, rng: random.Random) -> None:
    """A few turns, of which some end badly."""
    for prompt in rng.choices(["hello", "crash: 3", "fail: no", "flood: 20", "sleep: 30"], k=3):
        asked = await stage.ask_turn(session, prompt, within=20)
        if rng.random() < 0.2:
            asked.hang_up()
        await asked.done.wait()
        assert not isinstance(asked.error, SessionClosed)


@pytest.mark.parametrize("seed", [1])
async def test_thirty_days(open_stage: OpenStage, seed: int) -> None:
    """Rows, turns, audit, tasks and objects on the last day are what they were on the fifth."""
    rng = random.Random(seed)
    settings = {"audit_days": 2, "sweep_secs": 900, "session_hard_ttl_secs": 24 * HOUR_SECS}
    async with open_stage(**settings, max_live_sessions=8) as stage:
        days = []
        for _ in range(DAYS):
            for _ in range(7):
                await live_a_while(stage, rng)
            await pass_time(stage, 3 * HOUR_SECS)  # at night all are idle, and closed
            days.append(measure(stage))
    early, late = days[WARM_DAYS:15], days[-10:]
    for field in attrs.fields(Sizes):
        most = max(getattr(day, field.name) for day in early)
        assert max(getattr(day, field.name) for day in late) <= 1.15 * most + 5, field.name
    assert {day.slots for day in days} == {0}
    assert len({day.tasks for day in days}) == 1
