"""How much is measured, and where: the counts of one run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from clawdforge.domain.profiles import Transport

SESSIONS: Final = (1, 16, 64)
"""How many sessions are asked at once."""


@attrs.frozen
class Plan:
    """Counts are per subject and block. ``folder`` is temporary."""

    folder: Path
    blocks: int = 5
    turns: int = 200
    turns_each: int = 40
    warm_up: int = 20
    starts: int = 8
    requests: int = 1000
    store_turns: int = 2000
    events: int = 20_000
    rows: int = 1_000_000
    open_sessions: int = 2000
    long_session: int = 10_000
    live_sessions: int = 8
    transports: tuple[Transport, ...] = ("acp", "acpx")
    _numbers: Iterator[int] = attrs.field(factory=itertools.count, repr=False)

    def new_folder(self) -> Path:
        """A folder that nobody has had."""
        return self.folder / str(next(self._numbers))

    def quick(self) -> Plan:
        """The smallest run that goes everywhere: it proves the bench, not the service."""
        return attrs.evolve(
            self,
            blocks=2,
            turns=10,
            turns_each=1,
            warm_up=2,
            starts=1,
            requests=40,
            store_turns=40,
            events=500,
            rows=2000,
            open_sessions=20,
            long_session=50,
            live_sessions=2,
        )
