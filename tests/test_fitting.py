"""What is asked of Python for a process of our own."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from clawdforge.fitting import YOUNG_OBJECTS, calm_collector


@pytest.fixture
def kept_collector() -> Iterator[None]:
    """Put everything back as it was."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("kept_collector")
def test_the_collector_is_calm_and_still_collects() -> None:
    """What was there is not looked at again; new garbage in a circle still goes."""
    calm_collector()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold()[0] == YOUNG_OBJECTS
    assert gc.isenabled()
    circle: list[object] = []
    circle.append(circle)
    del circle
    assert gc.collect() > 0
