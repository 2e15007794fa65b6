"""What a live response and the edge know of each other while it flows.

The edge says when the client takes nothing, when the server drains and when it is over; the
response looks at that before it writes on. Setting any of it rings the response's bell.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from clawdforge.actors.bell import Bell


@attrs.define(eq=False)
class Outflow:
    """One live response.

    ``is_stalled``: the client took nothing for too long, and gets one last word. ``is_draining``:
    what could go on for ever should end now. ``is_called_off``: everything should.
    """

    bell: Bell = attrs.field(factory=Bell)
    is_stalled: bool = False
    is_draining: bool = False
    is_called_off: bool = False

    def drain(self) -> None:
        """End what has no end of its own."""
        self.is_draining = True
        self.bell.ring()

    def call_off(self) -> None:
        """End, whatever it is."""
        self.is_draining = self.is_called_off = True
        self.bell.ring()


@attrs.define(eq=False)
class Leavings:
    """What must be done when a request is over, however it ended. Each act returns at once."""

    _acts: list[Callable[[], None]] = attrs.field(factory=list)

    def add(self, act: Callable[[], None]) -> None:
        """Do this as well."""
        self._acts.append(act)

    def settle(self) -> None:
        """It is over: do it all, the latest first."""
        while self._acts:
            self._acts.pop()()
