"""A short run of the chaos program: every kind of fault once, and more at random."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]


def test_every_promise_holds_through_sixty_faults(runtime_dir: Path) -> None:
    """No survivor, no acknowledged turn lost or ended twice, no slot leaked, all answered."""
    command = [sys.executable, "-m", "ops.chaos", "--steps", "60", "--seed", "60"]
    done = subprocess.run(
        [*command, "--runtime-dir", str(runtime_dir)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=850,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "all promises kept" in done.stdout
