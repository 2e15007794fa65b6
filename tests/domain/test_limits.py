"""How descriptors are divided between sessions and connections."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawdforge.domain.limits import (
    CONNECTION_FILES,
    LEAST_CONNECTIONS,
    MAX_CONNECTIONS,
    OWN_FILES,
    START_FILES,
    TREE_FILES,
    FilePlan,
    files_wanted,
    plan_files,
)


@pytest.mark.parametrize(
    ("limit", "plan"),
    [
        (None, FilePlan(16, MAX_CONNECTIONS)),
        (1_048_576, FilePlan(16, MAX_CONNECTIONS)),
        (1024, FilePlan(16, 426)),
        (256, FilePlan(16, 42)),
        (200, FilePlan(15, 16)),
        (129, FilePlan(1, 16)),
        (128, None),
        (0, None),
    ],
)
def test_a_plan_for_the_default_settings(limit: int | None, plan: FilePlan | None) -> None:
    """16 sessions, 4 runs, 4 starts: all fit into 256; into 129 only one session does."""
    assert plan_files(limit, sessions=16, runs=4, starts=4) == plan


@given(
    limit=st.integers(0, 5000),
    sessions=st.integers(1, 500),
    runs=st.integers(1, 20),
    starts=st.integers(1, 20),
)
def test_a_plan_never_costs_more_than_there_is(
    limit: int, sessions: int, runs: int, starts: int
) -> None:
    """Everything at its most stays under the limit, and there is always room to say no in."""
    plan = plan_files(limit, sessions=sessions, runs=runs, starts=starts)
    if plan is None:
        assert limit < files_wanted(sessions=1, runs=runs, starts=starts)
        return
    assert 1 <= plan.sessions <= sessions
    assert plan.connections >= LEAST_CONNECTIONS
    trees = TREE_FILES * (plan.sessions + runs) + START_FILES * starts
    assert OWN_FILES + trees + CONNECTION_FILES * plan.connections <= limit
    if limit >= files_wanted(sessions=sessions, runs=runs, starts=starts):
        assert plan.sessions == sessions
