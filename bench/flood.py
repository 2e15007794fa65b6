"""A turn of twenty thousand events: how many a second reach the client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from bench.figures import Line
from bench.plan import Plan
from bench.subjects import bare_pipes, clawdforge
from bench.turns import PIPE, Subject, run_blocks


def measure_flood(plan: Plan) -> Iterator[Line]:
    """The agent writes as fast as it can; every event is numbered, kept and passed on."""
    part: Final = f"a turn of {plan.events:,} events"
    prompt = f"flood: {plan.events}"
    with ExitStack() as stack:
        pipes = stack.enter_context(bare_pipes(plan.new_folder(), 1, prompt))
        service = stack.enter_context(clawdforge(plan.new_folder()))
        subjects = [Subject(PIPE, pipes)]
        for agent in plan.transports:
            opened = service.open_sessions(1, agent)
            for is_stream in (False, True):
                channels = service.turns(opened, is_stream=is_stream, prompt=prompt)
                name = f"{agent}, {'streamed' if is_stream else 'plain'}"
                subjects.append(Subject(name, stack.enter_context(channels), service.tree))
        for name, blocks in run_blocks(plan, subjects, 1).items():
            rates = tuple(plan.events / block.timings[0].total_secs for block in blocks)
            base = None if name == PIPE else PIPE
            yield Line(part, name, "rate", "events/s", rates, base)
