"""Permission requests that wait for a decision: each one ends, by an answer, the clock or a cancel.

A request nobody decides in time gets a reject option and the turn goes on; one whose turn is
cancelled gets the outcome ``cancelled`` (ACP, session/request_permission).
"""

from __future__ import annotations

import trio

from clawdforge.domain.permissions import choose_rejection
from clawdforge.domain.ports import Agent, PermissionRequest


class PermissionDesk:
    """The pending requests of one session. Decides in the session actor's ``nursery``."""

    nursery: trio.Nursery

    def __init__(self, wait_secs: float) -> None:
        self._wait_secs = wait_secs
        self._pending: dict[str, trio.CancelScope] = {}

    def ask(self, agent: Agent, request: PermissionRequest) -> None:
        """Take a request of ``agent``; it is decided within ``wait_secs``."""
        self.nursery.start_soon(self._decide, agent, request)

    def cancel_all(self) -> None:
        """End every pending request with the outcome ``cancelled``."""
        for scope in self._pending.values():
            scope.cancel()

    async def _decide(self, agent: Agent, request: PermissionRequest) -> None:
        option: str | None = None
        with trio.CancelScope() as scope:
            self._pending[request.request_id] = scope
            await trio.sleep(self._wait_secs)
            option = choose_rejection(request.options)
        del self._pending[request.request_id]
        await agent.answer_permission(request.request_id, option)
