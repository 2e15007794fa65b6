"""The one installed acpx that a whole test run shares. Import ``runtime_dir`` into a conftest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clawdforge.processes.runtime import ensure_runtime


@pytest.fixture(scope="session")
def runtime_dir(pytestconfig: pytest.Config) -> Path:
    """A runtime directory with acpx in it.

    ``CLAWDFORGE_TEST_RUNTIME_DIR`` names one to reuse; else pytest's cache keeps it between runs.
    """
    named = os.environ.get("CLAWDFORGE_TEST_RUNTIME_DIR")
    directory = Path(named) if named else pytestconfig.cache.mkdir("clawdforge-runtime")
    ensure_runtime(directory, "acpx", print)
    return directory
