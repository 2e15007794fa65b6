"""``run_child``: what it passes on, what it survives, and that it never leaves a process behind."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any

import attrs
import pytest
import trio

from clawdforge.processes import child as child_module
from clawdforge.processes.child import Child, ChildCommand, ChildExit, ChildGone, run_child
from clawdforge.processes.leftovers import sweep_leftovers
from clawdforge.processes.marks import Incarnation
from tests.processes.trees import (
    FAMILY,
    START_SECS,
    Lines,
    command,
    environment_of,
    family_of,
    is_alive,
    new_incarnation,
    nothing_survives,
    open_files,
    program_of,
    until,
    until_gone,
)

SERVICE = "tests.processes.service"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def incarnation() -> Iterator[Incarnation]:
    """One of its own for each test, of which nothing is left after it."""
    made = new_incarnation()
    with nothing_survives(made):
        yield made


@attrs.define
class Running:
    """A child under test."""

    command: ChildCommand
    lines: Lines = attrs.field(factory=Lines)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    child: Child = attrs.field(init=False)
    exit: ChildExit | None = None

    async def own(  # noqa: ASYNC114, ASYNC128 (it passes task_status on)
        self, *, task_status: trio.TaskStatus[Child]
    ) -> None:
        """Be the child's owner until it ends, or ``scope`` is cancelled."""
        on_line, on_skipped = self.lines.on_line, self.lines.on_skipped
        with self.scope:
            self.exit = await run_child(
                self.command, on_line=on_line, on_skipped=on_skipped, task_status=task_status
            )


@asynccontextmanager
async def running(made: ChildCommand) -> AsyncIterator[Running]:
    """A child that runs; on leaving, the block waits for its end (bounded)."""
    with trio.fail_after(START_SECS):
        async with trio.open_nursery() as nursery:
            run = Running(made)
            run.child = await nursery.start(run.own)
            yield run


async def run_to_end(made: ChildCommand) -> tuple[ChildExit, Lines]:
    """A child that ends by itself."""
    async with running(made) as run:
        pass
    assert run.exit is not None
    return run.exit, run.lines


# --- what it passes on ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("habit", "code", "number", "stderr"),
    [
        ("ready", 0, None, ""),
        ("die", 3, None, "I cannot go on\n"),
        ("crash", None, signal.SIGSEGV, ""),
    ],
)
async def test_how_it_ended(
    incarnation: Incarnation, habit: str, code: int | None, number: int | None, stderr: str
) -> None:
    """An exit tells code or signal, and the last words."""
    ended, _ = await run_to_end(command(incarnation, habit))
    assert ended == ChildExit(code=code, signal=number, was_killed=False, stderr_tail=stderr)


async def test_a_program_that_is_missing(incarnation: Incarnation) -> None:
    """A program that is not there is an exit code and a hint, not an exception."""
    made = attrs.evolve(command(incarnation), argv=["no-such-program"])
    ended, _ = await run_to_end(made)
    assert ended.code == 127
    assert "no-such-program" in ended.stderr_tail


async def test_a_folder_that_is_missing(incarnation: Incarnation) -> None:
    """A working directory that is not there is an OSError, and nothing stays open."""
    before = open_files()
    with pytest.raises(FileNotFoundError):
        await run_child(
            attrs.evolve(command(incarnation), cwd=Path("/no/such/folder")), on_line=print
        )
    assert open_files() == before


async def test_lines_go_both_ways(incarnation: Incarnation) -> None:
    """What is sent arrives whole, in order, longer than a pipe holds; end of input ends an echo."""
    async with running(command(incarnation, "echo")) as run:
        sent = [bytes([letter]) * 200_000 for letter in b"abc"]
        async with trio.open_nursery() as nursery:
            for line in sent:
                nursery.start_soon(run.child.send, line + b"\n")
        await run.lines.until(3)
        run.child.close_stdin()
        run.child.close_stdin()
    assert sorted(run.lines.seen) == sent
    assert run.exit is not None
    assert (run.exit.code, run.exit.was_killed) == (0, False)


async def test_only_what_was_given_is_in_the_environment(
    incarnation: Incarnation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service's own environment does not reach the child."""
    monkeypatch.setenv("CLAWDFORGE_ADMIN_TOKEN", "secret")
    async with running(command(incarnation, "ready", "hang")) as run:
        await run.lines.until(1)
        environ = environment_of(program_of(run.child))
        run.child.kill()
    assert environ == [f"PATH={os.environ['PATH']}", f"CLAWDFORGE_MARK={run.child.mark}"]


async def test_a_raised_limit_is_not_passed_on(incarnation: Incarnation) -> None:
    """The service may raise its limit of open files; the child gets the original one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        async with running(command(incarnation, "ready", "hang")) as run:
            await run.lines.until(1)
            limits = resource.prlimit(program_of(run.child), resource.RLIMIT_NOFILE)
            run.child.kill()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert limits == (soft, hard)


# --- what it survives -----------------------------------------------------------------------------


async def test_a_line_of_50_mb_is_skipped(incarnation: Incarnation) -> None:
    """A line over the limit is counted and left out; its neighbours are intact."""
    ended, lines = await run_to_end(command(incarnation, "huge-line"))
    assert lines.seen == [b'{"before": true}', b'{"after": true}']
    assert lines.skipped == 1
    assert ended.code == 0


async def test_garbage_is_passed_on(incarnation: Incarnation) -> None:
    """What is no JSON is still lines: they are for the reader to judge."""
    _, lines = await run_to_end(command(incarnation, "garbage", "ready"))
    assert lines.seen[1] == b"\xff\xfe\x00"
    assert lines.seen[-1].startswith(b'{"ready"')


async def test_last_words_are_heard(incarnation: Incarnation) -> None:
    """What was printed before the end is delivered, also when the end is noticed first."""
    lines: list[bytes] = []
    children: list[Child] = []

    def wait_for_the_end(line: bytes) -> None:
        lines.append(line)
        if children and len(lines) == 1:
            os.waitid(os.P_PID, children[0].pid, os.WEXITED | os.WNOWAIT)

    for _ in range(5):  # which of two ready tasks runs first is left to chance
        lines.clear()
        children.clear()
        made = command(incarnation, "echo", "garbage", "ready")
        async with trio.open_nursery() as nursery:
            children.append(await nursery.start(partial(run_child, made, on_line=wait_for_the_end)))
            await children[0].send(b"first\n")
            children[0].close_stdin()
        assert lines[0] == b"first"
        assert lines[-1].startswith(b'{"ready"')


async def test_a_flood_of_stderr_stops_nothing(incarnation: Incarnation) -> None:
    """1 MB on stderr blocks nobody, and only the end of it is kept."""
    ended, lines = await run_to_end(command(incarnation, "flood-stderr", "ready"))
    assert len(lines.seen) == 1
    assert len(ended.stderr_tail) == child_module.STDERR_TAIL_BYTES
    assert ended.stderr_tail.endswith("the end of it")


async def test_a_flood_of_stdout_can_be_killed(incarnation: Incarnation) -> None:
    """A child that never stops printing leaves room for others, and is killed like any."""
    async with running(command(incarnation, "flood")) as run:
        await run.lines.until(10_000)
        run.child.kill()
    assert set(run.lines.seen) == {b'{"flood": true}'}


async def test_a_closed_stdout_is_no_end(incarnation: Incarnation) -> None:
    """A child that closes its stdout still lives, is still heard on stdin, and can be killed."""
    async with running(command(incarnation, "ready", "close-stdout", "hang")) as run:
        await run.lines.until(1)
        await run.child.send(b"x")
        assert run.exit is None
        run.child.kill()
    assert run.exit == ChildExit(code=None, signal=9, was_killed=True, stderr_tail="")


async def test_sending_to_a_child_that_reads_no_more(incarnation: Incarnation) -> None:
    """A closed stdin, theirs or ours, is ChildGone."""
    async with running(command(incarnation, "close-stdin", "ready", "hang")) as run:
        await run.lines.until(1)
        with pytest.raises(ChildGone):
            await run.child.send(b"x")
        run.child.kill()
    with pytest.raises(ChildGone):
        await run.child.send(b"x")


@pytest.mark.parametrize("end", [Child.kill, Child.close_stdin])
async def test_a_sender_that_waits_is_told_of_the_end(
    incarnation: Incarnation, end: Callable[[Child], None]
) -> None:
    """A send to a child that does not read is ChildGone when the child or its stdin is ended."""
    async with running(command(incarnation, "ready", "hang")) as run:
        await run.lines.until(1)

        async def send() -> None:
            with pytest.raises(ChildGone):
                await run.child.send(b"x" * 1_000_000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            end(run.child)
        run.child.kill()


async def test_a_cancelled_send_tears_no_line(incarnation: Incarnation) -> None:
    """What was begun is finished before the next line; what was not begun is dropped."""
    async with running(command(incarnation, "ready", "echo")) as run:
        await run.lines.until(1)
        os.kill(program_of(run.child), signal.SIGSTOP)
        for letter in (b"a", b"b"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run.child.send, letter * 300_000 + b"\n")
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        os.kill(program_of(run.child), signal.SIGCONT)
        await run.child.send(b"next\n")
        await run.lines.until(3)
        run.child.close_stdin()
    assert run.lines.seen[1:] == [b"a" * 300_000, b"next"]


async def test_a_reader_that_raises(incarnation: Incarnation) -> None:
    """An error of ``on_line`` comes out, after the tree has been killed."""

    def refuse(_: bytes) -> None:
        raise LookupError

    with pytest.RaisesGroup(LookupError):
        await run_child(command(incarnation, *FAMILY), on_line=refuse)
    assert family_of(incarnation) == []


async def test_a_child_outlives_the_thread_that_started_it(
    incarnation: Incarnation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No death signal hangs on Trio's worker thread, which ends after ten idle seconds."""
    cache = trio._core._thread_cache  # there is no public name for it
    monkeypatch.setattr(cache, "THREAD_CACHE", cache.ThreadCache())
    monkeypatch.setattr(cache, "IDLE_TIMEOUT", 0.01)
    before = set(threading.enumerate())
    async with running(command(incarnation, "echo")) as run:
        started_by = set(threading.enumerate()) - before
        await until(lambda: not any(thread.is_alive() for thread in started_by))
        await run.child.send(b"still here\n")
        await run.lines.until(1)
        run.child.close_stdin()
    assert run.exit is not None
    assert run.exit.code == 0


async def test_many_at_once_leak_nothing(incarnation: Incarnation) -> None:
    """200 children, 50 at a time, and every file descriptor is back."""
    made = attrs.evolve(command(incarnation), argv=["cat"])
    await run_to_end(command(incarnation, "ready"))
    before = open_files()
    limiter = trio.CapacityLimiter(50)
    ended: list[ChildExit] = []

    async def one(index: int) -> None:
        async with limiter, running(made) as run:
            await run.child.send(b"\n")
            await run.lines.until(1)
            run.child.close_stdin() if index % 2 else run.child.kill()
        assert run.exit is not None
        ended.append(run.exit)

    async with trio.open_nursery() as nursery:
        for index in range(200):
            nursery.start_soon(one, index)
    assert len(ended) == 200
    assert open_files() == before
    assert family_of(incarnation) == []


# --- the warden matrix ----------------------------------------------------------------------------

AGENTS = {
    "polite": ("ready", "echo"),
    "family": FAMILY,
    "mute": ("deaf", "daemon", "ready", "close-stdout", "hang"),
    "flood": ("deaf", "setsid", "ready", "flood"),
    "runaway": ("ready", "runner", "hang"),
}


def close_lifeline(run: Running) -> None:
    """The service wants it gone."""
    run.child.kill()
    run.child.kill()


def cancel(run: Running) -> None:
    """The owner is cancelled."""
    run.scope.cancel()


def kill_warden(run: Running) -> None:
    """The warden is killed, by the kernel's memory killer for instance."""
    os.kill(run.child.pid, signal.SIGKILL)


def kill_program(run: Running) -> None:
    """The child's own program is killed."""
    os.kill(program_of(run.child), signal.SIGKILL)


@pytest.mark.parametrize("end", [close_lifeline, cancel, kill_warden, kill_program])
@pytest.mark.parametrize("habits", AGENTS.values(), ids=AGENTS)
async def test_nothing_is_left(
    incarnation: Incarnation, habits: tuple[str, ...], end: Callable[[Running], None]
) -> None:
    """Whoever is killed, nothing is alive any more when ``run_child`` is over, within 2 s."""
    async with running(command(incarnation, *habits)) as run:
        await run.lines.until(1)
        family = family_of(incarnation)
        end(run)
        began_at = trio.current_time()
    assert trio.current_time() - began_at < 2
    assert family_of(incarnation) == []
    assert [view for view in family if is_alive(view)] == []
    assert (run.exit is None) == (end is cancel)
    assert run.exit is None or run.exit.survivor_count == 0


@pytest.mark.parametrize("after_secs", [0, 0.001, 0.005, 0.02, 0.05])
async def test_a_cancelled_start_leaves_nothing(
    incarnation: Incarnation, after_secs: float
) -> None:
    """Wherever in its start it is cancelled, neither a process nor a file descriptor stays."""
    before = open_files()
    with trio.move_on_after(after_secs) as scope:
        await run_child(command(incarnation, *FAMILY), on_line=lambda _: None)
    assert scope.cancelled_caught
    assert family_of(incarnation) == []
    assert open_files() == before


async def test_a_stopped_warden_is_killed(
    incarnation: Incarnation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warden that does nothing when its lifeline ends is killed, and its tree cleared."""
    monkeypatch.setattr(child_module, "KILL_SECS", 0.1)
    async with running(command(incarnation, *FAMILY)) as run:
        await run.lines.until(1)
        family = family_of(incarnation)
        os.kill(run.child.pid, signal.SIGSTOP)
        run.child.kill()
    assert [view for view in family if is_alive(view)] == []
    assert run.exit == ChildExit(code=None, signal=9, was_killed=True, stderr_tail="")


async def test_a_clearing_spares_the_neighbours(incarnation: Incarnation) -> None:
    """Mopping up one tree touches no other tree of the same service."""
    async with (
        running(command(incarnation, *FAMILY)) as neighbour,
        running(command(incarnation, *FAMILY)) as run,
    ):
        await neighbour.lines.until(1)
        family = family_of(incarnation)
        await run.lines.until(1)
        kill_warden(run)
        await until(lambda: run.exit is not None)
        assert all(is_alive(view) for view in family if view.mark == neighbour.child.mark)
        neighbour.child.kill()


@asynccontextmanager
async def service(incarnation: Incarnation, *habits: str) -> AsyncIterator[tuple[Any, int]]:
    """A service process with one ready child: the process and its warden's pid."""
    names = [incarnation.data_dir_id, incarnation.name]
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", SERVICE, *names, *habits], stdout=PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    async with process.stdout:
        try:
            with trio.fail_after(START_SECS):
                warden_pid = int(await process.stdout.receive_some())
            yield process, warden_pid
        finally:
            process.kill()
            with trio.CancelScope(shield=True), trio.fail_after(START_SECS):
                await process.wait()


@pytest.mark.parametrize("habits", AGENTS.values(), ids=AGENTS)
async def test_a_killed_service_leaves_nothing(
    incarnation: Incarnation, habits: tuple[str, ...]
) -> None:
    """SIGKILL to the service: within 2 s every process below it is dead."""
    async with service(incarnation, *habits) as (process, _):
        family = family_of(incarnation)
        process.kill()
        await process.wait()
        await until_gone(incarnation, family)


async def test_a_service_reaps_what_it_adopted(incarnation: Incarnation) -> None:
    """After a warden is killed, its service has neither living nor dead children left of it."""
    async with service(incarnation, *FAMILY) as (process, warden_pid):
        family = family_of(incarnation)
        os.kill(warden_pid, signal.SIGKILL)
        with trio.fail_after(2):
            assert int(await process.stdout.receive_some()) == 0
            await process.wait()
    assert [view for view in family if is_alive(view)] == []


async def test_both_killed_at_once(incarnation: Incarnation) -> None:
    """What outlives service and warden together is gone after the sweep of the next start."""
    async with service(incarnation, *FAMILY) as (process, warden_pid):
        family = family_of(incarnation)
        process.send_signal(signal.SIGSTOP)  # so that it cannot mop up in between
        os.kill(warden_pid, signal.SIGKILL)
        process.kill()
        await process.wait()
    assert any(is_alive(view) for view in family), "else there is nothing to sweep"

    following = Incarnation(incarnation.data_dir_id, "second")
    cleared = await trio.to_thread.run_sync(sweep_leftovers, following)

    assert cleared.killed_count >= 2
    assert cleared.survivor_count == 0
    assert family_of(incarnation) == []
