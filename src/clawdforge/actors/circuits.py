"""The circuits of all agent profiles: a plain table that the pool and the sessions share.

It waits for nothing, so asking and counting are each one step. Every start of an agent goes through
:meth:`Circuits.guard`; the pool asks :meth:`Circuits.refusal` before it gives anybody a slot.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog
import trio

from clawdforge.domain.circuit import Circuit, CircuitRule
from clawdforge.domain.ids import AgentName
from clawdforge.errors import AgentNotStarted, CircuitOpen

log: Final = structlog.get_logger("clawdforge.circuits")


class Circuits:
    """One circuit an agent profile; a profile without one has a closed circuit."""

    def __init__(self, rule: CircuitRule) -> None:
        self._rule = rule
        self._circuits: dict[AgentName, Circuit] = {}

    def __repr__(self) -> str:
        return f"<Circuits {len(self.open_agents)} open>"

    @property
    def open_agents(self) -> frozenset[AgentName]:
        """Agents that would be refused now."""
        return frozenset(agent for agent in self._circuits if self._wait_secs(agent) > 0)

    def refusal(self, agent: AgentName) -> CircuitOpen | None:
        """Why a start of this agent would be refused now, or None."""
        wait_secs = self._wait_secs(agent)
        if wait_secs == 0:
            return None
        return CircuitOpen(math.ceil(round(wait_secs, 3)), agent, self._circuit(agent).reason)

    @contextmanager
    def guard(self, agent: AgentName) -> Iterator[None]:
        """Start an agent in the block: its outcome is counted. Raises CircuitOpen at once.

        The block's AgentNotStarted is a failure, unless it was the caller's model that the agent
        does not have; an ordinary end is a success; all else is no verdict.
        """
        refusal = self.refusal(agent)
        if refusal is not None:
            raise refusal
        self._circuits[agent], permit = self._circuit(agent).begin()
        try:
            yield
        except AgentNotStarted as error:
            circuit = self._circuit(agent)
            if error.is_callers_choice:
                self._put(agent, circuit.without_verdict(permit))
            else:
                now = trio.current_time()
                reason = f"{error.reason} ({error.remedy})" if error.remedy else error.reason
                self._put(agent, circuit.after_failure(permit, now, self._rule, reason))
            raise
        except BaseException:
            self._put(agent, self._circuit(agent).without_verdict(permit))
            raise
        self._put(agent, self._circuit(agent).after_success())

    def _circuit(self, agent: AgentName) -> Circuit:
        return self._circuits.get(agent) or Circuit()

    def _wait_secs(self, agent: AgentName) -> float:
        return self._circuit(agent).wait_secs(trio.current_time(), self._rule)

    def _put(self, agent: AgentName, circuit: Circuit) -> None:
        before = self._circuit(agent)
        self._circuits[agent] = circuit
        if circuit.opened_at is None and before.opened_at is not None:
            log.info("circuit closed", agent=agent)
        elif circuit.opened_at != before.opened_at:
            span_secs = self._rule.span_secs
            log.warning("circuit open", agent=agent, secs=span_secs, reason=circuit.reason)
