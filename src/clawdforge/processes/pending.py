"""An answer that somebody waits for, and that comes once."""

from __future__ import annotations

from typing import Generic, TypeVar, cast

import trio

Value = TypeVar("Value")


class Pending(Generic[Value]):
    """Set or failed once; what comes later is ignored. May be waited for again and again."""

    def __init__(self) -> None:
        self._value: Value | None = None
        self._error: Exception | None = None
        self._settled = trio.Event()

    def __repr__(self) -> str:
        if not self.is_settled:
            return "<Pending>"
        return f"<Pending {self._value if self._error is None else self._error!r}>"

    @property
    def is_settled(self) -> bool:
        """Whether ``wait`` would answer at once."""
        return self._settled.is_set()

    def set(self, value: Value) -> None:
        """Here it is."""
        if not self.is_settled:
            self._value = value
            self._settled.set()

    def fail(self, error: Exception) -> None:
        """It will never come: whoever waits gets ``error``."""
        if not self.is_settled:
            self._error = error
            self._settled.set()

    async def wait(self) -> Value:
        """Unbounded by itself: the end of the process settles it at the latest."""
        await self._settled.wait()
        if self._error is not None:
            raise self._error
        return cast("Value", self._value)
