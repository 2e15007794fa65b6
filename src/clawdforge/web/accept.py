"""Which form of an answer a caller prefers, by its ``Accept`` header (RFC 9110 §12.5.1). Pure.

The rule: the most specific range that fits a form gives its weight; the heaviest form wins, then
the one that was named more precisely, then the first that we offer. A header that does not parse
asks for nothing in particular.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import attrs

JSON: Final = "application/json"
SSE: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"

SHORT: Final = 200
RECALLED: Final = 256
"""Headers of so few characters are remembered, so many of them."""


@attrs.frozen
class MediaRange:
    """One element of the header: ``text/*;q=0.5``. Of its parameters only ``q`` counts."""

    kind: str
    subtype: str
    weight: float

    def precision(self, media_type: str) -> int:
        """How precisely the range names the type: 0 when it does not fit, 3 when it is the type."""
        kind, _, subtype = media_type.partition("/")
        if (self.kind, self.subtype) == (kind, subtype):
            return 3
        if (self.kind, self.subtype) == (kind, "*"):
            return 2
        return 1 if (self.kind, self.subtype) == ("*", "*") else 0


def prefer(accept: str | None, offered: tuple[str, ...]) -> str | None:
    """The offered type that the caller prefers; the first if it does not say, None if none fits.

    ``accept`` is the header, all its lines joined by commas.
    """
    if accept is None:
        return offered[0]
    return _choose(accept, offered) if len(accept) > SHORT else _recall(accept, offered)


def _choose(accept: str, offered: tuple[str, ...]) -> str | None:
    ranges = parse_accept(accept)
    if not ranges:
        return offered[0]
    found = [(*_claim(ranges, media_type), -at) for at, media_type in enumerate(offered)]
    weight, _, at = max(found)
    return offered[-at] if weight > 0 else None


_recall: Final = lru_cache(maxsize=RECALLED)(_choose)
"""A client says the same in each of its requests."""


def _claim(ranges: Sequence[MediaRange], media_type: str) -> tuple[float, int]:
    """The weight of a type, and how precisely it was named."""
    fitting = ((one.precision(media_type), one.weight) for one in ranges)
    precision, weight = max(fitting, key=lambda claim: claim[0])
    return (weight, precision) if precision else (0.0, 0)


def parse_accept(accept: str) -> list[MediaRange]:
    """The ranges of the header; what is no range is left out."""
    found = (_parse_range(element) for element in accept.split(","))
    return [one for one in found if one is not None]


def _parse_range(element: str) -> MediaRange | None:
    name, *parameters = (part.strip() for part in element.lower().split(";"))
    kind, slash, subtype = name.partition("/")
    if not (kind and slash and subtype):
        return None
    weight = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            weight = _parse_weight(value.strip())
    return MediaRange(kind, subtype, weight)


def _parse_weight(text: str) -> float:
    """A weight from 0 to 1; what is none counts for nothing."""
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return min(1.0, max(0.0, weight)) if math.isfinite(weight) else 0.0
