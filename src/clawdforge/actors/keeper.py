"""The keeper of a session's agent: at most one process tree at a time, proved dead before the next.

It runs the tree in the session actor's nursery, so that the actor's end is the tree's end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import attrs
import trio

from clawdforge.actors.starts import Starts
from clawdforge.actors.warm import WarmTree
from clawdforge.domain.ports import Agent, AgentExit, AgentSink, Launcher, LaunchSpec
from clawdforge.errors import AgentNotStarted


@attrs.define(eq=False)
class AgentKeeper:
    """Starts, holds and kills the agent of one session.

    ``warm`` is a tree that waits to be this session's first. ``was_asked`` says that there is a
    conversation, which the next tree must take up. ``on_exit`` is called when a tree is proved
    dead, whoever ended it. ``nursery`` is set before the first use.
    """

    launcher: Launcher
    sink: AgentSink
    start_secs: float
    on_exit: Callable[[AgentExit], None]
    spec: LaunchSpec
    starts: Starts
    warm: WarmTree | None = None
    nursery: trio.Nursery = attrs.field(init=False)
    was_asked: bool = False
    agent: Agent | None = None
    _dead: trio.Event | None = None

    async def ready(self) -> Agent:
        """The agent; when there is none, it is started and the handshake waited for.

        Raises AgentNotStarted (within ``start_secs``), AgentNotResumable or, when it was not tried,
        what ``Starts.one`` raises (within ``start_secs`` more); nothing of it is left then.
        Cancelling ends a start likewise.
        """
        if self.agent is not None:
            return self.agent
        await self._prove_dead()
        warm, self.warm = self.warm, None
        if warm is not None and warm.is_alive:
            return self._adopt(warm)
        spec = attrs.evolve(self.spec, is_resuming=self.was_asked)
        async with self.starts.one(spec.profile.name, within_secs=self.start_secs):
            with trio.move_on_after(self.start_secs):
                return await self._start(spec)
            raise AgentNotStarted(spec.profile.name, f"no handshake within {self.start_secs:g} s")

    def _adopt(self, tree: WarmTree) -> Agent:
        """Take over a tree that waits: nothing in it has to be waited for."""
        self._dead = trio.Event()
        self.agent = agent = tree.adopt(self.sink)
        self.nursery.start_soon(self._see_out, tree.stay, self._dead)
        return agent

    async def _start(self, spec: LaunchSpec) -> Agent:
        agent: Agent = await self.nursery.start(self._host, spec)
        if self._dead is not None and not self._dead.is_set():  # it may have died meanwhile
            self.agent = agent
        return agent

    async def kill(self) -> None:
        """Kill the tree and wait until it is proved dead (the launcher bounds that)."""
        if self.agent is not None:
            self.agent.kill()
        await self._prove_dead()

    async def _prove_dead(self) -> None:
        if self._dead is not None:
            await self._dead.wait()

    async def _host(  # noqa: ASYNC128 - run_agent calls started()
        self, spec: LaunchSpec, *, task_status: trio.TaskStatus[Agent]
    ) -> None:
        self._dead = trio.Event()
        run_agent = partial(self.launcher.run_agent, spec, self.sink, task_status=task_status)
        await self._see_out(run_agent, self._dead)

    async def _see_out(self, live: Callable[[], Awaitable[AgentExit]], dead: trio.Event) -> None:
        """Stay with a tree until it is proved dead, and say so."""
        try:
            end = await live()
        finally:
            self.agent = None
            dead.set()
        self.on_exit(end)
