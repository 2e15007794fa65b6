"""How a turn went: the value whoever asked gets, and the one rule that decides an ending. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from clawdforge.domain.ids import AgentName
from clawdforge.domain.ports import Ending, Message
from clawdforge.errors import AgentTimedOut, ClawdforgeError

StopCause = Literal["caller_gone", "deadline", "cancel", "close"]
"""Why a turn is told to stop. All of them climb the same ladder."""


OnDisconnect = Literal["cancel", "detach"]
"""What becomes of a turn when its last caller has gone: it is cancelled, or it goes on alone."""


@attrs.frozen(kw_only=True)
class TurnRequest:
    """What an app asks of a session's agent. ``timeout_secs`` covers waiting in line as well."""

    prompt: str
    timeout_secs: float
    files: tuple[Path, ...] = ()
    on_disconnect: OnDisconnect = "cancel"


@attrs.frozen(kw_only=True)
class TurnResult:
    """One admitted turn that has ended.

    ``events`` are the agent's messages, verbatim and in order; ``events_dropped`` counts the oldest
    updates left out because of the size limit, ``skipped_lines`` what was no message at all.
    ``text`` is the answer in one string, thoughts excluded; ``usage`` what the agent reported.
    ``error`` says why when ``ending`` is ``failed``, ``timed_out`` or ``interrupted``: AgentExited,
    AgentMisbehaved, AgentNotResumable, AgentTimedOut, ... It is returned, not raised, because an
    admitted turn has an index and a duration however it ends.
    """

    turn_index: int
    ending: Ending
    stop_reason: str
    duration_ms: int
    events: tuple[Message, ...] = ()
    events_dropped: int = 0
    skipped_lines: int = 0
    text: str = ""
    usage: Mapping[str, Any] | None = None
    error: ClawdforgeError | None = None


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
    timeout_secs: float,
) -> Verdict:
    """Decide how a turn ended from why it was stopped, if it was, and what the agent answered.

    ``answer`` is the ACP stop reason, the error met instead, or None when the agent was never
    asked. A turn past its deadline is timed out whatever the agent said at last; an agent that
    finished its work before a cancel reached it has completed.
    """
    if cause == "deadline":
        return Verdict("timed_out", "timeout", AgentTimedOut(agent, timeout_secs))
    if isinstance(answer, str):
        return Verdict("cancelled" if answer == "cancelled" else "completed", answer)
    if cause is None and answer is not None:
        return Verdict("failed", "error", answer)
    return Verdict("cancelled", "cancelled")
