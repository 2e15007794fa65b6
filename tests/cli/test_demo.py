"""``clawdforge demo`` from end to end, as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

DEADLINE_SECS = 300.0
"""The first run on a machine installs acpx."""

pytestmark = pytest.mark.system


def environ() -> dict[str, str]:
    """The caller's, without a service's settings."""
    return {name: text for name, text in os.environ.items() if not name.startswith("CLAWDFORGE_")}


@pytest.mark.timeout(DEADLINE_SECS)
def test_the_demo_does_its_job_and_leaves_nothing() -> None:
    """Two turns, the second recalls the first; a process tree that is gone afterwards; exit 0."""
    done = subprocess.run(
        [sys.executable, "-m", "clawdforge", "demo"],
        capture_output=True,
        text=True,
        env=environ(),
        timeout=DEADLINE_SECS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "You said before:\n  My name is Ada" in done.stdout
    assert "Nice to meet you, Ada." in done.stdout.split("Turn 2")[0]
    assert '"result": ["red", "green", "blue"]' in done.stdout
    assert "demo_agent.py" in done.stdout
    assert done.stdout.split("Its processes after closing")[1].split() == [
        "none", "What", "is", "left", "of", "it", "nothing",
    ]  # fmt: skip


@pytest.mark.timeout(DEADLINE_SECS)
def test_keep_goes_on_serving_until_it_is_stopped() -> None:
    """With --keep there are curl lines, and SIGINT ends it cleanly."""
    with subprocess.Popen(
        [sys.executable, "-m", "clawdforge", "demo", "--keep"],
        stdout=subprocess.PIPE,
        text=True,
        env={**environ(), "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "curl" in line and "-X DELETE" in line)
        assert "Authorization: Bearer cf_" in line
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().split()[-1] == "nothing"
        assert process.wait(60) == 0
