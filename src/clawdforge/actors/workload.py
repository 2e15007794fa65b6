"""The count of what is in progress: creations and turns. A drain waits until there is none."""

from __future__ import annotations

from types import TracebackType

import trio


class Workload:
    """How much is in progress; turns that go on without a caller count as well."""

    def __init__(self) -> None:
        self.count = 0
        self._idle = trio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"<Workload {self.count}>"

    def one_more(self) -> Workload:
        """Count one for as long as the block runs."""
        return self

    def __enter__(self) -> None:
        if self.count == 0:
            self._idle = trio.Event()
        self.count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.count -= 1
        if self.count == 0:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Return when nothing is in progress. Unbounded: the server bounds it."""
        while self.count:
            await self._idle.wait()
