"""Permission requests that wait for somebody's word, and the word that ends them. Values only.

What a mode decides without asking is in :mod:`.permissions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import attrs

from clawdforge.domain.permissions import ALLOW, REJECT
from clawdforge.domain.ports import Message


@attrs.frozen
class PendingPermission:
    """A request that waits. ``expires_at`` is when the clock decides it, in Unix seconds."""

    request_id: str
    turn_index: int
    tool_call: Message
    options: Sequence[Message]
    expires_at: int


@attrs.frozen
class Decision:
    """What was decided and who did; no option is the outcome ``cancelled``."""

    by: Literal["caller", "clock", "cancel"]
    option_id: str | None


def describe_decision(pending: PendingPermission, decision: Decision) -> dict[str, Any]:
    """A decision for the audit: our words and ACP's, none of the agent's own."""
    kinds = [
        option.get("kind")
        for option in pending.options
        if decision.option_id is not None and option.get("optionId") == decision.option_id
    ]
    outcome = kinds[0] if kinds and kinds[0] in (*ALLOW, *REJECT) else "cancelled"
    return {"turn_index": pending.turn_index, "by": decision.by, "outcome": outcome}
