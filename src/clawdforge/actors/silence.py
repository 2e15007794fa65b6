"""How long an agent may say nothing in a turn: one limit until its first output, one after it.

Separate from the turn's deadline: a model's stream that ends without a word would else hold the
turn to the last (facts of the field: an adapter that waits for a final message that never comes).
The clock rests while a person decides about a permission request.
"""

from __future__ import annotations

import math
from typing import Final, Literal

import trio

NO_LIMIT: Final = math.inf
NO_LIMITS: Final = (NO_LIMIT, NO_LIMIT)


class Silence:
    """The clock of one turn."""

    def __init__(self, first_output_secs: float | None, silence_secs: float | None) -> None:
        self.has_spoken = False
        self._scope: trio.CancelScope | None = None
        self._latest = math.inf
        self._first_secs = NO_LIMIT if first_output_secs is None else first_output_secs
        self._later_secs = NO_LIMIT if silence_secs is None else silence_secs
        self._holds = 0

    @property
    def cause(self) -> Literal["never_spoke", "fell_silent"]:
        """Which limit it is."""
        return "fell_silent" if self.has_spoken else "never_spoke"

    def begin(self, scope: trio.CancelScope) -> None:
        """The agent is about to be asked: in ``scope``, whose deadline comes earlier in silence."""
        self._scope, self._latest = scope, scope.deadline
        self._restart()

    def heard(self) -> None:
        """The agent has said something."""
        self.has_spoken = True
        self._restart()

    def hold(self) -> None:
        """A question of the agent's waits; as often as this is called, ``release`` must be."""
        self._holds += 1
        self._restart()

    def release(self) -> None:
        """The question has been decided: with the last one the clock starts again."""
        self._holds -= 1
        self._restart()

    def _restart(self) -> None:
        limit_secs = self._later_secs if self.has_spoken else self._first_secs
        if self._scope is not None and (self._first_secs, self._later_secs) != NO_LIMITS:
            until = math.inf if self._holds > 0 else trio.current_time() + limit_secs
            self._scope.deadline = min(until, self._latest)
