"""How a turn went: the value whoever asked gets, and the one rule that decides an ending. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from clawdforge.domain.ids import AgentName
from clawdforge.domain.keys import IdempotencyKey
from clawdforge.domain.ports import Ending
from clawdforge.errors import AgentFellSilent, AgentNeverSpoke, AgentTimedOut, ClawdforgeError

StopCause = Literal["caller_gone", "deadline", "never_spoke", "fell_silent", "cancel", "close"]
"""Why a turn is told to stop. All of them climb the same ladder."""

How = Literal["agent", "killed", "not_started", "idle"]
"""How a cancelled turn came to its end: the agent stopped at the word, its tree was killed, or it
was never asked. ``idle``: there was nothing to cancel, or nothing any more."""


OnDisconnect = Literal["cancel", "detach"]
"""What becomes of a turn when its last caller has gone: it is cancelled, or it goes on alone."""


@attrs.frozen(kw_only=True)
class TurnRequest:
    """What an app asks of a session's agent. ``timeout_secs`` covers waiting in line as well.

    ``first_output_secs`` and ``silence_secs`` are how long the agent may say nothing, at first and
    later on; None is no limit. ``key`` is the caller's own name for the request.
    """

    prompt: str
    timeout_secs: float
    files: tuple[Path, ...] = ()
    on_disconnect: OnDisconnect = "cancel"
    first_output_secs: float | None = None
    silence_secs: float | None = None
    key: IdempotencyKey | None = None


@attrs.frozen
class TurnTarget:
    """Which turn is meant: the one of an index or of a key; with neither, the one at work."""

    turn_index: int | None = None
    key_name: str | None = None


@attrs.frozen
class CancelReceipt:
    """What a cancel did, given when it is true: the turn it hit is over.

    ``is_cancelled`` is whether a turn ended as cancelled; ``took_ms`` is since the cancel arrived.
    """

    is_cancelled: bool
    turn_index: int | None
    how: How
    took_ms: int


@attrs.frozen(kw_only=True)
class TurnResult:
    """One admitted turn that has ended.

    ``events`` are the agent's messages, verbatim and in order, as one JSON array;
    ``events_dropped`` counts the oldest updates left out because of the size limit,
    ``skipped_lines`` what was no message at all.
    ``text`` is the answer in one string, thoughts excluded; ``usage`` what the agent reported.
    ``cancelled_tool_calls`` are the ids of those that the turn's end left open (ACP, prompt turn:
    the client marks them as cancelled).

    ``error`` says why when ``ending`` is ``failed``, ``timed_out`` or ``interrupted``: AgentExited,
    AgentMisbehaved, AgentNotResumable, AgentTimedOut, ... It is returned, not raised, because an
    admitted turn has an index and a duration however it ends.
    """

    turn_index: int
    ending: Ending
    stop_reason: str
    duration_ms: int
    events: str = attrs.field(default="[]", repr=False)
    events_dropped: int = 0
    skipped_lines: int = 0
    text: str = ""
    usage: Mapping[str, Any] | None = None
    error: ClawdforgeError | None = None
    cancelled_tool_calls: tuple[str, ...] = ()


def receipt_for(result: TurnResult, how: How, took_ms: int) -> CancelReceipt:
    """The receipt of a cancel whose turn has ended so; ``how`` is how far the turn had come."""
    is_cancelled = result.ending == "cancelled"
    return CancelReceipt(is_cancelled, result.turn_index, how if is_cancelled else "idle", took_ms)


@attrs.frozen
class Verdict:
    """How a turn ended, in the ledger's words. ``error`` is whose fault, when it is a fault."""

    ending: Ending
    stop_reason: str
    error: ClawdforgeError | None = None


def judge_turn(
    agent: AgentName,
    cause: StopCause | None,
    answer: str | ClawdforgeError | None,
    request: TurnRequest,
) -> Verdict:
    """Decide how a turn ended from why it was stopped, if it was, and what the agent answered.

    ``answer`` is the ACP stop reason, the error met instead, or None when the agent was never
    asked. A turn past its deadline or its limits on silence is timed out whatever the agent said
    at last; an agent that finished its work before a cancel reached it has completed.
    """
    if cause == "deadline":
        return Verdict("timed_out", "timeout", AgentTimedOut(agent, request.timeout_secs))
    if cause == "never_spoke":
        limit_secs = request.first_output_secs or 0
        return Verdict("timed_out", "never_spoke", AgentNeverSpoke(agent, limit_secs))
    if cause == "fell_silent":
        limit_secs = request.silence_secs or 0
        return Verdict("timed_out", "fell_silent", AgentFellSilent(agent, limit_secs))
    if isinstance(answer, str):
        return Verdict("cancelled" if answer == "cancelled" else "completed", answer)
    if cause is None and answer is not None:
        return Verdict("failed", "error", answer)
    return Verdict("cancelled", "cancelled")
