"""The clock policy of the suite, enforced here.

Tests run on the real clock and use no time of their own: they wait for conditions, with a bound
that fails loudly. Tests marked ``virtual_time`` run on a clock that jumps ahead whenever every task
is at rest. That is only sound while nothing happens outside Trio: no threads, no processes, no
database. A jump would make a healthy child miss its deadline.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import hypothesis
import pytest
import trio
import trio.testing

Answer = TypeVar("Answer")

# A busy machine is no fault of an example: time is never what a test here judges.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


def run_in_virtual_time(main: Callable[[], Awaitable[Answer]], **settings: Any) -> Answer:
    """``trio.run`` on a clock that jumps when all is at rest."""
    settings["clock"] = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(main, **settings)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give ``virtual_time`` tests their clock; pytest-trio takes the first marker's runner."""
    for item in items:
        if item.get_closest_marker("virtual_time") is not None:
            item.add_marker(pytest.mark.trio(run=run_in_virtual_time), append=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How hard to try what is tried again and again."""
    parser.addoption("--kills", type=int, default=10, help="rounds of killing the service (50)")
