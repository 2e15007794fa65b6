"""Memory: of the idle service, and what each session adds, in PSS (proc(5), smaps_rollup)."""

from __future__ import annotations

from collections.abc import Iterator
from time import sleep
from typing import Final

from bench.clients import drive
from bench.figures import Line
from bench.plan import Plan
from bench.subjects import clawdforge

PART: Final = "memory"
SETTLE_SECS: Final = 1.0
TURNS: Final = 20


def measure_memory(plan: Plan) -> Iterator[Line]:
    """The service alone; a session that has never been asked; one after some turns."""
    with clawdforge(plan.new_folder()) as service:
        sleep(SETTLE_SECS)
        idle = service.tree.pss_mib()
        yield Line(PART, "service, idle", "PSS", "MiB", (idle,))
        for agent in plan.transports:
            before, own = service.tree.pss_mib(), service.tree.own_pss_mib()
            sessions = service.open_sessions(plan.live_sessions, agent)
            sleep(SETTLE_SECS)
            opened = (service.tree.pss_mib() - before) / plan.live_sessions
            with service.turns(sessions, is_stream=False) as channels:
                drive(channels, TURNS * len(sessions))
            sleep(SETTLE_SECS)
            lived = (service.tree.pss_mib() - before) / plan.live_sessions
            ours = (service.tree.own_pss_mib() - own) / plan.live_sessions
            yield Line(PART, f"{agent}, a session", "PSS", "MiB", (opened,))
            yield Line(PART, f"{agent}, a session after {TURNS} turns", "PSS", "MiB", (lived,))
            yield Line(PART, f"{agent}, of that in the service", "PSS", "MiB", (ours,))
            for session in sessions:
                service.close_session(session)
            sleep(SETTLE_SECS)
