"""What a turn costs over the bare pipe, for one session and for many at once; its first event."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from statistics import median
from typing import Final

import attrs

from bench.clients import Channel, Timing, drive
from bench.figures import Line, p95
from bench.plan import Plan
from bench.processes import Tree
from bench.subjects import Service, bare_pipes, clawdforge

PIPE: Final = "bare pipe"
TRIVIAL: Final = "GET /healthz"


@attrs.frozen
class Subject:
    """Who is asked: its channels, and the process whose processor time is counted.

    ``times`` as many requests make a block of one that is so much quicker than a turn.
    """

    name: str
    channels: Sequence[Channel]
    tree: Tree | None = None
    times: int = 1


@attrs.frozen
class Block:
    """One subject in one block."""

    timings: Sequence[Timing]
    cpu_secs: float

    def times_ms(self) -> list[float]:
        """From the request to the end of the answer."""
        return [timing.total_secs * 1000 for timing in self.timings]

    def firsts_ms(self) -> list[float]:
        """From the request to the first event."""
        return [timing.first_secs * 1000 for timing in self.timings]


Opener = Callable[[Plan, int], AbstractContextManager[Sequence[Subject]]]
"""Peers come in this way: subjects for so many sessions."""


def measure_turns(plan: Plan, sessions: int, peers: Sequence[Opener] = ()) -> Iterator[Line]:
    """One part: every subject with so many sessions, interleaved."""
    part = f"turns, {sessions} at once" if sessions > 1 else "turns, one client"
    count = max(plan.turns, plan.turns_each * sessions)
    with ExitStack() as stack:
        subjects = [
            Subject(PIPE, stack.enter_context(bare_pipes(plan.new_folder(), sessions))),
            *_ours(stack, plan, sessions),
        ]
        for peer in peers:
            subjects += stack.enter_context(peer(plan, sessions))
        for subject in subjects:
            drive(subject.channels, max(plan.warm_up, sessions))
        blocks = run_blocks(plan, subjects, count)
    yield from _lines(part, blocks, subjects)


def _ours(stack: ExitStack, plan: Plan, sessions: int) -> Iterator[Subject]:
    """The service over each transport, plain and streamed, and its cheapest route."""
    service = stack.enter_context(clawdforge(plan.new_folder()))
    for agent in plan.transports:
        opened = service.open_sessions(sessions, agent)
        for is_stream in (False, True):
            channels = stack.enter_context(service.turns(opened, is_stream=is_stream))
            form = "streamed" if is_stream else "plain"
            yield Subject(f"{agent}, {form}", channels, service.tree)
    trivial = [("GET", "/healthz", None)] * sessions
    yield Subject(TRIVIAL, stack.enter_context(service.requests(trivial)), service.tree, times=5)


def run_blocks(
    plan: Plan, subjects: Sequence[Subject], count: int
) -> Mapping[str, Sequence[Block]]:
    """Each subject once a block; the order turns, so that nobody is always first."""
    blocks: dict[str, list[Block]] = {subject.name: [] for subject in subjects}
    for number in range(plan.blocks):
        start = number % len(subjects)
        for subject in (*subjects[start:], *subjects[:start]):
            before = subject.tree.cpu_secs() if subject.tree else 0.0
            timings = drive(subject.channels, count * subject.times)
            spent = subject.tree.cpu_secs() - before if subject.tree else 0.0
            blocks[subject.name].append(Block(timings, spent))
    return blocks


def _lines(
    part: str, blocks: Mapping[str, Sequence[Block]], subjects: Sequence[Subject]
) -> Iterator[Line]:
    for subject in subjects:
        found = blocks[subject.name]
        base = None if subject.name == PIPE else PIPE
        medians = tuple(median(block.times_ms()) for block in found)
        worst = tuple(p95(block.times_ms()) for block in found)
        yield Line(part, subject.name, "median", "ms", medians, base)
        yield Line(part, subject.name, "p95", "ms", worst, base)
        if subject.name == PIPE or "streamed" in subject.name:
            firsts = tuple(median(block.firsts_ms()) for block in found)
            yield Line(part, subject.name, "first event", "ms", firsts, base)
        if subject.tree is not None:
            cpu = tuple(block.cpu_secs * 1000 / len(block.timings) for block in found)
            over = TRIVIAL if TRIVIAL in blocks and subject.name != TRIVIAL else None
            yield Line(part, subject.name, "processor", "ms", cpu, over)


def of_service(service: Service, name: str, channels: Sequence[Channel]) -> Subject:
    """A subject that is a route of a service."""
    return Subject(name, channels, service.tree)
