"""A machine that is full is not the agent's fault."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
import trio

from clawdforge.domain.ids import AgentName
from clawdforge.errors import AgentNotStarted, MachineFull
from clawdforge.processes import launcher as launcher_module
from clawdforge.processes.scarcity import describe_failed_start
from tests.processes.conftest import OverTransport
from tests.processes.test_launcher_contract import Notes, spec_of


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (errno.EMFILE, "open files"),
        (errno.EAGAIN, "processes"),
        (errno.ENOMEM, "memory"),
        (errno.ENOSPC, "room on the disk"),
    ],
)
def test_what_is_scarce_is_named(number: int, what: str) -> None:
    """503 for the caller to try again, and nothing is held against the agent."""
    error = describe_failed_start(
        AgentName("mine"), "its process", OSError(number, os.strerror(number))
    )
    assert isinstance(error, MachineFull)
    assert error.what == what


def test_other_failures_are_the_agents() -> None:
    """A folder that may not be entered does not mend itself."""
    error = describe_failed_start(AgentName("mine"), "its process", OSError(errno.EACCES, "denied"))
    assert isinstance(error, AgentNotStarted)
    assert error.reason == "its process: denied"


async def test_a_start_without_descriptors(
    agent_launcher: OverTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher says so, and leaves nothing."""

    async def run_child(*_: Any, **__: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(launcher_module, "run_child", run_child)
    with pytest.raises(MachineFull, match="open files"):
        await agent_launcher.run_agent(spec_of("s"), Notes(), task_status=trio.TASK_STATUS_IGNORED)
