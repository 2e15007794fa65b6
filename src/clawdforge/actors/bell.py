"""A bell: whoever rings it does not wait, whoever waits hears that it was rung since last time."""

from __future__ import annotations

import trio


class Bell:
    """Rung from anywhere, heard by one listener. Rings that nobody has heard yet are one ring."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        """Have the listener look again. Returns at once."""
        self._rung.set()

    async def wait(self) -> None:
        """Return when it has been rung since the last return. Unbounded: the listener bounds it."""
        await self._rung.wait()
        self._rung = trio.Event()
