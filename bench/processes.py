"""Processor time and memory of a process and everything below it, as the kernel counts them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import attrs


@attrs.frozen
class Tree:
    """A process by its pid, and its descendants."""

    pid: int

    def cpu_secs(self) -> float:
        """Of the process itself, all its threads, to the nanosecond (proc(5), schedstat).

        ``/proc/pid/stat`` counts in ticks of 10 ms: a block of trivial requests is eight of them.
        """
        spent = 0
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            with suppress(OSError):  # it has just ended
                spent += int((thread / "schedstat").read_text().split()[0])
        return spent * 1e-9

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
