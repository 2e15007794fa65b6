"""Supervision: what happens when a child ends. Permanent children come back, within a budget.

A *permanent* child that ends, by a crash or not, is started again on the same mailbox, at most as
often as its intensity allows; then the supervisor itself fails, which ends the program. A
*temporary* child is never started again. ``trio.Cancelled`` is nobody's crash. Nothing is decided
in silence: each end is one typed report.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import attrs
import trio

from clawdforge.domain.restarting import Intensity, RestartHistory
from clawdforge.errors import ServiceError


@attrs.frozen
class ChildSpec:
    """How to run a child: its name in reports, its function, and when it comes back."""

    name: str
    run: Callable[[], Awaitable[None]]
    restart: Literal["permanent", "temporary"]


@attrs.frozen
class ChildEnded:
    """A child ended. ``error`` is None for a normal end; ``is_restarted`` says what comes next."""

    name: str
    error: Exception | None
    is_restarted: bool


Report = Callable[[ChildEnded], None]
"""Takes a report; must return at once. Serves log, metric and test alike."""


@attrs.define
class IntensityReached(ServiceError):
    """A permanent child ended more often than its budget allows: its supervisor gives up."""

    name: str

    def __str__(self) -> str:
        return f"{self.name} kept failing and was given up"


async def run_child(spec: ChildSpec, report: Report, intensity: Intensity | None = None) -> None:
    """Run one child until it ends for good. Raises IntensityReached for a permanent one."""
    history = RestartHistory()
    budget = intensity or Intensity()
    while True:
        error = await _run_once(spec)
        if spec.restart == "temporary":
            report(ChildEnded(spec.name, error, is_restarted=False))
            return
        after = history.after_crash(trio.current_time(), budget)
        report(ChildEnded(spec.name, error, is_restarted=after is not None))
        if after is None:
            raise IntensityReached(spec.name) from error
        history = after


async def _run_once(spec: ChildSpec) -> Exception | None:
    """The error the child ended with. Not caught: Cancelled, and what only an exit may raise."""
    try:
        await spec.run()
    except Exception as error:  # noqa: BLE001 - a crash is contained here and reported, by contract
        return error
    return None
