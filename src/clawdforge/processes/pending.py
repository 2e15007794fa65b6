"""An answer that somebody waits for, and that comes once."""

from __future__ import annotations

from typing import Generic, TypeVar

import outcome
import trio

Value = TypeVar("Value")


class Pending(Generic[Value]):
    """Set or failed once; what comes later is ignored."""

    def __init__(self) -> None:
        self._outcome: outcome.Outcome[Value] | None = None
        self._settled = trio.Event()

    def __repr__(self) -> str:
        return f"<Pending {self._outcome!r}>"

    def set(self, value: Value) -> None:
        """Here it is."""
        self._settle(outcome.Value(value))

    def fail(self, error: Exception) -> None:
        """It will never come: whoever waits gets ``error``."""
        self._settle(outcome.Error(error))

    def _settle(self, result: outcome.Outcome[Value]) -> None:
        if self._outcome is None:
            self._outcome = result
            self._settled.set()

    async def wait(self) -> Value:
        """Unbounded by itself: the end of the process settles it at the latest."""
        await self._settled.wait()
        assert self._outcome is not None
        return self._outcome.unwrap()
