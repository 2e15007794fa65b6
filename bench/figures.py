"""What was measured, block by block, and what it says: medians, ratios, their spread. Pure.

A part is measured in blocks, each subject once a block and in turn, so that what the machine does
meanwhile meets all of them alike. A ratio is that of two subjects *in one block*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any, Final

import attrs

SHOWN_DIGITS: Final = 3
LEAST: Final = 1e-3


@attrs.frozen
class Spread:
    """A value over the blocks: its median, its least and its greatest."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{short(self.middle)} ({short(self.low)} to {short(self.high)})"


@attrs.frozen
class Line:
    """One quantity of one subject: a value a block. ``base`` is what it is compared with."""

    part: str
    subject: str
    quantity: str
    unit: str
    blocks: tuple[float, ...]
    base: str | None = None

    @property
    def spread(self) -> Spread:
        """Over the blocks."""
        return Spread.of(self.blocks)


@attrs.frozen
class Figures:
    """All lines of one run."""

    lines: tuple[Line, ...]

    def find(self, part: str, subject: str, quantity: str) -> Line | None:
        """A line by its three names."""
        wanted = (part, subject, quantity)
        for line in self.lines:
            if (line.part, line.subject, line.quantity) == wanted:
                return line
        return None

    def base_of(self, line: Line) -> Line | None:
        """What a line is compared with."""
        return self.find(line.part, line.base, line.quantity) if line.base else None

    def ratio(self, line: Line) -> Spread | None:
        """How many times its base, block by block."""
        base = self.base_of(line)
        if base is None:
            return None
        pairs = zip(line.blocks, base.blocks, strict=True)
        return Spread.of([mine / theirs if theirs else 0.0 for mine, theirs in pairs])

    def above(self, line: Line) -> Spread | None:
        """How far above its base, block by block."""
        base = self.base_of(line)
        if base is None:
            return None
        pairs = zip(line.blocks, base.blocks, strict=True)
        return Spread.of([mine - theirs for mine, theirs in pairs])

    def to_json(self) -> list[Mapping[str, Any]]:
        """For the file."""
        return [
            {
                **attrs.asdict(line),
                "spread": attrs.asdict(line.spread),
                "ratio": attrs.asdict(ratio) if (ratio := self.ratio(line)) else None,
                "above": attrs.asdict(above) if (above := self.above(line)) else None,
            }
            for line in self.lines
        ]


def p95(values: Sequence[float]) -> float:
    """The 95th percentile; the greatest of fewer than two values."""
    return quantiles(values, n=20)[18] if len(values) > 1 else max(values)


def short(value: float) -> str:
    """A number in as many digits as it deserves."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) < LEAST:
        return "0"
    return f"{value:.{SHOWN_DIGITS}g}"
