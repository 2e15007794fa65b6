"""The acpx launcher: gives each session its directories, its environment and its agent's process.

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
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from clawdforge.domain.ids import SessionId
from clawdforge.domain.ports import Agent, AgentExit, AgentSink, LaunchSpec, Started
from clawdforge.domain.profiles import AgentProfile
from clawdforge.errors import AgentError, AgentNotResumable, AgentNotStarted
from clawdforge.processes.acpx import AcpxAgent
from clawdforge.processes.child import LINE_BYTES, Child, ChildCommand, run_child
from clawdforge.processes.marks import Incarnation
from clawdforge.processes.runtime import HOST, REMEDIES, Part, Runtime, find_runtime, node_binary

DEMO_AGENT: Final = Path(__file__).parents[1] / "testing" / "demo_agent.py"

ENVELOPE_ROOM: Final = 1024
"""A line of the host's may be this much longer than the agent's line it carries."""

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


@attrs.frozen(kw_only=True)
class AcpxLauncher:
    """Implements :class:`clawdforge.domain.ports.Launcher` with one acpx host per session.

    ``environment`` is where the values of a profile's ``env`` names come from (the service's own
    environment, given by the composition root); nothing else reads it. ``start_concurrency`` bounds
    the agents that start at one time: each costs 0.4 s of processor.
    """

    # Absolute: the host's working directory is the session's, not ours.
    data_dir: Path = attrs.field(converter=_absolute)
    runtime_dir: Path = attrs.field(converter=_absolute)
    incarnation: Incarnation
    environment: Mapping[str, str] = attrs.field(repr=False)
    start_concurrency: int
    _starts: trio.Semaphore = attrs.field(init=False, repr=False)

    @_starts.default
    def _bounded_by_start_concurrency(self) -> trio.Semaphore:
        return trio.Semaphore(self.start_concurrency)

    async def run_agent(
        self, spec: LaunchSpec, sink: AgentSink, *, task_status: Started[Agent]
    ) -> AgentExit:
        """As the port says. A resuming start has the conversation loaded before ``started``.

        So AgentNotResumable comes from here, never from the first prompt.
        """
        folders = self.folders(spec.session_id)
        command, order = await trio.to_thread.run_sync(self._prepare, spec, folders)
        agent = AcpxAgent(
            spec.profile.name,
            sink,
            partial(_stage, folders),
            [self.environment.get(name, "") for name in spec.profile.env],
        )
        failure: AgentError | None = None
        async with trio.open_nursery() as nursery:
            try:
                async with self._starts:
                    child = await nursery.start(_host, command, agent)
                    opened = await agent.open(child, order)
                    await trio.to_thread.run_sync(folders.write_ticket, opened.agent_session_id)
                task_status.started(agent)
            except AgentError as error:
                failure = error
                agent.kill()
        if failure is not None:
            raise failure
        assert agent.exit is not None
        return agent.exit

    async def discard(self, session_id: SessionId) -> None:
        """Remove the session's directories. Idempotent; may be cancelled and called again."""
        remove = partial(shutil.rmtree, self.folders(session_id).root, ignore_errors=True)
        await trio.to_thread.run_sync(remove)

    def folders(self, session_id: SessionId) -> SessionFolders:
        """Where that session lives."""
        if Path(session_id).name != session_id:
            raise ValueError("a session id is one path component")
        return SessionFolders(self.data_dir / "sessions" / session_id)

    def resolve_argv(self, profile: AgentProfile) -> list[str]:
        """The agent's command. Raises AgentNotStarted when it is not installed."""
        if profile.argv is not None:
            return list(profile.argv)
        if profile.name == "demo":
            return [sys.executable, "-I", "-S", str(DEMO_AGENT)]
        if profile.name == "claude":
            adapter = self._require("claude", profile).module(
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

    def _require(self, part: Part, profile: AgentProfile) -> Runtime:
        runtime = find_runtime(self.runtime_dir, part)
        if runtime is None:
            raise AgentNotStarted(profile.name, f"{part} is not installed", REMEDIES[part])
        return runtime

    def _prepare(
        self, spec: LaunchSpec, folders: SessionFolders
    ) -> tuple[ChildCommand, dict[str, Any]]:
        """The host's command and its first order. Raises AgentNotStarted, AgentNotResumable."""
        profile = spec.profile
        argv = self.resolve_argv(profile)
        acpx = self._require("acpx", profile)
        try:
            folders.create()
            self._home(profile).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            reason = f"its directories: {error.strerror}"
            raise AgentNotStarted(profile.name, reason) from error
        ticket = folders.read_ticket() if spec.is_resuming else None
        if spec.is_resuming and ticket is None:
            raise AgentNotResumable(profile.name)
        env = self.child_environment(profile, folders)
        # The host takes this one out again before it starts the agent. A quarter of its start.
        env["NODE_COMPILE_CACHE"] = str(self.data_dir / "cache" / "node")
        command = ChildCommand(
            argv=[str(node_binary()), str(HOST), str(acpx.directory)],
            env=env,
            cwd=folders.work,
            incarnation=self.incarnation,
        )
        order = {
            "argv": argv,
            "cwd": str(folders.work),
            "session_key": spec.session_id,
            "permissions": spec.permissions,
            "model": spec.model or profile.model,
            "resume": ticket,
            "max_line_bytes": LINE_BYTES - ENVELOPE_ROOM,
        }
        return command, order


async def _stage(folders: SessionFolders, turn_index: int, files: Sequence[Path]) -> Sequence[str]:
    if not files:
        return ()
    return await trio.to_thread.run_sync(folders.stage, turn_index, files)


async def _host(  # noqa: ASYNC128  # run_child calls started()
    command: ChildCommand, agent: AcpxAgent, *, task_status: trio.TaskStatus[Child]
) -> None:
    """Run the host to its end, and let nobody wait on it after that."""
    end = None
    try:
        end = await run_child(
            command,
            on_line=agent.on_line,
            on_skipped=agent.on_skipped,
            task_status=task_status,
        )
    except OSError as error:
        reason = f"the acpx host: {error.strerror}"
        raise AgentNotStarted(agent.name, reason) from error
    finally:
        agent.host_ended(end)
