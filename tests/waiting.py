"""Waiting for a condition that another thread or process makes true: bounded, and loud when not."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_SECS = 60.0
"""Far beyond what any step takes on a busy machine: past it the test fails."""

LOOK_SECS = 0.01


def wait_until(is_so: Callable[[], object], what: str, *, secs: float = PATIENCE_SECS) -> None:
    """Return when ``is_so()`` is true; fail naming ``what`` after ``secs``."""
    give_up_at = time.monotonic() + secs
    while not is_so():
        assert time.monotonic() < give_up_at, f"not within {secs:g} s: {what}"
        time.sleep(LOOK_SECS)  # between two looks at a real condition
