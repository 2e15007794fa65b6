"""Where agents live: the directories, the environment and the command of each session's agent.

The rule: *an agent sees what its profile lists and nothing else of ours.* Every profile is resolved
to an argv here, so acpx's own registry, ``npx`` and files in a working directory have no say; the
environment is an allow-list. It is no sandbox: agents run as our user.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import trio

from clawdforge.domain.ids import SessionId
from clawdforge.domain.ports import LaunchSpec
from clawdforge.domain.profiles import AgentProfile
from clawdforge.errors import AgentNotResumable, AgentNotStarted
from clawdforge.processes.marks import Incarnation
from clawdforge.processes.runtime import REMEDIES, Part, Runtime, find_runtime, node_binary
from clawdforge.processes.scarcity import describe_failed_start

DEMO_AGENT: Final = Path(__file__).parents[1] / "testing" / "demo_agent.py"

PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "TZ")
"""What every agent gets of our environment."""

OURS: Final = "CLAWDFORGE_"
"""Variables with this prefix are settings and secrets of ours; no profile can pass them on."""


def _absolute(path: Path) -> Path:
    return path.absolute()


@attrs.frozen
class SessionFolders:
    """Where a session lives: ``work`` is the agent's working directory, ``state`` is ours."""

    root: Path

    @property
    def work(self) -> Path:
        """The agent's working directory; all it may touch through acpx."""
        return self.root / "work"

    @property
    def state(self) -> Path:
        """What must outlive the agent's process."""
        return self.root / "state"

    @property
    def ticket(self) -> Path:
        """The agent's own session id, with which a later process takes the conversation up."""
        return self.state / "session.json"

    def create(self) -> None:
        """Make them, for us alone. Idempotent."""
        for folder in (self.root, self.work, self.state):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read_ticket(self) -> str | None:
        """The agent's session id, if one was opened here."""
        try:
            return str(json.loads(self.ticket.read_bytes())["agent_session_id"])
        except (OSError, ValueError, KeyError):
            return None

    def write_ticket(self, agent_session_id: str) -> None:
        """Replace it whole."""
        draft = self.ticket.with_suffix(".tmp")
        draft.write_text(json.dumps({"agent_session_id": agent_session_id}))
        draft.replace(self.ticket)

    def stage(self, turn_index: int, files: Sequence[Path]) -> list[str]:
        """Link (else copy) files into ``work``; their names there."""
        names = []
        for number, file in enumerate(files, 1):
            name = f"attachment-{turn_index}-{number}{file.suffix}"
            target = self.work / name
            target.unlink(missing_ok=True)
            try:
                target.hardlink_to(file)
            except OSError:  # another file system
                shutil.copyfile(file, target)
            names.append(name)
        return names


@attrs.frozen
class Lodged:
    """All that is known of an agent before its process starts.

    ``ticket`` is the agent's session to take up, None for a new one. ``hidden`` are values
    (credentials) that must not show in any reason.
    """

    spec: LaunchSpec
    folders: SessionFolders
    argv: Sequence[str]
    env: Mapping[str, str] = attrs.field(repr=False)
    ticket: str | None
    hidden: Sequence[str] = attrs.field(repr=False)

    @property
    def model(self) -> str | None:
        """The model to choose; None leaves it to the agent."""
        return self.spec.model or self.spec.profile.model

    async def stage(self, turn_index: int, files: Sequence[Path]) -> Sequence[str]:
        """Put a turn's files where the agent can read them; their relative names."""
        if not files:
            return ()
        return await trio.to_thread.run_sync(self.folders.stage, turn_index, files)


@attrs.frozen(kw_only=True)
class Lodging:
    """Makes agents' places under ``data_dir``, and knows where the Node parts are.

    ``environment`` is where the values of a profile's ``env`` names come from (the service's own
    environment, given by the composition root); nothing else reads it.
    """

    # Absolute: an agent's working directory is its session's, not ours.
    data_dir: Path = attrs.field(converter=_absolute)
    runtime_dir: Path = attrs.field(converter=_absolute)
    incarnation: Incarnation
    environment: Mapping[str, str] = attrs.field(repr=False)

    def lodge(self, spec: LaunchSpec) -> Lodged:
        """Make the session's place, and say how its agent is started. Blocking.

        Raises AgentNotStarted, MachineFull, and AgentNotResumable when there is nothing to take up.
        """
        profile, folders = spec.profile, self.folders(spec.session_id)
        argv = self.resolve_argv(profile)
        try:
            folders.create()
            self._home(profile).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise describe_failed_start(profile.name, "its directories", error) from error
        ticket = folders.read_ticket() if spec.is_resuming else None
        if spec.is_resuming and ticket is None:
            raise AgentNotResumable(profile.name)
        hidden = [self.environment.get(name, "") for name in profile.env]
        return Lodged(spec, folders, argv, self.child_environment(profile, folders), ticket, hidden)

    def discard(self, session_id: SessionId) -> None:
        """Remove the session's directories. Blocking; idempotent."""
        shutil.rmtree(self.folders(session_id).root, ignore_errors=True)

    def folders(self, session_id: SessionId) -> SessionFolders:
        """Where that session lives."""
        if Path(session_id).name != session_id:
            raise ValueError("a session id is one path component")
        return SessionFolders(self.data_dir / "sessions" / session_id)

    def require(self, part: Part, profile: AgentProfile) -> Runtime:
        """An installed part. Raises AgentNotStarted, which says how to install it."""
        runtime = find_runtime(self.runtime_dir, part)
        if runtime is None:
            raise AgentNotStarted(profile.name, f"{part} is not installed", REMEDIES[part])
        return runtime

    def resolve_argv(self, profile: AgentProfile) -> list[str]:
        """The agent's command. Raises AgentNotStarted when it is not installed."""
        if profile.argv is not None:
            return list(profile.argv)
        if profile.name == "demo":
            return [sys.executable, "-I", "-S", str(DEMO_AGENT)]
        if profile.name == "claude":
            adapter = self.require("claude", profile).module(
                "@agentclientprotocol", "claude-agent-acp", "dist", "index.js"
            )
            return [str(node_binary()), str(adapter)]
        raise AgentNotStarted(profile.name, "its profile has no command")

    def child_environment(self, profile: AgentProfile, folders: SessionFolders) -> dict[str, str]:
        """All that the agent's process sees of variables."""
        names = [*PASSED_ON, *(name for name in profile.env if not name.startswith(OURS))]
        passed = {name: self.environment[name] for name in names if name in self.environment}
        return {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            **passed,
            "HOME": str(self._home(profile)),
            # The demo agent keeps conversations here, so that they go with the session.
            "DEMO_AGENT_STATE": str(folders.state),
            **profile.set_env,
        }

    def _home(self, profile: AgentProfile) -> Path:
        """One persistent folder per profile: logins, and conversations of agents that keep them."""
        return self.data_dir / "homes" / profile.name
