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


class Silence:
    """The clock of one turn. ``scope`` is cancelled when the agent has been silent too long."""

    def __init__(self, first_output_secs: float | None, silence_secs: float | None) -> None:
        self.scope = trio.CancelScope()
        self.has_spoken = False
        self._first_secs = NO_LIMIT if first_output_secs is None else first_output_secs
        self._later_secs = NO_LIMIT if silence_secs is None else silence_secs
        self._holds = 0
        self._is_running = False

    @property
    def cause(self) -> Literal["never_spoke", "fell_silent"]:
        """Which limit it is."""
        return "fell_silent" if self.has_spoken else "never_spoke"

    def begin(self) -> None:
        """The agent has been asked."""
        self.scope = trio.CancelScope()
        self._is_running = True
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
        is_resting = self._holds > 0 or not self._is_running or limit_secs == NO_LIMIT
        self.scope.deadline = math.inf if is_resting else trio.current_time() + limit_secs
