"""Real handshakes with every configured agent, for ``doctor``: start it, hear it, end it.

Agents start as they would for a session, with directories of their own in a temporary place: the
data directory is not touched, so a service that runs on it is not disturbed.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trio

from clawdforge.cli.findings import Finding
from clawdforge.config import CLAUDE, Config
from clawdforge.domain.ids import SessionId
from clawdforge.domain.ports import AgentInfo, Launcher, LaunchSpec, Message, PermissionRequest
from clawdforge.domain.profiles import AgentProfile
from clawdforge.errors import AgentNotStarted, ClawdforgeError
from clawdforge.processes.launcher import AgentLauncher
from clawdforge.processes.lodging import Lodging
from clawdforge.processes.marks import Incarnation
from clawdforge.processes.runtime import REMEDIES, find_runtime

NO_REMEDY: Final = "see the agent's profile in the configuration file"


class Silence:
    """A sink that keeps nothing."""

    def on_event(self, message: Message, wire: bytes) -> None:
        """Nothing is asked, so nothing is answered."""

    def on_skipped(self, count: int) -> None:
        """Noise at start is no failure."""

    def on_permission(self, request: PermissionRequest) -> None:
        """Nothing is asked, so nothing needs permission."""


def check_agents(config: Config) -> Iterator[Finding]:
    """One finding an agent."""
    with tempfile.TemporaryDirectory(prefix="clawdforge-doctor-") as folder:
        lodging = Lodging(
            data_dir=Path(folder),
            runtime_dir=config.runtime_dir,
            incarnation=Incarnation(f"doctor-{secrets.token_hex(8)}", secrets.token_hex(8)),
            environment=os.environ,
        )
        launcher = AgentLauncher(lodging)
        for profile in config.agents.values():
            yield _check_agent(config, launcher, profile)


def _check_agent(config: Config, launcher: Launcher, profile: AgentProfile) -> Finding:
    """Does this agent start and shake hands?"""
    name = f"agent {profile.name}"
    is_optional = profile.name == CLAUDE and profile.argv is None
    if is_optional and find_runtime(config.runtime_dir, "claude") is None:
        return Finding(name, "missing", "not installed (optional)", REMEDIES["claude"])
    try:
        info = trio.run(shake_hands, launcher, profile, config.start_secs)
    except AgentNotStarted as error:
        return Finding(name, "failed", error.reason, error.remedy or NO_REMEDY)
    except ClawdforgeError as error:
        return Finding(name, "failed", str(error), NO_REMEDY)
    resume = "resumes conversations" if info.can_resume else "cannot resume conversations"
    version = " ".join(filter(None, (info.name, info.version)))
    return Finding(name, "ok", f"{version or 'unnamed'}, {resume}")


async def shake_hands(launcher: Launcher, profile: AgentProfile, start_secs: float) -> AgentInfo:
    """Start the agent, and end it. Raises what ``run_agent`` raises, AgentNotStarted when late."""
    spec = LaunchSpec(
        SessionId(secrets.token_urlsafe(24)), profile, profile.model, profile.permissions
    )
    failure: ClawdforgeError | None = None
    info: AgentInfo | None = None
    with trio.move_on_after(start_secs):
        try:
            async with trio.open_nursery() as nursery:
                agent = await nursery.start(launcher.run_agent, spec, Silence())
                info = agent.info
                agent.kill()
        except* ClawdforgeError as group:
            failure = _first(group)
    if failure is not None:
        raise failure
    if info is None:
        raise AgentNotStarted(profile.name, f"no handshake within {start_secs:g} s")
    return info


def _first(group: BaseExceptionGroup[ClawdforgeError]) -> ClawdforgeError:
    """The first error of a group."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    assert isinstance(first, ClawdforgeError)
    return first
