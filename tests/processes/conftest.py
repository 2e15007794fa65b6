"""Real launchers for the tests of processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import attrs
import pytest

from clawdforge.domain.ids import SessionId
from clawdforge.domain.ports import Agent, AgentExit, AgentSink, LaunchSpec, Started
from clawdforge.domain.profiles import Transport
from clawdforge.processes.launcher import AgentLauncher
from clawdforge.processes.lodging import Lodging
from clawdforge.processes.marks import Incarnation
from tests.installed import runtime_dir
from tests.processes.trees import new_incarnation, nothing_survives

__all__ = ["OverTransport", "agent_launcher", "runtime_dir", "transport"]

PASSED = {"PATH": os.environ["PATH"], "CLAWDFORGE_ADMIN_TOKEN": "secret" * 4, "OTHER": "other"}
"""The environment of the service, as the launcher is given it."""


@attrs.frozen
class OverTransport:
    """A launcher that starts every agent over one transport, whatever its profile says."""

    transport: Transport
    lodging: Lodging

    @property
    def incarnation(self) -> Incarnation:
        """What its processes are marked with."""
        return self.lodging.incarnation

    async def run_agent(  # noqa: ASYNC128  # handed on
        self, spec: LaunchSpec, sink: AgentSink, *, task_status: Started[Agent]
    ) -> AgentExit:
        """As the launcher does."""
        spec = attrs.evolve(spec, profile=attrs.evolve(spec.profile, transport=self.transport))
        return await AgentLauncher(self.lodging).run_agent(spec, sink, task_status=task_status)

    async def discard(self, session_id: SessionId) -> None:
        """As the launcher does."""
        await AgentLauncher(self.lodging).discard(session_id)


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.system) if name == "acpx" else name
        for name in get_args(Transport)
    ]
)
def transport(request: pytest.FixtureRequest) -> Transport:
    """Each transport in turn; only the acpx host needs Node."""
    name: Transport = request.param
    return name


@pytest.fixture
def agent_launcher(
    request: pytest.FixtureRequest, transport: Transport, tmp_path: Path
) -> Iterator[OverTransport]:
    """A launcher on its own data directory; no process of it outlives the test."""
    is_acpx = transport == "acpx"
    lodging = Lodging(
        data_dir=tmp_path / "data",
        runtime_dir=request.getfixturevalue("runtime_dir") if is_acpx else tmp_path / "no-node",
        incarnation=new_incarnation(),
        environment=PASSED,
    )
    with nothing_survives(lodging.incarnation):
        yield OverTransport(transport, lodging)
