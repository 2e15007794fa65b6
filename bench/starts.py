"""Create and first turn: from nothing, and with a process tree that waits ready."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median
from time import perf_counter, sleep

from bench.clients import drive
from bench.figures import Line
from bench.plan import Plan
from bench.subjects import PROMPT, Service, clawdforge

PART = "create and first turn"
REFILL_SECS = 3.0
"""What the shelf gets between two creations: it waits a second, and a start takes up to another."""


def measure_starts(plan: Plan) -> Iterator[Line]:
    """Each transport, cold and warm, and a turn in a session that lives, in turn."""
    with ExitStack() as stack:
        cold = stack.enter_context(clawdforge(plan.new_folder()))
        warm = stack.enter_context(clawdforge(plan.new_folder(), warm=1))
        found: dict[str, list[float]] = {}
        for _ in range(plan.blocks):
            for agent in plan.transports:
                for name, service in ((f"{agent}, cold", cold), (f"{agent}, warm", warm)):
                    times = [_start(service, agent) for _ in range(plan.starts)]
                    found.setdefault(name, []).append(median(times))
                found.setdefault(f"{agent}, a turn", []).append(_turn(cold, agent, plan.turns))
    for name, values in found.items():
        transport = name.partition(",")[0]
        base = None if name.endswith("a turn") else f"{transport}, a turn"
        yield Line(PART, name, "median", "ms", tuple(values), base)


def _start(service: Service, agent: str) -> float:
    """One creation with its first turn, in milliseconds."""
    sleep(REFILL_SECS)
    with service.call.kept() as ask:
        ask("GET", "/healthz", None)
        began = perf_counter()
        session = ask("POST", "/sessions", {"agent": agent})["session_id"]
        ask("POST", f"/sessions/{session}/turn", {"prompt": PROMPT})
        took = (perf_counter() - began) * 1000
    service.close_session(session)
    return took


def _turn(service: Service, agent: str, count: int) -> float:
    """The median turn of a session that lives, in milliseconds."""
    opened = service.open_sessions(1, agent)
    with service.turns(opened, is_stream=False) as channels:
        times = drive(channels, count)
    service.close_session(opened[0])
    return median(timing.total_secs for timing in times) * 1000
