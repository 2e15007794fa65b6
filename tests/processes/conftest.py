"""Real launchers for the tests of processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from clawdforge.processes.launcher import AcpxLauncher
from tests.installed import runtime_dir
from tests.processes.trees import new_incarnation, nothing_survives

__all__ = ["acpx_launcher", "runtime_dir"]

PASSED = {"PATH": os.environ["PATH"], "CLAWDFORGE_ADMIN_TOKEN": "secret" * 4, "OTHER": "other"}
"""The environment of the service, as the launcher is given it."""


@pytest.fixture
def acpx_launcher(runtime_dir: Path, tmp_path: Path) -> Iterator[AcpxLauncher]:
    """A launcher on its own data directory; no process of it outlives the test."""
    launcher = AcpxLauncher(
        data_dir=tmp_path / "data",
        runtime_dir=runtime_dir,
        incarnation=new_incarnation(),
        environment=PASSED,
        start_concurrency=2,
    )
    with nothing_survives(launcher.incarnation):
        yield launcher
