"""One child process of the service, with everything below it, from start to proven end.

The rule: *``run_child`` is the only owner.* It starts the child under a warden, drains stdout and
stderr whatever they hold, and does not return, raise or let a cancellation through before the
whole process tree is dead. ``Child`` is what others hold meanwhile: to write to it and to kill it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Final

import attrs
import trio

from clawdforge.processes.kernel import SOFT_OPEN_FILES
from clawdforge.processes.leftovers import choose_tree, clear
from clawdforge.processes.marks import MARK_NAME, Incarnation, Mark
from clawdforge.processes.stdin import ChildGone, StdinPipe
from clawdforge.protocol.ndjson import LineSplitter

__all__ = ["Child", "ChildCommand", "ChildExit", "ChildGone", "run_child"]

LINE_BYTES: Final = 16 * 1024 * 1024
"""The longest line by default: as long as the largest request body by default."""

CHUNK_BYTES: Final = 64 * 1024
"""As much as a pipe holds (pipe(7))."""

STDERR_TAIL_BYTES: Final = 16 * 1024
"""How much of stderr is kept: enough for a traceback, small enough to keep for every session."""

KILL_SECS: Final = 10.0
"""How long a warden may take to kill its tree (measured: 25 ms) before it is killed itself."""

MOP_UP_SECS: Final = 5.0
"""How long the clearing after a killed warden may take (measured: below 100 ms)."""

DRAIN_SECS: Final = 1.0
"""How long the rest of the output may take to read once everybody who could write it is dead."""

_WARDEN: Final = Path(__file__).with_name("warden.py")


@attrs.frozen(kw_only=True)
class ChildCommand:
    """What to run. ``env`` is the whole environment; only the mark is added to it.

    ``argv[0]`` is looked up in the PATH of ``env``. ``max_line_bytes`` bounds a line of stdout.
    """

    argv: Sequence[str]
    env: Mapping[str, str] = attrs.field(repr=False)
    cwd: Path
    incarnation: Incarnation
    max_line_bytes: int = LINE_BYTES


@attrs.frozen(kw_only=True)
class ChildExit:
    """How a child ended. Exactly one of ``code`` and ``signal`` is set.

    ``code`` 127 also means that the program could not be started; ``stderr_tail`` says why.
    ``was_killed``: its lifeline had been closed before it ended by itself.
    ``stderr_tail`` is the last of its stderr, for logs: it may hold anything, host paths included.
    ``survivor_count`` is 0 unless something would not die (another user's process, a stuck disk).
    """

    code: int | None
    signal: int | None
    was_killed: bool
    stderr_tail: str
    survivor_count: int = 0


class Child:
    """A running child. Given out by ``run_child``; of no use once that has returned."""

    def __init__(self, pid: int, mark: Mark, stdin: StdinPipe, lifeline: _Lifeline) -> None:
        self.pid: Final = pid
        """The warden's pid; the child's program is below it."""
        self.mark: Final = mark
        self._stdin = stdin
        self._lifeline = lifeline

    def __repr__(self) -> str:
        return f"<Child pid={self.pid} mark={self.mark}>"

    async def send(self, data: bytes) -> None:
        """Write ``data`` to the child's stdin. Raises ChildGone when it ended or stopped reading.

        Waits while the child does not read: bound it. Concurrent sends go one after the other, and
        a cancelled one never tears a line (see ``processes.stdin``).
        """
        await self._stdin.send(data)

    @property
    def is_owed_a_rest(self) -> bool:
        """Whether a send was cancelled after its first byte: the rest goes out with the next."""
        return self._stdin.is_owed_a_rest

    def close_stdin(self) -> None:
        """End the child's input. Idempotent."""
        self._stdin.close()

    def kill(self) -> None:
        """Close the lifeline: the whole tree dies. Returns at once; idempotent.

        ``run_child`` returns when that is proved.
        """
        self._lifeline.close()


class _Lifeline:
    """The write end of the pipe that keeps a warden from killing its tree. Never written to.

    ``life`` is cancelled when it is closed: a warden that is stopped must not be waited for.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.life = trio.CancelScope()

    @property
    def is_closed(self) -> bool:
        return self._fd < 0

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            self.life.cancel()


@attrs.frozen
class _Spawned:
    """What a start gives: the warden's process and our ends of its pipes."""

    process: trio.Process
    stdin: StdinPipe
    stdout: trio.lowlevel.FdStream
    stderr: trio.abc.ReceiveStream
    lifeline: _Lifeline


def _ignore_skipped(_count: int) -> None:
    """Nobody asked about skipped lines."""


def _ignore_end() -> None:
    """Nobody asked about the end of the output."""


async def run_child(
    command: ChildCommand,
    *,
    on_line: Callable[[bytes], None],
    on_skipped: Callable[[int], None] = _ignore_skipped,
    on_end: Callable[[], None] = _ignore_end,
    task_status: trio.TaskStatus[Child] = trio.TASK_STATUS_IGNORED,
) -> ChildExit:
    """Run a child to its end and stay until its whole tree is proved dead. For ``nursery.start``.

    ``on_line`` gets each line of stdout without its newline, ``on_skipped`` how many were over the
    limit, ``on_end`` is called when stdout has ended, which may be long before the child does. They
    must return at once, and are called only before this returns. If one raises, the tree is killed
    and the error comes out in an ExceptionGroup.

    Raises OSError when nothing could be started: no such ``cwd``, or no more processes or file
    descriptors. A program that cannot be started is no error but exit code 127.

    Waits without bound for the child: it ends by itself, by ``Child.kill`` or by cancellation. The
    other waits are bounded, by 20 s in the worst case; cancellation is let through after them.
    """
    mark = command.incarnation.mark_tree()
    spawned = await _spawn(command, mark)
    process, lifeline = spawned.process, spawned.lifeline
    splitter, tail = LineSplitter(command.max_line_bytes), bytearray()
    async with spawned.stdout, spawned.stderr, trio.open_nursery() as drains:
        try:
            drains.start_soon(_drain_lines, spawned.stdout, splitter, on_line, on_skipped, on_end)
            drains.start_soon(_drain_tail, spawned.stderr, tail)
            task_status.started(Child(process.pid, mark, spawned.stdin, lifeline))
            with lifeline.life:
                await process.wait()
            was_killed = lifeline.is_closed
        finally:
            lifeline.close()
            spawned.stdin.close()
            with trio.CancelScope(shield=True):  # bounded inside
                survivor_count = await _bury(process, mark)
        drains.cancel_scope.deadline = trio.current_time() + DRAIN_SECS
    code, by_signal = _read_exit_code(process.returncode)
    return ChildExit(
        code=code,
        signal=by_signal,
        was_killed=was_killed,
        stderr_tail=tail.decode(errors="replace"),
        survivor_count=survivor_count,
    )


async def _spawn(command: ChildCommand, mark: Mark) -> _Spawned:
    """Start a warden. Its ends of the pipes are closed on our side on every path."""
    with ExitStack() as theirs, ExitStack() as ours:
        stdin_read, stdin_write = _open_pipe(theirs, ours)
        lifeline_read, lifeline_write = _open_pipe(theirs, ours)
        options = [str(_WARDEN), str(lifeline_read), str(SOFT_OPEN_FILES), "--"]
        process = await trio.lowlevel.open_process(
            [sys.executable, "-I", "-S", *options, *command.argv],
            stdin=stdin_read,
            stdout=PIPE,
            stderr=PIPE,
            env={**command.env, MARK_NAME: str(mark)},
            cwd=command.cwd,
            pass_fds=[lifeline_read],
            start_new_session=True,
        )
        ours.pop_all()
    assert isinstance(process.stdout, trio.lowlevel.FdStream)
    assert process.stderr is not None
    stdin, lifeline = StdinPipe(stdin_write), _Lifeline(lifeline_write)
    return _Spawned(process, stdin, process.stdout, process.stderr, lifeline)


def _open_pipe(theirs: ExitStack, ours: ExitStack) -> tuple[int, int]:
    read, write = os.pipe()
    theirs.callback(os.close, read)
    ours.callback(os.close, write)
    return read, write


async def _read_some(fd: int) -> bytes:
    """What there is to read; nothing at the end. One turn of the loop, where trio's stream has two.

    It would first yield, then look, then wait.
    """
    while True:
        await trio.lowlevel.wait_readable(fd)
        try:
            return os.read(fd, CHUNK_BYTES)
        except BlockingIOError:
            continue


async def _drain_lines(
    stdout: trio.lowlevel.FdStream,
    splitter: LineSplitter,
    on_line: Callable[[bytes], None],
    on_skipped: Callable[[int], None],
    on_end: Callable[[], None],
) -> None:
    """Read stdout to its end, whatever it holds: an unread pipe stops the child at 64 KiB."""
    reported = 0
    while True:
        chunk = await _read_some(stdout.fileno())
        if chunk:
            splitter.feed(chunk)
        else:
            splitter.feed_end()
        while (line := splitter.next_line()) is not None:
            on_line(line)
        if splitter.skipped_count > reported:
            on_skipped(splitter.skipped_count - reported)
            reported = splitter.skipped_count
        if not chunk:
            on_end()
            return


async def _drain_tail(stderr: trio.abc.ReceiveStream, tail: bytearray) -> None:
    """Read stderr to its end and keep the last of it."""
    async for chunk in stderr:
        tail += chunk
        del tail[:-STDERR_TAIL_BYTES]


async def _bury(process: trio.Process, mark: Mark) -> int:
    """Wait, bounded, until the tree of a closed lifeline is dead; how many would not die.

    An exit code is the warden's word that nothing is left. If it was killed, or has to be, its tree
    is cleared from here.
    """
    with trio.move_on_after(KILL_SECS):
        await process.wait()
    if process.returncode is None:
        process.kill()
        with trio.move_on_after(KILL_SECS / 2):
            await process.wait()
    if process.returncode is not None and process.returncode >= 0:
        return 0
    choose = partial(choose_tree, mark=mark, warden_pid=process.pid)
    cleared = await trio.to_thread.run_sync(
        partial(clear, choose, within_secs=MOP_UP_SECS),
        limiter=trio.CapacityLimiter(1),  # its own: the common one may be full of stuck threads
    )
    return cleared.survivor_count


def _read_exit_code(code: int | None) -> tuple[int | None, int | None]:
    """A warden's exit code as the child's (code, signal). None: the warden itself did not die."""
    if code is None:
        return None, signal.SIGKILL
    if code < 0:
        return None, -code
    if 128 < code <= 128 + signal.SIGRTMAX:
        return None, code - 128
    return code, None
