"""The acpx host by itself: its check of acpx, and what it does when nobody reads it."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clawdforge.errors import RuntimeNotInstalled
from clawdforge.processes.lodging import DEMO_AGENT
from clawdforge.processes.runtime import (
    HOST,
    Runtime,
    check_acpx,
    find_runtime,
    node_binary,
    wanted,
)

pytestmark = pytest.mark.system

DEADLINE_SECS = 60.0
"""Far beyond what any step takes: past it the test fails loudly."""


class Host:
    """The host's process, driven by lines."""

    def __init__(self, runtime: Runtime, home: Path) -> None:
        self.process = subprocess.Popen(
            [str(node_binary()), str(HOST), str(runtime.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.defpath, "HOME": str(home)},
        )
        self.home = home

    def send(self, **order: Any) -> None:
        """Write one order."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        """The next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the host has ended"
        return json.loads(line)  # type: ignore[no-any-return]  # lines are objects

    def read_until(self, kind: str) -> list[dict[str, Any]]:
        """All lines up to the first of that kind."""
        lines = [self.read()]
        while lines[-1]["type"] != kind:
            lines.append(self.read())
        return lines

    def open(self, **more: Any) -> int:
        """Open a session of the demo agent; the agent's pid."""
        return int(self.opening(**more)[0]["pid"])

    def opening(self, **more: Any) -> list[dict[str, Any]]:
        """Open a session of the demo agent; all that the host says of it."""
        self.send(
            type="open",
            argv=[sys.executable, "-I", "-S", str(DEMO_AGENT)],
            cwd=str(self.home),
            session_key="s",
            permissions="deny-all",
            model=None,
            resume=None,
            max_line_bytes=1024 * 1024,
            **more,
        )
        return self.read_until("opened")


@pytest.fixture
def runtime(runtime_dir: Path) -> Runtime:
    """The installed acpx."""
    found = find_runtime(runtime_dir, "acpx")
    assert found
    return found


@pytest.fixture
def host(runtime: Runtime, tmp_path: Path) -> Iterator[Host]:
    """A running host; gone after the test."""
    host = Host(runtime, tmp_path)
    yield host
    with host.process as process:
        process.kill()


def written_by(pid: int) -> int:
    """How many bytes a process has handed to ``write`` so far."""
    found = re.search(r"^wchar: (\d+)$", Path(f"/proc/{pid}/io").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


def wait_until_stuck(pid: int) -> int:
    """Return how much a process has written once it has written no more for half a second."""
    deadline = time.monotonic() + DEADLINE_SECS
    before, since = -1, time.monotonic()
    while time.monotonic() - since < 0.5:
        assert time.monotonic() < deadline, "it never stops writing"
        now = written_by(pid)
        if now != before:
            before, since = now, time.monotonic()
        select.select([], [], [], 0.02)
    return before


def test_an_unread_host_stops_the_agent_and_still_hears(host: Host) -> None:
    """Past 4 MiB unsent the agent has to wait; a cancel gets through all the same."""
    agent_pid = host.open()
    host.send(type="prompt", turn=1, text="flood: 2000000")
    assert wait_until_stuck(agent_pid) < 16 * 1024 * 1024
    host.send(type="cancel", turn=1)
    *_, result = host.read_until("result")
    assert result == {"type": "result", "turn": 1, "stop_reason": "cancelled"}


def test_a_rehearsal_is_played_and_nothing_of_it_is_seen(host: Host) -> None:
    """The whole of it goes well, no line of it comes out, and the agent has heard none of it."""
    spawned, opened = host.opening(rehearse=True)
    assert (spawned["type"], opened["rehearsed"]) == ("spawned", True)
    host.send(type="prompt", turn=1, text="recall")
    *said, result = host.read_until("result")
    assert result == {"type": "result", "turn": 1, "stop_reason": "end_turn"}
    assert [line["type"] for line in said] == ["acp"] * len(said)
    assert "rehearsal" not in json.dumps(said)


def test_a_rehearsed_host_ends_as_any_other(host: Host) -> None:
    """The agent that was only played holds nobody up."""
    agent_pid = host.open(rehearse=True)
    assert host.process.stdin is not None
    host.process.stdin.close()
    assert host.process.wait(DEADLINE_SECS) == 0
    assert not Path(f"/proc/{agent_pid}").exists()


def test_a_host_that_is_not_told_to_rehearses_nothing(host: Host) -> None:
    """Whoever waits for a session waits for nothing else."""
    assert host.opening()[-1]["rehearsed"] is False


def test_the_end_of_input_ends_host_and_agent(host: Host) -> None:
    """Closing the host's input is the word to close: both processes end by themselves."""
    agent_pid = host.open()
    assert host.process.stdin is not None
    host.process.stdin.close()
    assert host.process.wait(DEADLINE_SECS) == 0
    assert not Path(f"/proc/{agent_pid}").exists()


def test_the_host_names_the_pinned_version(runtime_dir: Path) -> None:
    """The version the host insists on is the one that the lock file installs."""
    pinned = wanted(runtime_dir, "acpx").packages["acpx"]
    assert f'const ACPX_VERSION = "{pinned}";' in HOST.read_text()


def test_the_installed_acpx_passes_the_check(runtime: Runtime) -> None:
    """What the host leans on is there."""
    check_acpx(runtime)


@pytest.mark.parametrize(
    ("version", "module", "words"),
    [
        ("0.19.0", "export class AcpxRuntime {}", "0.19.0 was found"),
        ("0.19.1", "export class AcpxRuntime {}", "without getManager"),
        ("0.19.1", "export const x = 1;", "without AcpxRuntime"),
        (None, "", "none was found"),
    ],
)
def test_another_acpx_is_refused_by_name(
    tmp_path: Path, version: str | None, module: str, words: str
) -> None:
    """The check says which acpx is wanted, which was found, and what it lacks."""
    folder = tmp_path / "node_modules" / "acpx"
    folder.mkdir(parents=True)
    if version:
        exports = {"./runtime": "./runtime.js", "./package.json": "./package.json"}
        manifest = {"name": "acpx", "version": version, "type": "module", "exports": exports}
        (folder / "package.json").write_text(json.dumps(manifest))
        (folder / "runtime.js").write_text(module)
    with pytest.raises(RuntimeNotInstalled) as caught:
        check_acpx(Runtime("acpx", tmp_path, {"acpx": "0.19.1"}))
    assert "acpx 0.19.1 is wanted" in caught.value.reason
    assert words in caught.value.reason
