"""The goals that a run is held to, and whether it met them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from bench.figures import Figures, Line, short
from bench.hosts import PART as HOSTS
from bench.plan import SESSIONS
from bench.starts import PART as START


@attrs.frozen
class Verdict:
    """One goal: what was found, and whether that will do (None: it was not measured)."""

    goal: str
    found: str
    is_met: bool | None

    @property
    def word(self) -> str:
        """For a table."""
        return {True: "met", False: "**missed**", None: "not measured"}[self.is_met]

    def __str__(self) -> str:
        return f"{self.word:12} {self.goal}: {self.found}"


def judge(figures: Figures) -> list[Verdict]:
    """Every goal in order."""
    one, many = "turns, one client", "turns, 16 at once"
    return [
        _above(figures, one, "acp, plain", "median", 3.0),
        _above(figures, one, "acp, plain", "p95", 8.0),
        _ratio(figures, (many, "acp, plain", "processor"), 2.5, "a trivial route's processor time"),
        _above(figures, one, "acpx, plain", "median", 20.0),
        _ratio(figures, (HOSTS, "acpx, plain", "median"), 2.0, "what the hosts alone need"),
        _ratio(figures, (START, "acp, warm", "median"), 1.5, "a warm turn"),
        _ratio(figures, (START, "acpx, warm", "median"), 1.5, "a warm turn"),
        _most(figures, "memory", "service, idle", "PSS", 80.0),
        *_growth(figures),
        *_peers(figures),
    ]


def _above(figures: Figures, part: str, subject: str, quantity: str, limit: float) -> Verdict:
    goal = f"{part}: {subject}, {quantity} at most {limit:g} ms above the pipe"
    line = figures.find(part, subject, quantity)
    above = figures.above(line) if line else None
    return _verdict(goal, above.middle if above else None, limit, "ms")


def _ratio(figures: Figures, names: tuple[str, str, str], limit: float, base: str) -> Verdict:
    part, subject, _ = names
    goal = f"{part}: {subject} at most {limit:g} times {base}"
    line = figures.find(*names)
    ratio = figures.ratio(line) if line else None
    return _verdict(goal, ratio.middle if ratio else None, limit, "times")


def _most(figures: Figures, part: str, subject: str, quantity: str, limit: float) -> Verdict:
    line = figures.find(part, subject, quantity)
    goal = f"{part}: {subject} at most {limit:g}"
    return _verdict(goal, line.spread.middle if line else None, limit, line.unit if line else "")


def _growth(figures: Figures) -> Iterator[Verdict]:
    """A fifth more is within what one block differs from the next."""
    for line in figures.lines:
        if line.part == "growth" and line.quantity == "processor" and line.base:
            yield _ratio(figures, (line.part, line.subject, line.quantity), 1.2, "a new service")


def _peers(figures: Figures) -> Iterator[Verdict]:
    """Ahead of claudegate on every line of the same run."""
    for count in SESSIONS:
        part = f"turns, {count} at once" if count > 1 else "turns, one client"
        for quantity in ("median", "p95"):
            peer = figures.find(part, "claudegate", quantity)
            ours = figures.find(part, "acp, plain", quantity)
            if peer is not None and ours is not None:
                goal = f"{part}: {quantity} below that of claudegate"
                yield _less(goal, ours, peer)


def _less(goal: str, ours: Line, theirs: Line) -> Verdict:
    mine, other = ours.spread.middle, theirs.spread.middle
    return Verdict(goal, f"{short(mine)} against {short(other)} {ours.unit}", mine < other)


def _verdict(goal: str, found: float | None, limit: float, unit: str) -> Verdict:
    if found is None:
        return Verdict(goal, "", None)
    return Verdict(goal, f"{short(found)} {unit}", found <= limit)
