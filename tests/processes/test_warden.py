"""The warden alone, as a program: what it does to its child, and what it leaves of it."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from clawdforge.processes import warden as warden_module
from clawdforge.processes.leftovers import ProcessView, look_at
from clawdforge.processes.marks import MARK_NAME, Incarnation
from clawdforge.testing import bad_agents
from tests.processes.trees import (
    FAMILY,
    GONE_SECS,
    START_SECS,
    family_of,
    is_alive,
    new_incarnation,
    nothing_survives,
    until,
)

OPEN_FILES = 321
REPORT = """
import json, os, resource
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "fds": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],
    "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    "oom_score": int(open("/proc/self/oom_score_adj").read()),
    "blocked": int(status["SigBlk"], 16), "ignored": int(status["SigIgn"], 16),
    "environ": open("/proc/self/environ").read(),
    "is_group_leader": os.getpgid(0) == os.getpid(), "session": os.getsid(0),
}))
"""


def own_oom_score() -> int:
    """How much the kernel would rather end us than others."""
    return int(Path("/proc/self/oom_score_adj").read_text())


@attrs.define
class Running:
    """A warden under test, and our end of its lifeline."""

    process: subprocess.Popen[bytes]
    lifeline: int
    incarnation: Incarnation

    def cut(self) -> None:
        """Close the lifeline."""
        fd, self.lifeline = self.lifeline, -1
        if fd >= 0:
            os.close(fd)

    def read_line(self) -> dict[str, Any]:
        """The next line of the child."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], START_SECS)[0]
        value = json.loads(self.process.stdout.readline())
        assert isinstance(value, dict)
        return value

    def wait(self) -> int:
        """The warden's exit code."""
        return self.process.wait(START_SECS)

    def family(self) -> list[ProcessView]:
        """All below the warden, and itself."""
        return family_of(self.incarnation)


class Wardens:
    """Starts wardens, and ends them after the test."""

    def __init__(self) -> None:
        self.started: list[Running] = []

    def start(self, *argv: str) -> Running:
        """Start one around ``argv``."""
        incarnation = new_incarnation()
        read, write = os.pipe()
        head = [sys.executable, "-I", "-S", warden_module.__file__, str(read), str(OPEN_FILES)]
        process = subprocess.Popen(
            [*head, "--", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], MARK_NAME: str(incarnation.mark_tree())},
            pass_fds=[read],
            start_new_session=True,
        )
        os.close(read)
        self.started.append(Running(process, write, incarnation))
        return self.started[-1]

    def agent(self, *habits: str) -> Running:
        """Start one around a bad agent."""
        return self.start(sys.executable, "-I", "-S", bad_agents.__file__, *habits)


@pytest.fixture
def wardens() -> Iterator[Wardens]:
    """A starter of wardens."""
    made = Wardens()
    try:
        yield made
    finally:
        for running in made.started:
            with nothing_survives(running.incarnation):
                running.cut()
                running.process.communicate(timeout=START_SECS)


@pytest.mark.parametrize(
    ("habits", "code"),
    [((), 0), (("die",), 3), (("crash",), 128 + signal.SIGSEGV), (("plain", "daemon", "die"), 3)],
)
def test_the_exit_code_is_the_childs(wardens: Wardens, habits: tuple[str, ...], code: int) -> None:
    """The warden ends as its child did, whatever grandchildren had to be killed first."""
    assert wardens.agent(*habits).wait() == code


def test_a_program_that_is_missing(wardens: Wardens) -> None:
    """A program that cannot be started gives 127 and one line on stderr."""
    running = wardens.start("no-such-program")
    assert running.wait() == 127
    assert running.process.stderr is not None
    assert running.process.stderr.read().startswith(b"cannot start no-such-program: ")


@pytest.mark.parametrize("way", ["lifeline", "SIGTERM", "child"])
def test_the_end_of_a_family(wardens: Wardens, way: str) -> None:
    """However it is told to end, the warden ends after the last of its descendants."""
    running = wardens.agent(*FAMILY)
    program = running.read_line()["pid"]
    family = running.family()
    assert len(family) == 6, "warden, program, plain, setsid, daemon, bare"

    if way == "lifeline":
        running.cut()
    elif way == "SIGTERM":
        running.process.terminate()
    else:
        os.kill(program, signal.SIGKILL)

    assert running.wait() == 128 + signal.SIGKILL
    assert [view for view in family if is_alive(view)] == []


def test_a_runaway_is_caught(wardens: Wardens) -> None:
    """A grandchild that forks and ends over and over does not get away under a new pid."""
    running = wardens.agent("runner", "ready", "hang")
    running.read_line()
    running.cut()
    assert running.wait() == 128 + signal.SIGKILL
    assert running.family() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP])
def test_a_terminals_signals_are_ignored(wardens: Wardens, number: signal.Signals) -> None:
    """Ctrl-C and the like do not take a child from under the service."""
    running = wardens.agent("ready", "echo")
    running.read_line()
    running.process.send_signal(number)
    assert running.process.stdin is not None
    running.process.stdin.write(b'{"still": "there"}\n')
    running.process.stdin.flush()
    assert running.read_line() == {"still": "there"}


def test_what_the_child_is_given(wardens: Wardens) -> None:
    """Three streams, the limit of open files, default signals, the exact environment: no more."""
    running = wardens.start(sys.executable, "-I", "-S", "-c", REPORT)
    report = running.read_line()

    assert report["fds"] == [0, 1, 2]
    assert report["open_files"] == min(OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert report["oom_score"] == min(1000, own_oom_score() + 500)
    assert report["blocked"] == 0
    # CPython itself ignores these two in whatever runs it.
    assert report["ignored"] == 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    assert [entry.partition("=")[0] for entry in report["environ"].split("\0")[:-1]] == [
        "PATH",
        MARK_NAME,
    ]
    assert report["is_group_leader"]
    assert report["session"] == running.process.pid


def test_the_streams_are_the_childs_alone(wardens: Wardens) -> None:
    """The end of the child's stdout is seen while it lives: the warden holds no copy."""
    running = wardens.agent("close-stdout", "hang")
    assert running.process.stdout is not None
    assert select.select([running.process.stdout], [], [], START_SECS)[0]
    assert running.process.stdout.read() == b""
    assert running.process.poll() is None
    streams = [Path(f"/proc/{running.process.pid}/fd/{fd}").readlink() for fd in (0, 1, 2)]
    assert streams == [Path("/dev/null")] * 3


async def test_the_child_dies_with_its_warden(wardens: Wardens) -> None:
    """The program itself does not outlive a warden that was killed, whoever else is dead."""
    running = wardens.agent("deaf", "ready", "hang")
    program = look_at(running.read_line()["pid"])
    assert program is not None
    running.process.kill()
    await until(lambda: not is_alive(program), GONE_SECS)


async def test_orphans_that_end_are_reaped(wardens: Wardens) -> None:
    """A warden collects no zombies while its child lives."""
    running = wardens.agent("daemon", "ready", "hang")
    program = running.read_line()["pid"]
    warden = running.process.pid
    (orphan,) = (v.pid for v in running.family() if v.parent_pid == warden and v.pid != program)

    os.kill(orphan, signal.SIGKILL)

    await until(lambda: look_at(orphan) is None, GONE_SECS)
    assert running.process.poll() is None


def test_a_lifeline_closed_at_once(wardens: Wardens) -> None:
    """A warden whose lifeline is closed from the start ends with its child all the same."""
    running = wardens.agent("hang")
    running.cut()
    assert running.wait() == 128 + signal.SIGKILL
