"""Restart intensity: how often a permanent child may crash before its supervisor gives up.

The rule is Erlang's: at most ``restarts`` within ``within_secs``; one more ends the supervisor.
Source: https://www.erlang.org/doc/system/sup_princ.html#maximum-restart-intensity
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Intensity:
    """At most ``restarts`` restarts within ``within_secs``. Default: 3 in 5 s, as in Elixir."""

    restarts: int = 3
    within_secs: float = 5.0


@attrs.frozen
class RestartHistory:
    """When the child was restarted, monotonic seconds, oldest first; never longer than needed."""

    at: tuple[float, ...] = ()

    def after_crash(self, now: float, intensity: Intensity) -> RestartHistory | None:
        """The history with one more restart, or None when the budget is spent."""
        recent = tuple(then for then in self.at if now - then < intensity.within_secs)
        if len(recent) >= intensity.restarts:
            return None
        return RestartHistory((*recent, now))
