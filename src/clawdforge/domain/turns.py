"""How a turn went, as the actor tells it to whoever asked. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from clawdforge.domain.ports import Ending, Message
from clawdforge.errors import ClawdforgeError


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
