"""Create and first turn: from nothing, and with a process tree that waits ready."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median
from time import perf_counter, sleep
from typing import Any

from bench.figures import Line
from bench.plan import Plan
from bench.subjects import PROMPT, Service, clawdforge

PART = "create and first turn"
REFILL_SECS = 3.0
"""What the shelf gets between two creations: it waits a second, and a start takes up to another."""

Ask = Callable[[str, str, object], Any]


def measure_starts(plan: Plan) -> Iterator[Line]:
    """Each transport, cold and warm, and a turn in a session that lives.

    All follow the same rest: a machine that has rested is slower at anything. The warm start and
    the turn beside it are of one service, and each is as often before the other as after it:
    who is second finds the service awake.
    """
    with ExitStack() as stack:
        cold = stack.enter_context(clawdforge(plan.new_folder()))
        warm = stack.enter_context(clawdforge(plan.new_folder(), warm=1))
        timers: list[tuple[str, Callable[[], float]]] = []
        for agent in plan.transports:
            (session,) = warm.open_sessions(1, agent)
            timers += [
                (f"{agent}, cold", partial(_time_start, cold, agent)),
                (f"{agent}, warm", partial(_time_start, warm, agent)),
                (f"{agent}, a turn", partial(_time_turn, warm, session)),
            ]
        for _, timer in timers:
            timer()
        found: dict[str, list[float]] = {}
        for _ in range(plan.blocks):
            for name, value in _run_block(timers, plan.starts).items():
                found.setdefault(name, []).append(value)
    for name, values in found.items():
        transport = name.partition(",")[0]
        base = None if name.endswith("a turn") else f"{transport}, a turn"
        yield Line(PART, name, "median", "ms", tuple(values), base)


def _run_block(timers: Sequence[tuple[str, Callable[[], float]]], count: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name, _ in timers}
    for number in range(count):
        sleep(REFILL_SECS)
        for name, timer in timers[:: 1 if number % 2 == 0 else -1]:
            times[name].append(timer())
    return {name: median(values) for name, values in times.items()}


def _time_start(service: Service, agent: str) -> float:
    """One creation with its first turn, in milliseconds."""
    with service.call.kept() as ask:
        ask("GET", "/healthz", None)
        began = perf_counter()
        session = ask("POST", "/sessions", {"agent": agent})["session_id"]
        _turn(ask, session)
        took = (perf_counter() - began) * 1000
    service.close_session(session)
    return took


def _time_turn(service: Service, session: str) -> float:
    """One turn of a session that lives, in milliseconds."""
    with service.call.kept() as ask:
        ask("GET", "/healthz", None)
        began = perf_counter()
        _turn(ask, session)
        return (perf_counter() - began) * 1000


def _turn(ask: Ask, session: str) -> None:
    ask("POST", f"/sessions/{session}/turn", {"prompt": PROMPT})
