"""The process tree below us, as ``/proc`` shows it: for people to look at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

WORDS = 4
"""How much of a command line is shown: enough to tell who it is."""


def list_tree(pid: int | None = None, *, depth: int = 0) -> Iterator[str]:
    """One line a descendant of ``pid`` (this process when None), indented by generation."""
    pid = os.getpid() if pid is None else pid
    for child in children_of(pid):
        yield f"{'  ' * depth}{child}  {describe(child)}"
        yield from list_tree(child, depth=depth + 1)


def children_of(pid: int) -> list[int]:
    """The children of a process, of all its threads; none when it is gone."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, path.read_text().split())
        except OSError:
            continue
    return sorted(found)


def describe(pid: int) -> str:
    """The program and its first arguments, paths cut to their last part."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "(gone)"
    names = [word.rpartition("/")[2] for word in words if word and not word.startswith("-")]
    return " ".join(names[:WORDS]) or "(ended)"
