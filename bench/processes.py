"""Processor time and memory of a process and everything below it, as the kernel counts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs

TICK_SECS: Final = 1 / os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Tree:
    """A process by its pid, and its descendants."""

    pid: int

    def cpu_secs(self) -> float:
        """Of the process itself, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_SECS

    def own_pss_mib(self) -> float:
        """Of the process itself: its pages, shared ones in part (proc(5), smaps_rollup)."""
        return _pss_kib(self.pid) / 1024

    def pss_mib(self) -> float:
        """Of the process and all below it."""
        return sum(map(_pss_kib, self.pids())) / 1024

    def pids(self) -> Iterator[int]:
        """The process and all below it."""
        queue = [self.pid]
        for pid in queue:
            yield pid
            with suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    queue += map(int, (task / "children").read_text().split())


def _pss_kib(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
