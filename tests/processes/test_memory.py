"""How much memory is left, as both versions of cgroups say it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from clawdforge.processes.memory import spare_memory

MEMINFO = "MemTotal:       16000 kB\nMemFree:         100 kB\nMemAvailable:    8000 kB\n"
MACHINE = 8000 * 1024


def lay_out(root: Path, files: Mapping[str, str]) -> None:
    """Make the files below ``root``."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("files", "spare"),
    [
        ({}, None),
        ({"proc/meminfo": MEMINFO}, MACHINE),
        ({"proc/meminfo": "nonsense\n"}, None),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/a/b\n",
                "cgroup/a/b/memory.max": "max\n",
                "cgroup/a/memory.max": "4000000\n",
                "cgroup/a/memory.current": "3000000\n",
                "cgroup/a/memory.stat": "anon 1\ninactive_file 500000\n",
            },
            1_500_000,
        ),
        (
            {  # in a container, the path is the host's and the folder its own
                "proc/self/cgroup": "0::/elsewhere\n",
                "cgroup/memory.max": "4000000\n",
                "cgroup/memory.current": "4100000\n",
            },
            0,
        ),
        (
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/x\n0::/\n",
                "cgroup/memory/x/memory.limit_in_bytes": "4000000\n",
                "cgroup/memory/x/memory.usage_in_bytes": "3900000\n",
                "cgroup/memory/x/memory.stat": "total_inactive_file 1000\n",
                "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "cgroup/memory/memory.usage_in_bytes": "5\n",
            },
            101_000,
        ),
    ],
)
def test_the_least_of_machine_and_groups(
    tmp_path: Path, files: Mapping[str, str], spare: int | None
) -> None:
    """The tightest limit counts, caches are free, and what cannot be read is no limit."""
    lay_out(tmp_path, files)
    assert spare_memory(tmp_path / "proc", tmp_path / "cgroup") == spare


def test_this_machine_says() -> None:
    """On a real Linux there is an answer."""
    spare = spare_memory()
    assert spare is not None
    assert spare > 0
