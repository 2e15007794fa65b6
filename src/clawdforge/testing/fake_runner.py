"""A runner without a command: what a test says, a run answers. No process, no clock.

It gives what the runs actor asks of a :class:`~clawdforge.domain.runs.Runner`, and nothing else.
"""

from __future__ import annotations

from typing import Any

import attrs
import trio

from clawdforge.domain.runs import RunResult


@attrs.define
class FakeRunner:
    """Answers every run with ``next_result``, else with what it was told.

    ``asked`` are the fields of each run, in order. While ``is_holding``, runs wait until they are
    stopped; ``working`` is how many do, ``stopped`` how many were.
    """

    next_result: RunResult | None = None
    is_holding: bool = False
    asked: list[dict[str, Any]] = attrs.field(factory=list)
    working: int = 0
    stopped: int = 0

    async def run(self, **fields: Any) -> RunResult:  # noqa: ANN401 - as in the protocol
        """See the protocol."""
        self.asked.append(fields)
        self.working += 1
        try:
            await trio.lowlevel.checkpoint()
            if self.is_holding:
                await trio.sleep_forever()
        except trio.Cancelled:
            self.stopped += 1
            raise
        finally:
            self.working -= 1
        told = RunResult(True, f"You said: {fields['prompt']}", "", "", 1, "end_turn")
        return self.next_result or told
