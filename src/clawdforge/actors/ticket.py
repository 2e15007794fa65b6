"""A caller's hold on an admitted turn.

The rule: *a turn without callers is nobody's.* Whoever starts a turn, or attaches to one under the
same idempotency key, holds a ticket. When the last ticket is left, the turn is stopped, unless it
was asked to go on without a caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

from clawdforge.actors.feed import EventSpan
from clawdforge.domain.turns import TurnResult

if TYPE_CHECKING:  # a turn gives out tickets
    from clawdforge.actors.turn import Turn


class LiveTicket:
    """One caller of one turn. Leave it in a ``finally``: that is how hanging up is told."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._is_left = False

    def __repr__(self) -> str:
        return f"<LiveTicket {self._turn.index}{' left' if self._is_left else ''}>"

    @property
    def turn_index(self) -> int:
        """The turn's number in its session, from 1."""
        return self._turn.index

    @property
    def is_over(self) -> bool:
        """Whether ``result`` would answer at once."""
        return self._turn.ended.is_set()

    @property
    def events(self) -> EventSpan:
        """Which of the session's events are the turn's."""
        return self._turn.events

    async def result(self) -> TurnResult:
        """Wait for the turn's one ending. Cancelling stops only the waiting.

        Raises StoreUnavailable when the ending could not be written. Bounded by the turn's own
        deadline, the cancel grace, the kill and the ledger behind it.
        """
        return await self._turn.result()

    def leave(self) -> None:
        """The caller has gone. Idempotent; a no-op when the turn is over. Returns at once."""
        if not self._is_left:
            self._is_left = True
            self._turn.detach()


@attrs.frozen
class StoredTicket:
    """A ticket to a turn that is over and is answered from the ledger."""

    stored: TurnResult
    first_event: int | None = None
    last_event: int | None = None

    @property
    def turn_index(self) -> int:
        """See LiveTicket."""
        return self.stored.turn_index

    @property
    def is_over(self) -> bool:
        """Always."""
        return True

    @property
    def events(self) -> EventSpan:
        """See LiveTicket; the log may have dropped some of them."""
        return EventSpan(self.first_event, self.last_event)

    async def result(self) -> TurnResult:
        """At once."""
        await trio.lowlevel.checkpoint()
        return self.stored

    def leave(self) -> None:
        """Nothing depends on it."""


TurnTicket: TypeAlias = LiveTicket | StoredTicket
