"""The circuit of one agent profile: when an agent that will not start is left alone. Pure.

So many failed starts within a span open it; while it is open nothing is started, and after the same
span one start at a time is let through as a *probe*. A start that works closes it, whoever made
it. Only "the agent did not start" is a failure: a caller that left, or a pool that was full, says
nothing about the agent. ``now`` is given, in monotonic seconds.

The idea and the three states are Nygard's (Release It!, "Circuit Breaker").
"""

from __future__ import annotations

from typing import Final

import attrs

PROBING_SECS: Final = 5.0
"""What a caller is told to wait while a probe is under way: most agents start within that."""


@attrs.frozen
class CircuitRule:
    """``failures`` within ``span_secs`` open a circuit; it stays open for ``span_secs``.

    A span of 0 turns it off: nothing is ever refused.
    """

    failures: int = 5
    span_secs: float = 60.0


@attrs.frozen
class Permit:
    """One start that was let through. ``probes`` is the opening that it is the probe of, if any."""

    probes: float | None = None


@attrs.frozen
class Circuit:
    """What is known of one profile's starts. Closed while ``opened_at`` is None.

    ``failed_at``: recent failures of a closed circuit, oldest first. ``is_probing``: a probe is
    under way. ``reason``: why the last start failed.
    """

    failed_at: tuple[float, ...] = ()
    opened_at: float | None = None
    is_probing: bool = False
    reason: str = ""

    def wait_secs(self, now: float, rule: CircuitRule) -> float:
        """How long to refuse starts; 0 when one may be tried now."""
        if self.opened_at is None:
            return 0.0
        left = self.opened_at + rule.span_secs - now
        if left > 0:
            return left
        return PROBING_SECS if self.is_probing else 0.0

    def begin(self) -> tuple[Circuit, Permit]:
        """Let one start through; only after ``wait_secs`` has answered 0."""
        if self.opened_at is None:
            return self, Permit()
        return attrs.evolve(self, is_probing=True), Permit(self.opened_at)

    def after_success(self) -> Circuit:
        """It starts: nothing is held against it any more."""
        return Circuit()

    def after_failure(self, permit: Permit, now: float, rule: CircuitRule, reason: str) -> Circuit:
        """Count a failure. The probe's own opens it anew; a straggler's changes nothing."""
        if self.opened_at is None:
            recent = (*(then for then in self.failed_at if now - then < rule.span_secs), now)
            if len(recent) >= rule.failures:
                return Circuit(opened_at=now, reason=reason)
            return Circuit(recent, reason=reason)
        return Circuit(opened_at=now, reason=reason) if self._is_its_probe(permit) else self

    def without_verdict(self, permit: Permit) -> Circuit:
        """The start was called off: if it was the probe, the next one may be."""
        return attrs.evolve(self, is_probing=False) if self._is_its_probe(permit) else self

    def _is_its_probe(self, permit: Permit) -> bool:
        return self.is_probing and permit.probes == self.opened_at
