"""The store alone: turns begun and ended per second, by one writer and by many at once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final

import trio

from bench.figures import Line
from bench.plan import Plan
from clawdforge.domain.ids import AgentName, AppName, SessionId
from clawdforge.domain.ports import SessionRow, Store, TurnEnd, TurnStart
from clawdforge.store.sqlite import open_sqlite_store

PART: Final = "store"
WRITERS: Final = (1, 16, 256)


def measure_store(plan: Plan) -> Iterator[Line]:
    """Each turn is two commits, which its writer waits for."""
    found: dict[int, list[float]] = {writers: [] for writers in WRITERS}
    for _ in range(plan.blocks):
        for writers in WRITERS:
            folder = plan.new_folder()
            folder.mkdir(parents=True)
            found[writers].append(trio.run(_write, folder / "bench.db", writers, plan.store_turns))
    for writers, rates in found.items():
        name = f"{writers} writers" if writers > 1 else "one writer"
        base = None if writers == 1 else "one writer"
        yield Line(PART, name, "rate", "turns/s", tuple(rates), base)


async def _write(path: Path, writers: int, turns: int) -> float:
    """Turns per second."""
    each = max(1, turns // writers)
    async with open_sqlite_store(path) as store:
        for number in range(writers):
            row = SessionRow(_name(number), AppName("bench"), AgentName("a"), None, 1, "ask")
            await store.add_session(row)
        began = perf_counter()
        async with trio.open_nursery() as nursery:
            for number in range(writers):
                nursery.start_soon(partial(_run_turns, store, _name(number), each))
        return writers * each / (perf_counter() - began)


async def _run_turns(store: Store, session: SessionId, count: int) -> None:
    for index in range(1, count + 1):
        await store.begin_turn(TurnStart(session, index, "hello", 1))
        await store.end_turn(TurnEnd(session, index, "completed", "end_turn", "hi", 1, 1))


def _name(number: int) -> SessionId:
    return SessionId(f"session-{number:016}")
