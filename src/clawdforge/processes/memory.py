"""How much memory is left for one more process: read from the kernel, the cgroup's limit included.

The kernel ends somebody when there is none: too late to refuse. What is asked here is how far away
that is. Both versions of cgroups are understood; where nothing can be read there is no answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

NO_LIMIT: Final = 1 << 60
"""A limit above this is none: version 1 writes the largest number there is."""


def spare_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that processes of ours may still take; None when the kernel does not say. Reads files.

    The least of what the machine has and of what each cgroup above us leaves. Memory that only
    caches files counts as free: the kernel gives it up before it ends anybody.
    """
    known = [*_machine(proc), *_version_2(proc, cgroups), *_version_1(proc, cgroups)]
    return max(0, min(known)) if known else None


def _machine(proc: Path) -> Iterator[int]:
    """``MemAvailable`` of proc_meminfo(5), in KiB there."""
    with suppress(OSError, ValueError, KeyError):
        yield _table(proc / "meminfo")["MemAvailable:"] * 1024


def _version_2(proc: Path, cgroups: Path) -> Iterator[int]:
    """https://docs.kernel.org/admin-guide/cgroup-v2.html, memory interface files."""
    for folder in _above(cgroups, _own_group(proc, "")):
        with suppress(OSError, ValueError):
            limit = int((folder / "memory.max").read_text())
            yield limit - _number(folder / "memory.current") + _cache(folder, "inactive_file")


def _version_1(proc: Path, cgroups: Path) -> Iterator[int]:
    """https://docs.kernel.org/admin-guide/cgroup-v1/memory.html"""
    for folder in _above(cgroups / "memory", _own_group(proc, "memory")):
        with suppress(OSError, ValueError):
            limit = _number(folder / "memory.limit_in_bytes")
            if limit < NO_LIMIT:
                used = _number(folder / "memory.usage_in_bytes")
                yield limit - used + _cache(folder, "total_inactive_file")


def _own_group(proc: Path, controller: str) -> str | None:
    """Our path in the hierarchy of that controller (``""`` is version 2's), if we are in one."""
    with suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                return path
    return None


def _above(root: Path, group: str | None) -> Iterator[Path]:
    """The folder of a group and of all above it, also where a container shows us only its own."""
    if group is None:
        return
    folder = root / group.lstrip("/")
    while folder != root:
        yield folder
        folder = folder.parent
    yield root


def _cache(folder: Path, key: str) -> int:
    with suppress(OSError, ValueError, KeyError):
        return _table(folder / "memory.stat")[key]
    return 0


def _table(file: Path) -> dict[str, int]:
    """``key number ...`` lines."""
    words = (line.split() for line in file.read_text().splitlines())
    return {word[0]: int(word[1]) for word in words if len(word) > 1 and word[1].isdigit()}


def _number(file: Path) -> int:
    return int(file.read_text())
