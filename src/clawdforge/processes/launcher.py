"""The launcher: starts each session's agent in its own process tree, over its profile's transport.

What an agent may see is decided in ``processes.lodging``; what is said to it, in ``processes.acpx``
and ``processes.direct``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

import attrs
import trio

from clawdforge.domain.ids import SessionId
from clawdforge.domain.ports import Agent, AgentExit, AgentSink, LaunchSpec, Started
from clawdforge.domain.profiles import Transport
from clawdforge.errors import AgentError, CapacityError, ClawdforgeError
from clawdforge.processes.acpx import AcpxAgent, acpx_command
from clawdforge.processes.child import Child, ChildCommand, run_child
from clawdforge.processes.direct import DirectAgent, direct_command
from clawdforge.processes.hosting import HostedAgent
from clawdforge.processes.lodging import Lodging
from clawdforge.processes.scarcity import describe_failed_start

MUTE_SECS: Final = 1.0
"""How long an agent may live on that has closed its output; one that ends needs milliseconds."""

AGENTS: Final[Mapping[Transport, type[HostedAgent]]] = {"acpx": AcpxAgent, "acp": DirectAgent}
COMMANDS: Final = {"acpx": acpx_command, "acp": direct_command}


@attrs.frozen
class AgentLauncher:
    """Implements :class:`clawdforge.domain.ports.Launcher` with one process tree per session."""

    lodging: Lodging

    async def run_agent(
        self, spec: LaunchSpec, sink: AgentSink, *, task_status: Started[Agent]
    ) -> AgentExit:
        """As the port says. A resuming start has the conversation loaded before ``started``.

        So AgentNotResumable comes from here, never from the first prompt.
        """
        command, agent = await trio.to_thread.run_sync(self._prepare, spec, sink)
        failure: ClawdforgeError | None = None
        async with trio.open_nursery() as nursery:
            try:
                child = await nursery.start(_host, command, agent, nursery)
                agent_session_id = await agent.open(child, nursery)
                folders = self.lodging.folders(spec.session_id)
                await trio.to_thread.run_sync(folders.write_ticket, agent_session_id)
                task_status.started(agent)
            except (AgentError, CapacityError) as error:
                failure = error
                agent.kill()
            except OSError as error:
                failure = describe_failed_start(spec.profile.name, "its directories", error)
                agent.kill()
        if failure is not None:
            raise failure
        assert agent.exit is not None
        return agent.exit

    async def discard(self, session_id: SessionId) -> None:
        """Remove the session's directories. Idempotent; may be cancelled and called again."""
        await trio.to_thread.run_sync(self.lodging.discard, session_id)

    def _prepare(self, spec: LaunchSpec, sink: AgentSink) -> tuple[ChildCommand, HostedAgent]:
        """What to start, and who speaks to it. Raises AgentNotStarted, AgentNotResumable."""
        lodged = self.lodging.lodge(spec)
        transport = spec.profile.transport
        return COMMANDS[transport](self.lodging, lodged), AGENTS[transport](lodged, sink)


async def _host(  # noqa: ASYNC128  # run_child calls started()
    command: ChildCommand,
    agent: HostedAgent,
    nursery: trio.Nursery,
    *,
    task_status: trio.TaskStatus[Child],
) -> None:
    """Run the process to its end, and let nobody wait on it after that."""
    end, is_over = None, trio.Event()
    try:
        end = await run_child(
            command,
            on_line=agent.on_line,
            on_skipped=agent.on_skipped,
            on_end=partial(nursery.start_soon, _give_up_mute, agent, is_over),
            task_status=task_status,
        )
    except OSError as error:
        raise describe_failed_start(agent.name, "its process", error) from error
    finally:
        is_over.set()
        agent.process_ended(end)


async def _give_up_mute(agent: HostedAgent, is_over: trio.Event) -> None:
    """An agent whose output has ended can answer nothing any more: a turn would wait for ever."""
    with trio.move_on_after(MUTE_SECS):
        await is_over.wait()
        return
    agent.end("it closed its output")
