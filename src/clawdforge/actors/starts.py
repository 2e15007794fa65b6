"""Starting agents: who may start one now, and how many at a time.

Every start of every session goes through :meth:`Starts.one`. Nothing is started that the machine
has no memory for, nor an agent that keeps failing (its circuit is open); and each start costs about
0.4 s of processor, so that only so many run at once. The pool asks :meth:`Starts.refusal` before it
gives anybody a slot.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from clawdforge.actors.circuits import Circuits
from clawdforge.config import MIB, Config
from clawdforge.domain.circuit import CircuitRule
from clawdforge.domain.ids import AgentName
from clawdforge.errors import CapacityError, MachineFull, TooManyStarts

SESSION_BYTES: Final = 160 * MIB
"""What must be free to start an agent: warden, acpx host and a small agent take 110 MiB at their
start (measured). A large agent needs more; the kernel then ends it, and not us (``warden``)."""

RETRY_SECS: Final = 5
"""Retry-After when the machine is full, or busy with starts: sessions come and go in seconds."""

SpareMemory = Callable[[], int | None]
"""Bytes that are left for processes of ours; None when nobody knows."""


def _unknown() -> None:
    return None


class Starts:
    """The places for starts of one service, and its circuits."""

    def __init__(self, config: Config, spare_memory: SpareMemory = _unknown) -> None:
        rule = CircuitRule(config.circuit_failures, config.circuit_secs)
        self.circuits: Final = Circuits(rule)
        self._places = trio.Semaphore(config.start_concurrency)
        self._spare_memory = spare_memory

    def __repr__(self) -> str:
        return f"<Starts {self._places.value} places free, {self.circuits!r}>"

    def refusal(self, agent: AgentName) -> CapacityError | None:
        """Why a start of this agent would be refused now, or None."""
        spare = self._spare_memory()
        if spare is not None and spare < SESSION_BYTES:
            return MachineFull(RETRY_SECS, "memory")
        return self.circuits.refusal(agent)

    @asynccontextmanager
    async def one(self, agent: AgentName, *, within_secs: float) -> AsyncIterator[None]:
        """Start one agent in the block, once there is a place; its outcome is counted.

        Raises, before the block: MachineFull and CircuitOpen at once, TooManyStarts when there was
        no place ``within_secs``.
        """
        refusal = self.refusal(agent)
        if refusal is not None:
            raise refusal
        with trio.move_on_after(within_secs) as patience:
            await self._places.acquire()
        if patience.cancelled_caught:
            raise TooManyStarts(RETRY_SECS)
        try:
            with self.circuits.guard(agent):
                yield
        finally:
            self._places.release()
