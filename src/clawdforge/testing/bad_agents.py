"""Bad agents: a process that does on command what agents do when they go wrong.

Run as ``python -I -S bad_agents.py HABIT...``: the habits are done from left to right, then the
process ends with code 0. Standard library only. The habits are the functions of ``HABITS``; a
grandchild is in place before the next habit begins. Example: ``deaf daemon ready hang``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

HUGE_LINE_BYTES: Final = 50 * 1000 * 1000
FLOOD_BYTES: Final = 1000 * 1000
RUN_SECS: Final = 30.0


def say(**fields: object) -> None:
    """Print one good line."""
    os.write(1, json.dumps(fields).encode() + b"\n")


def pour(fd: int, data: bytes) -> None:
    """Write all of it, however long the pipe is full."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def ready() -> None:
    """Say that everything to the left is done, and who we are."""
    say(ready=True, pid=os.getpid())


def hang() -> NoReturn:
    """Live for ever, without reading stdin."""
    while True:
        signal.pause()


def deaf() -> None:
    """Ignore every signal that can be ignored, with all that are forked from here on."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


def die() -> NoReturn:
    """End with code 3 and a word on stderr."""
    os.write(2, b"I cannot go on\n")
    os._exit(3)


def crash() -> None:
    """End by a signal."""
    os.kill(os.getpid(), signal.SIGSEGV)


def garbage() -> None:
    """Print what is no JSON object: words, bytes that are no text, blank lines, NaN."""
    os.write(1, b'npm warn deprecated\n\xff\xfe\x00\n\n[1, 2]\n{"half": \n{"n": NaN}\n')


def huge_line() -> None:
    """Print one line of 50 MB that is even JSON, between two good ones."""
    say(before=True)
    pour(1, b'{"x":"' + b"x" * HUGE_LINE_BYTES + b'"}\n')
    say(after=True)


def flood_stderr() -> None:
    """Write 1 MB to stderr and go on."""
    pour(2, b"e" * FLOOD_BYTES + b"the end of it")


def flood() -> NoReturn:
    """Write good lines to stdout for ever."""
    line = b'{"flood": true}\n' * 1000
    while True:
        pour(1, line)


def echo() -> None:
    """Print every line of stdin, until its end."""
    while data := os.read(0, 65536):
        pour(1, data)


def close_stdin() -> None:
    """Read no more, but live."""
    os.close(0)


def close_stdout() -> None:
    """Say no more, but live."""
    os.close(1)


def plain() -> None:
    """Fork a grandchild that hangs."""
    _fork(_settle)


def setsid() -> None:
    """Fork a grandchild that hangs in a session of its own."""

    def live(placed: int) -> None:
        os.setsid()
        _settle(placed)

    _fork(live)


def daemon() -> None:
    """Fork a grandchild that hangs, in a session of its own and without a parent."""

    def live(placed: int) -> None:
        os.setsid()
        if os.fork() == 0:
            _settle(placed)

    os.waitpid(_fork(live), 0)


def bare() -> None:
    """Start a grandchild that hangs, with an empty environment, as many MCP servers have it."""
    argv = [sys.executable, "-I", "-S", __file__, "deaf", "hang"]
    _fork(lambda _: os.execve(argv[0], argv, {}))  # noqa: S606 (no shell is the point)


def runner() -> None:
    """Fork a grandchild that runs away: it forks and ends, over and over, always another pid.

    It tires after RUN_SECS, so that a test that fails to catch it does not burden the machine.
    """

    def live(placed: int) -> None:
        os.close(placed)
        tires_at = time.monotonic() + RUN_SECS
        while time.monotonic() < tires_at and os.fork() == 0:
            pass

    os.waitpid(_fork(live), 0)


def _fork(live: Callable[[int], object]) -> int:
    """Fork, and return when the child has closed ``placed``, the fd it is given (``exec`` does)."""
    seen, placed = os.pipe()
    pid = os.fork()
    if pid == 0:
        live(placed)
        os._exit(0)
    os.close(placed)
    os.read(seen, 1)
    os.close(seen)
    return pid


def _settle(placed: int) -> NoReturn:
    os.close(placed)
    hang()


HABITS: Final[Mapping[str, Callable[[], object]]] = {
    habit.__name__.replace("_", "-"): habit
    for habit in (
        ready,
        hang,
        deaf,
        die,
        crash,
        garbage,
        huge_line,
        flood_stderr,
        flood,
        echo,
        close_stdin,
        close_stdout,
        plain,
        setsid,
        daemon,
        bare,
        runner,
    )
}


def main(names: list[str]) -> None:
    """Do the habits one after the other. KeyError when there is no such habit."""
    for name in names:
        HABITS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
