"""What a run says, as text, as a page and as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from bench.figures import Figures, Line, Spread, short
from bench.goals import judge
from bench.plot import draw

BEGIN: Final = "<!-- figures: begin -->"
END: Final = "<!-- figures: end -->"


def describe(figures: Figures) -> str:
    """For the terminal."""
    rows = []
    for part, lines in _parts(figures):
        rows.append(f"\n{part}")
        for line in lines:
            compared = " ".join(_compared(figures, line))
            value = f"{line.spread} {line.unit}"
            rows.append(f"  {line.subject:34} {line.quantity:12} {value:42} {compared}")
    rows += ["", *(str(verdict) for verdict in judge(figures))]
    return "\n".join(rows)


def write_report(figures: Figures, about: Mapping[str, Any], folder: Path) -> None:
    """Replace the figures in ``performance.md``, and its data and picture beside it."""
    data = {"about": about, "lines": figures.to_json()}
    (folder / "performance.json").write_text(json.dumps(data, indent=1) + "\n")
    (folder / "performance.svg").write_text(draw(figures))
    page = folder / "performance.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{to_markdown(figures, about)}\n{END}{after}")


def to_markdown(figures: Figures, about: Mapping[str, Any]) -> str:
    """Tables, one a part, and the goals."""
    said = ", ".join(f"{name} {value}" for name, value in about.items() if name != "at")
    rows = [f"One run ({said}). Median over the blocks, least and greatest block in brackets.", ""]
    rows += ["| Goal | Found | |", "|---|---|---|"]
    rows += [f"| {v.goal} | {v.found} | {v.word} |" for v in judge(figures)]
    for part, lines in _parts(figures):
        rows += ["", f"### {part[:1].upper()}{part[1:]}", ""]
        rows += ["| | | | ratio | above |", "|---|---|---|---|---|"]
        for line in lines:
            ratio, above, *_ = *_compared(figures, line), "", ""
            value = f"{line.spread} {line.unit}"
            rows.append(f"| {line.subject} | {line.quantity} | {value} | {ratio} | {above} |")
    return "\n".join(rows)


def _parts(figures: Figures) -> Iterator[tuple[str, list[Line]]]:
    for part, lines in groupby(figures.lines, key=lambda line: line.part):
        yield part, list(lines)


def _compared(figures: Figures, line: Line) -> Iterator[str]:
    ratio, above = figures.ratio(line), figures.above(line)
    if ratio is not None:
        yield f"×{ratio}"
    if above is not None and line.unit == "ms":
        yield _signed(above)


def _signed(spread: Spread) -> str:
    return f"{'+' if spread.middle >= 0 else ''}{short(spread.middle)} ms"
