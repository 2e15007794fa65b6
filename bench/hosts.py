"""Twenty sessions at once over acpx, against so many acpx hosts with nobody in front of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from bench.clients import drive
from bench.figures import Line, p95
from bench.plan import Plan
from bench.subjects import PROMPT, clawdforge
from bench.turns import Subject, run_blocks
from clawdforge.config import Config
from clawdforge.processes.lodging import DEMO_AGENT
from clawdforge.processes.runtime import HOST, find_runtime, node_binary

PART: Final = "acpx, 20 sessions at once"
ALONE: Final = "the acpx host alone"
SESSIONS: Final = 20


class HostChannel:
    """An acpx host with an open session, driven over its own pipes."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._turn = 0
        self._rest = b""
        self._write(
            type="open",
            argv=[sys.executable, "-I", "-S", str(DEMO_AGENT)],
            cwd=str(folder),
            session_key="bench",
            permissions="deny-all",
            model=None,
            resume=None,
            max_line_bytes=1 << 24,
            rehearse=False,
        )
        while json.loads(self._stdout.readline())["type"] != "opened":
            pass

    def fileno(self) -> int:
        """The host's output."""
        return self._stdout.fileno()

    def refresh(self) -> None:
        """A pipe stays."""

    def send(self) -> None:
        """Ask."""
        self._turn += 1
        self._write(type="prompt", turn=self._turn, text=PROMPT)

    def take(self) -> tuple[bool, bool]:
        """Read lines; the last one is the result."""
        chunk = self._stdout.read1(1 << 20)  # type: ignore[attr-defined]  # a BufferedReader
        assert chunk, "the host has ended"
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        messages = [json.loads(line) for line in lines]
        return bool(messages), any(message["type"] == "result" for message in messages)

    def _write(self, **order: object) -> None:
        self._stdin.write(json.dumps(order).encode() + b"\n")
        self._stdin.flush()


@contextmanager
def bare_hosts(folder: Path, count: int) -> Iterator[list[HostChannel]]:
    """So many hosts, each with its agent."""
    folder.mkdir(parents=True, exist_ok=True)
    acpx = find_runtime(Config().runtime_dir, "acpx")
    assert acpx is not None
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "DEMO_AGENT_STATE": str(folder)}
    with ExitStack() as stack:
        channels = []
        for _ in range(count):
            process = stack.enter_context(
                subprocess.Popen(
                    [str(node_binary()), str(HOST), str(acpx.directory)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=env,
                    cwd=folder,
                )
            )
            stack.callback(process.kill)
            channels.append(HostChannel(process, folder))
        yield channels


def measure_hosts(plan: Plan) -> Iterator[Line]:
    """Both in turn; each session sends its next turn when its last is answered."""
    with ExitStack() as stack:
        alone = stack.enter_context(bare_hosts(plan.new_folder(), SESSIONS))
        service = stack.enter_context(clawdforge(plan.new_folder(), agents=["acpx"]))
        opened = service.open_sessions(SESSIONS, "acpx")
        served = stack.enter_context(service.turns(opened, is_stream=False))
        subjects = [Subject(ALONE, alone), Subject("acpx, plain", served, service.tree)]
        for subject in subjects:
            drive(subject.channels, max(plan.warm_up, 2) * SESSIONS)
        found = run_blocks(plan, subjects, max(plan.turns, SESSIONS))
    for name, blocks in found.items():
        base = None if name == ALONE else ALONE
        medians = tuple(median(block.times_ms()) for block in blocks)
        worst = tuple(p95(block.times_ms()) for block in blocks)
        yield Line(PART, name, "median", "ms", medians, base)
        yield Line(PART, name, "p95", "ms", worst, base)
