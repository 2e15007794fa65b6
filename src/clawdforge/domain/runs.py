"""One-shot runs as values, what runs them, and what the audit keeps of them. Pure.

A run has no conversation: one prompt in, one result out, and nothing of it stays but one row of
counts. ``RunResult`` and ``Runner`` are the names that importers know from ``clawdforge.runner``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import attrs

from clawdforge.domain.ids import AppName

SystemMode = Literal["append", "replace"]
"""Whether a system text is added to the command's own or takes its place."""

Effort = Literal["low", "medium", "high", "xhigh", "max"]

RunOutcome = Literal["completed", "failed", "timed_out", "cancelled", "interrupted"]
"""How a run ended. ``interrupted``: the service itself ended first, nobody knows."""

RunStop = Literal["caller_gone", "deadline", "revoked", "shutdown"]
"""Why a run is stopped before its command has ended."""

DEFAULT_MODEL: Final = "sonnet"
"""The model of a run when neither request nor settings name one: HTTP contract, ``POST /run``."""


@attrs.frozen(kw_only=True)
class RunRequest:
    """A run that an app asks for. ``timeout_secs`` covers all of it, waiting in line included.

    ``files`` are paths of ours to the app's uploads; ``model`` None is the settings' own.
    """

    app: AppName
    prompt: str = attrs.field(repr=False)
    timeout_secs: float
    model: str | None = None
    system: str | None = attrs.field(default=None, repr=False)
    system_mode: SystemMode = "append"
    effort: Effort | None = None
    files: tuple[Path, ...] = ()


@attrs.frozen
class RunResult:
    """How a run went.

    ``result`` is JSON when the answer was JSON, else text; None when it failed. ``error`` says why
    it failed, in words that may be shown; ``raw_stderr`` is the end of what the command said there,
    fit to be shown as well; ``raw_stdout`` is for logs and callers in the same process only.
    """

    ok: bool
    result: Any
    raw_stdout: str
    raw_stderr: str
    duration_ms: int
    stop_reason: str
    error: str | None = None


def stopped_run(cause: RunStop, *, timeout_secs: float, duration_ms: int) -> RunResult:
    """The result of a run that was stopped."""
    errors = {
        "deadline": f"the run did not finish within {timeout_secs:g} s",
        "caller_gone": "the caller has gone",
        "revoked": "the app's token was revoked",
        "shutdown": "the service is shutting down",
    }
    reason = "timeout" if cause == "deadline" else "cancelled"
    return RunResult(False, None, "", "", duration_ms, reason, errors[cause])


class Runner(Protocol):
    """Runs one-shot commands. One per service; called by the runs actor."""

    async def run(self, **fields: Any) -> RunResult:  # noqa: ANN401 - the fields are listed below
        """Run once and answer how it went; a command that fails is a result, not an error.

        ``fields``: ``prompt``, ``model`` and ``timeout_secs`` always; ``system`` (or None),
        ``system_mode``, ``effort`` (or None), ``files`` (paths, maybe none). ``timeout_secs`` is
        what was asked for, waiting in line included; whoever calls this keeps to it by cancelling.
        That stops the run, and is let through when nothing of it is left (shielded, bounded).
        """


# --- the audit ------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class RunStart:
    """A run, written before the command is started. ``prompt``: only where texts are kept."""

    run_id: str
    app_name: AppName
    model: str
    started_at: int
    prompt_chars: int
    system_chars: int
    file_count: int
    prompt: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class RunEnd:
    """The one ending of a run. ``result``: only where texts are kept."""

    run_id: str
    outcome: RunOutcome
    stop_reason: str
    ended_at: int
    duration_ms: int
    result_chars: int = 0
    result: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class RunRow:
    """A run, as the ledger knows it; ``end`` is None while it waits or works."""

    start: RunStart
    end: RunEnd | None = None


def begin_row(
    request: RunRequest, *, run_id: str, model: str, at: int, is_text_kept: bool
) -> RunStart:
    """The row of a run that begins."""
    return RunStart(
        run_id=run_id,
        app_name=request.app,
        model=model,
        started_at=at,
        prompt_chars=len(request.prompt),
        system_chars=len(request.system or ""),
        file_count=len(request.files),
        prompt=request.prompt if is_text_kept else None,
    )


def end_row(result: RunResult, *, run_id: str, at: int, is_text_kept: bool) -> RunEnd:
    """The row's ending: a stop reason of our own making says which one it is."""
    outcomes: dict[str, RunOutcome] = {"timeout": "timed_out", "cancelled": "cancelled"}
    text = ""
    if result.ok:
        answer = result.result
        text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    return RunEnd(
        run_id=run_id,
        outcome="completed" if result.ok else outcomes.get(result.stop_reason, "failed"),
        stop_reason=result.stop_reason,
        ended_at=at,
        duration_ms=result.duration_ms,
        result_chars=len(text),
        result=text if is_text_kept else None,
    )


class RunLog(Protocol):
    """The part of the ledger about runs: one row each. See ``domain.ports.Store``."""

    async def begin_run(self, start: RunStart) -> None:
        """Write the row. The same run again is a no-op."""

    async def end_run(self, end: RunEnd) -> bool:
        """Write the one ending. False: it has one, or is missing."""

    async def list_runs(self, app: AppName, *, limit: int) -> Sequence[RunRow]:
        """The runs of one app, newest first, at most ``limit``."""

    async def interrupt_runs(self, *, at: int) -> int:
        """At start-up: end every open run as ``interrupted``; says how many there were."""

    async def sweep_audit(self, *, before: int) -> int:
        """Forget runs that began, and audit events that happened, before then; how many rows.

        Events of a session that is still in the ledger stay: the audit outlives the session.
        Called by the sweeper, which calls again: one call takes a bounded number of rows.
        """
