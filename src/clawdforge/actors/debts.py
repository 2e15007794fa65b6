"""Endings that the ledger would not take: kept, and tried again until it does.

The rule: *every turn gets its one ending*, also when the disk is full at that very moment. Its
caller has been told that the ending could not be written; the history must not show a turn at work
for ever. What is still owed when the service ends is interrupted by the next start.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import structlog
import trio

from clawdforge.actors.context import LEDGER_SECS
from clawdforge.domain.ports import Store, TurnEnd
from clawdforge.errors import StoreUnavailable

log: Final = structlog.get_logger("clawdforge.line")

RETRY_SECS: Final = 5.0

MOST: Final = 16
"""Endings kept for a session, each with its text; the oldest beyond are left to the next start."""


class Debts:
    """What one session owes the ledger. ``run`` pays, in the session's nursery."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._owed: dict[int, TurnEnd] = {}

    def __len__(self) -> int:
        """Endings that are owed."""
        return len(self._owed)

    def owe(self, end: TurnEnd) -> None:
        """Keep an ending that could not be written."""
        self._owed[end.turn_index] = end
        while len(self._owed) > MOST:
            del self._owed[next(iter(self._owed))]

    async def pay(self) -> None:
        """Write what is owed. Raises StoreUnavailable, TooSlowError; what was written is paid."""
        for index, end in list(self._owed.items()):
            with trio.fail_after(LEDGER_SECS):
                await self._store.end_turn(end)
            self._owed.pop(index, None)
            log.info("turn end written late", turn_index=index)

    async def run(self) -> None:
        """Pay as soon as the ledger takes it. Unbounded: it tries for as long as it owes."""
        while self._owed:
            await trio.sleep(RETRY_SECS)
            with suppress(StoreUnavailable, trio.TooSlowError):
                await self.pay()
