"""One turn in a session's line: who asked, until when, and the one way to stop it.

Caller gone, deadline, cancel and close all come down to ``stop``: the first cause counts, and
whatever the turn waits on inside ``unless_stopped`` is left at once.
"""

from __future__ import annotations

import trio

from clawdforge.actors.messages import StartTurn
from clawdforge.domain.transcript import Transcript
from clawdforge.domain.turns import StopCause, TurnResult, Verdict


class Turn:
    """An admitted turn. ``is_head`` is set when it is first in line, ``ended`` when it is over."""

    def __init__(self, index: int, request: StartTurn, transcript: Transcript) -> None:
        self.index = index
        self.request = request
        self.transcript = transcript
        self.is_head = trio.Event()
        self.ended = trio.Event()
        self._began = trio.current_time()
        self._deadline = self._began + request.timeout_secs
        self._cause: StopCause | None = None
        self._scope: trio.CancelScope | None = None

    @property
    def stop_cause(self) -> StopCause | None:
        """Why the turn is to end, if it is. Past the deadline it is, whoever noticed first."""
        if self._cause is None and trio.current_time() >= self._deadline:
            self._cause = "deadline"
        return self._cause

    @property
    def duration_ms(self) -> int:
        """Since admission, waiting in line included."""
        return round((trio.current_time() - self._began) * 1000)

    def stop(self, cause: StopCause) -> None:
        """Have the turn end. Returns at once; only the first cause counts."""
        if self.stop_cause is None:
            self._cause = cause
            if self._scope is not None:
                self._scope.cancel()

    def unless_stopped(self) -> trio.CancelScope:
        """A scope for what is left early when the turn is stopped or past its deadline."""
        self._scope = trio.CancelScope(deadline=self._deadline)
        if self.stop_cause is not None:
            self._scope.cancel()
        return self._scope

    def result(self, verdict: Verdict) -> TurnResult:
        """The answer to whoever asked, as the turn stands now."""
        said = self.transcript
        return TurnResult(
            turn_index=self.index,
            ending=verdict.ending,
            stop_reason=verdict.stop_reason,
            duration_ms=self.duration_ms,
            events=said.events,
            events_dropped=said.dropped,
            skipped_lines=said.skipped_lines,
            text=said.text,
            usage=said.usage,
            error=verdict.error,
        )
