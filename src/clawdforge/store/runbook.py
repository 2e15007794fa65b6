"""The audit of runs in memory: the twin of :mod:`.runs`."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from clawdforge.domain.ids import AppName
from clawdforge.domain.runs import RunEnd, RunRow, RunStart
from clawdforge.store import rows


@attrs.define
class MemoryRuns:
    """The port's methods about runs, for :class:`~clawdforge.store.memory.MemoryStore`."""

    runs: dict[str, RunRow] = attrs.field(factory=dict, kw_only=True)

    async def check(self) -> None:
        """See the port."""
        raise NotImplementedError

    async def begin_run(self, start: RunStart) -> None:
        """See the port."""
        await self.check()
        prompt = None if start.prompt is None else rows.storable(start.prompt)
        self.runs.setdefault(start.run_id, RunRow(attrs.evolve(start, prompt=prompt)))

    async def end_run(self, end: RunEnd) -> bool:
        """See the port."""
        await self.check()
        return self._end_run(end)

    async def list_runs(self, app: AppName, *, limit: int) -> Sequence[RunRow]:
        """See the port."""
        await self.check()
        mine = [row for row in reversed(self.runs.values()) if row.start.app_name == app]
        mine.sort(key=lambda row: -row.start.started_at)
        return mine[: max(0, limit)]

    async def interrupt_runs(self, *, at: int) -> int:
        """See the port."""
        await self.check()
        open_runs = [row.start for row in self.runs.values() if row.end is None]
        for start in open_runs:
            self._end_run(
                RunEnd(
                    run_id=start.run_id,
                    outcome="interrupted",
                    stop_reason="interrupted",
                    ended_at=at,
                    duration_ms=max(0, at - start.started_at) * 1000,
                )
            )
        return len(open_runs)

    def _end_run(self, end: RunEnd) -> bool:
        row = self.runs.get(end.run_id)
        if row is None or row.end is not None:
            return False
        result = None if end.result is None else rows.storable(end.result)
        kept = attrs.evolve(end, stop_reason=rows.storable(end.stop_reason), result=result)
        self.runs[end.run_id] = attrs.evolve(row, end=kept)
        return True

    def _forget_runs(self, *, before: int) -> int:
        """Forget those that have ended and began before then; how many."""
        old = [
            run_id
            for run_id, row in self.runs.items()
            if row.end is not None and row.start.started_at < before
        ]
        for run_id in old:
            del self.runs[run_id]
        return len(old)
