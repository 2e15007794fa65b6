"""A tiny service, to be killed: it owns one child and prints the warden's pid when that is ready.

Run as ``python -m tests.processes.service DATA_DIR_ID NAME HABIT...``. It is a subreaper, as
``clawdforge serve`` is. When the child has ended it prints how many children of its own, zombies
included, it has left.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import trio

from clawdforge.processes.child import run_child
from clawdforge.processes.kernel import become_subreaper
from clawdforge.processes.marks import Incarnation
from tests.processes.trees import Lines, command


async def serve(data_dir_id: str, name: str, *habits: str) -> None:
    """Own one child to its end."""
    lines = Lines()
    async with trio.open_nursery() as nursery:
        run = partial(run_child, on_line=lines.on_line)
        child = await nursery.start(run, command(Incarnation(data_dir_id, name), *habits))
        await lines.until(1)
        say(child.pid)
    say(count_children())


def count_children() -> int:
    """Children of any of our threads, living or dead."""
    tasks = Path(f"/proc/{os.getpid()}/task")
    return sum(len((task / "children").read_text().split()) for task in tasks.iterdir())


def say(number: int) -> None:
    """One line, at once."""
    os.write(1, f"{number}\n".encode())


if __name__ == "__main__":
    become_subreaper()
    trio.run(partial(serve, *sys.argv[1:]))
