"""What a turn costs over the bare pipe: the same agent, the same prompt, turn by turn in one run.

Run it as ``python -m bench.turn_overhead``. Exit code 1 when the median of a turn through HTTP,
actor, warden and acpx host lies more than 50 ms above that of the pipe.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final

from bench.clients import Channel, drive
from bench.figures import p95
from bench.subjects import bare_pipes, clawdforge
from clawdforge.config import Config
from clawdforge.processes.runtime import ensure_runtime

TURNS: Final = 100
WARM_UP: Final = 5
LIMIT_MS: Final = 50.0


def time_ms(channel: Channel) -> float:
    """How long one turn takes."""
    (timing,) = drive([channel], 1)
    return timing.total_secs * 1000


def describe(name: str, times: list[float]) -> str:
    """Median and spread in one line."""
    return f"{name:8} median {median(times):7.2f} ms   p95 {p95(times):7.2f} ms"


def main() -> int:
    """Measure, print, judge."""
    ensure_runtime(Config().runtime_dir, "acpx", lambda line: print(line, file=sys.stderr))
    with tempfile.TemporaryDirectory(prefix="clawdforge-bench-") as folder, ExitStack() as stack:
        (pipe,) = stack.enter_context(bare_pipes(Path(folder, "pipe"), 1))
        service = stack.enter_context(clawdforge(Path(folder, "service"), agents=["acpx"]))
        opened = service.open_sessions(1, "acpx")
        (turn,) = stack.enter_context(service.turns(opened, is_stream=False))
        for channel in (pipe, turn):
            drive([channel], WARM_UP)
        pairs = [(time_ms(pipe), time_ms(turn)) for _ in range(TURNS)]
    bare, served = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    above = median(served) - median(bare)
    print(f"{TURNS} turns each, one client, interleaved")
    print(describe("pipe", bare))
    print(describe("service", served))
    print(f"above the pipe: {above:.2f} ms (limit {LIMIT_MS:g} ms)")
    return 0 if above <= LIMIT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
