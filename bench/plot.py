"""The picture: a bar for each subject of the turn parts, on a logarithmic scale. SVG by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import Final

from bench.figures import Figures, Line, short

WIDTH: Final = 760
LABEL_WIDTH: Final = 210
ROW: Final = 20
HEAD: Final = 34
LEAST_MS: Final = 0.1
COLOURS: Final = {"bare pipe": "#9aa5b1", "GET /healthz": "#c3cbd4"}
OURS: Final = "#2f6f9f"
OTHERS: Final = "#c9803a"


def draw(figures: Figures) -> str:
    """One panel a part: medians as bars, the 95th percentile as a tick."""
    body, top = [], 8
    most = max((line.spread.middle for line in _timed(figures)), default=1.0)
    for part in dict.fromkeys(line.part for line in _timed(figures)):
        lines = [line for line in _timed(figures) if line.part == part]
        medians = [line for line in lines if line.quantity == "median"]
        body.append(_text(8, top + 18, part, weight="bold"))
        for number, line in enumerate(medians):
            y = top + HEAD + number * ROW
            worst = figures.find(part, line.subject, "p95")
            body += _bar(line, worst, y, most)
        top += HEAD + len(medians) * ROW + 10
    style = "font-family='sans-serif' font-size='12'"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {top}' {style}>\n"
        f"<rect width='{WIDTH}' height='{top}' fill='white'/>\n" + "\n".join(body) + "\n</svg>\n"
    )


def _timed(figures: Figures) -> list[Line]:
    return [
        line
        for line in figures.lines
        if line.unit == "ms" and line.quantity in {"median", "p95"} and line.part != "growth"
    ]


def _bar(line: Line, worst: Line | None, y: int, most: float) -> Iterator[str]:
    colour = COLOURS.get(line.subject, OURS if line.subject.startswith("acp") else OTHERS)
    length = _length(line.spread.middle, most)
    yield _text(8, y + 13, line.subject)
    yield (
        f"<rect x='{LABEL_WIDTH}' y='{y + 3}' width='{length:.0f}' height='{ROW - 7}'"
        f" fill='{colour}'/>"
    )
    said = f"{short(line.spread.middle)} ms"
    if worst is not None:
        x = LABEL_WIDTH + _length(worst.spread.middle, most)
        yield f"<rect x='{x:.0f}' y='{y + 1}' width='2' height='{ROW - 3}' fill='#444'/>"
        length = max(length, x - LABEL_WIDTH)
        said += f" (p95 {short(worst.spread.middle)})"
    yield _text(LABEL_WIDTH + int(length) + 8, y + 13, said)


def _length(value: float, most: float) -> float:
    """Tenfold is the same step everywhere."""
    steps = math.log10(max(value, LEAST_MS) / LEAST_MS)
    return (WIDTH - LABEL_WIDTH - 190) * steps / max(1.0, math.log10(most / LEAST_MS))


def _text(x: int, y: int, text: str, *, weight: str = "normal") -> str:
    return f"<text x='{x}' y='{y}' font-weight='{weight}'>{escape(text)}</text>"
