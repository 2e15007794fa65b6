"""What tests of process trees share: bad agents to start, and proof in /proc that they ended."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from clawdforge.processes.child import Child, ChildCommand
from clawdforge.processes.leftovers import ProcessView, living, look_around
from clawdforge.processes.marks import Incarnation
from clawdforge.testing import bad_agents

GONE_SECS = 2.0
"""The promise: nothing is left after this long."""

START_SECS = 20.0
"""Far beyond what any start takes: past it the test fails loudly."""

FAMILY = ("deaf", "plain", "setsid", "daemon", "bare", "ready", "hang")
"""The worst tree: deaf, with one grandchild of every kind."""


def new_incarnation() -> Incarnation:
    """One that no other test has."""
    return Incarnation(secrets.token_hex(6), "first")


def command(
    incarnation: Incarnation, *habits: str, max_line_bytes: int = 1024 * 1024
) -> ChildCommand:
    """Run a bad agent."""
    return ChildCommand(
        argv=[sys.executable, "-I", "-S", bad_agents.__file__, *habits],
        env={"PATH": os.environ["PATH"]},
        cwd=Path("/"),
        incarnation=incarnation,
        max_line_bytes=max_line_bytes,
    )


def family_of(incarnation: Incarnation) -> list[ProcessView]:
    """Who lives with a mark of this incarnation, or in a session with one who does."""
    views = living(look_around())
    marked = [v for v in views if v.mark and v.mark.incarnation == incarnation]
    sessions = {view.session_id for view in marked}
    return [view for view in views if view in marked or view.session_id in sessions]


def is_alive(view: ProcessView) -> bool:
    """Whether this very process (not a later one with its pid) still runs."""
    return any(
        (now.pid, now.started_ticks) == (view.pid, view.started_ticks)
        for now in living(look_around())
    )


def environment_of(pid: int) -> list[str]:
    """The environment a process was started with, in order."""
    return Path(f"/proc/{pid}/environ").read_text().split("\0")[:-1]


def program_of(child: Child) -> int:
    """The pid of the child's own program: the warden's first child."""
    return int(Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()[0])


async def until(condition: Callable[[], bool], within_secs: float = START_SECS) -> None:
    """Return when ``condition`` holds; fail after ``within_secs``. For what tells nobody itself."""
    with trio.fail_after(within_secs):
        while not condition():  # noqa: ASYNC110 (/proc and threads have no event)
            await trio.sleep(0.01)


async def until_gone(incarnation: Incarnation, seen: list[ProcessView]) -> None:
    """Return when none of ``seen`` lives and nothing carries the mark; fail after GONE_SECS."""
    await until(
        lambda: not family_of(incarnation) and not any(is_alive(view) for view in seen), GONE_SECS
    )


def open_files() -> int:
    """How many file descriptors this process holds."""
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def nothing_survives(incarnation: Incarnation) -> Iterator[None]:
    """Whatever the test does, leave none of its processes behind."""
    seen: list[ProcessView] = []
    try:
        yield
    finally:
        seen += family_of(incarnation)
        for view in seen:
            if is_alive(view):
                os.kill(view.pid, 9)


class Lines:
    """The lines of a child, which can be waited for."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.skipped = 0
        self._changed = trio.Event()

    def on_line(self, line: bytes) -> None:
        """For ``run_child``."""
        self.seen.append(line)
        self._changed.set()
        self._changed = trio.Event()

    def on_skipped(self, count: int) -> None:
        """For ``run_child``."""
        self.skipped += count

    async def until(self, count: int) -> None:
        """Return when at least ``count`` lines have come."""
        with trio.fail_after(START_SECS):
            while len(self.seen) < count:
                await self._changed.wait()
