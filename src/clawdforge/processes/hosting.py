"""What an agent has on every transport: a process tree of its own, a sink, and one end.

The rule: *whatever ends the process resolves every call that waits on it.* Nothing is started in
here; that is ``processes.launcher`` and ``processes.child``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import attrs
import trio

from clawdforge.domain.ports import AgentExit, AgentInfo, AgentSink
from clawdforge.errors import AgentExited
from clawdforge.processes.child import Child, ChildExit, ChildGone
from clawdforge.processes.lodging import Lodged
from clawdforge.processes.pending import Pending
from clawdforge.processes.plain import plain_reason


@attrs.define(eq=False)
class TurnInHand:
    """The turn that the agent is at, or was at last: whoever waits for its stop reason."""

    index: int
    stop_reason: Pending[str] = attrs.field(factory=Pending)
    is_cancelled: bool = False

    @property
    def is_over(self) -> bool:
        """Whether the agent is at it no more."""
        return self.stop_reason.is_settled


class HostedAgent(ABC):
    """Half of :class:`clawdforge.domain.ports.Agent`, and what the launcher needs of it.

    A transport adds what is said over the pipes. The first reason for the end is the true one.
    """

    def __init__(self, lodged: Lodged, sink: AgentSink) -> None:
        self.name = lodged.spec.profile.name
        self.exit: AgentExit | None = None
        self._lodged = lodged
        self._sink = sink
        self._child: Child | None = None
        self._info: AgentInfo | None = None
        self._end_reason: str | None = None
        self._was_killed = False
        self._turn: TurnInHand | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self._end_reason or 'alive'}>"

    # What the session actor calls.

    @property
    def info(self) -> AgentInfo:
        """What the agent said of itself. Only after ``open`` has answered."""
        assert self._info is not None
        return self._info

    @abstractmethod
    async def prompt(self, turn_index: int, text: str, files: Sequence[Path]) -> str:
        """See the port. Waits without bound: the actor's scope and the process's end end it."""

    async def rejoin(self, turn_index: int) -> str | None:
        """See the port. Waits without bound, as ``prompt`` does."""
        turn = self._turn
        return await turn.stop_reason.wait() if turn and turn.index == turn_index else None

    @abstractmethod
    async def cancel(self, turn_index: int) -> None:
        """See the port."""

    @abstractmethod
    async def answer_permission(self, request_id: str, option_id: str | None) -> None:
        """See the port; an option that was not offered counts as cancelled."""

    def kill(self) -> None:
        """Close the lifeline. Idempotent."""
        self._was_killed = self._was_killed or self._end_reason is None
        if self._child is not None:
            self._child.kill()

    # What the launcher calls.

    @abstractmethod
    async def open(self, child: Child, nursery: trio.Nursery) -> str:
        """Shake hands and open the session; the agent's own id for it.

        ``nursery`` lives as long as the process. Raises AgentNotStarted or AgentNotResumable.
        Unbounded by itself: the caller of ``run_agent`` has a deadline, and the end of the process
        answers at the latest.
        """

    @abstractmethod
    def on_line(self, line: bytes) -> None:
        """Take one line of the process's stdout."""

    def on_skipped(self, count: int) -> None:
        """Lines were over the limit."""
        self._sink.on_skipped(count)

    def process_ended(self, end: ChildExit | None) -> None:
        """The process tree is dead; None when it was cancelled away. Settles all that waits."""
        if self._was_killed or end is None:
            self._end("it was killed")
        else:
            self._end(self._describe(end))
        assert self._end_reason is not None
        self.exit = AgentExit(self._end_reason, self._was_killed or end is None)

    def end(self, reason: str) -> None:
        """Give the agent up for a fault of its own: nothing more comes, and its tree dies."""
        self._end(reason)
        self.kill()

    # What a transport uses and adds.

    async def _ask(self, turn: TurnInHand, line: bytes) -> str:
        """Write a prompt and wait for its stop reason. It is the agent's from its first byte on."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._child is None or self._end_reason is not None:
            raise self._exited(was_asked=False)
        self._turn = turn
        try:
            await self._child.send(line)
        except ChildGone:  # a message is a whole line or none
            self._turn = None
            raise self._exited(was_asked=False) from None
        except trio.Cancelled:
            if not self._child.is_owed_a_rest:
                self._turn = None
            raise
        return await turn.stop_reason.wait()

    def _end(self, reason: str) -> None:
        if self._end_reason is None:
            self._end_reason = reason
        if self._turn is not None:
            self._turn.stop_reason.fail(self._exited())
        self._fail_all()

    @abstractmethod
    def _fail_all(self) -> None:
        """Fail whatever else waits on the process: ``_end_reason`` is set. May be called again."""

    @abstractmethod
    def _describe(self, end: ChildExit) -> str:
        """How the process ended by itself, in one plain line."""

    def _exited(self, *, was_asked: bool = True) -> AgentExited:
        return AgentExited(self.name, self._end_reason or "it reads no more", was_asked)

    def _plain(self, reason: str) -> str:
        return plain_reason(reason, hidden=self._lodged.hidden)
