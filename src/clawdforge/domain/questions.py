"""Permission requests that wait for somebody's word, and the word that ends them. Values only.

What a mode decides without asking is in :mod:`.permissions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

from clawdforge.domain.permissions import ALLOW, REJECT, decide_by_mode
from clawdforge.domain.ports import Message
from clawdforge.domain.profiles import Permissions


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

    by: Literal["caller", "clock", "cancel", "mode"]
    option_id: str | None


def decided_by_mode(
    mode: Permissions, message: Message, turn_index: int
) -> tuple[PendingPermission, Decision] | None:
    """The decision that a mode takes without asking; None for a message that asks for nothing.

    Taken by the host or the direct transport; said here again, so that the audit has it.
    """
    if message.get("method") != "session/request_permission":
        return None
    params = message.get("params")
    if not isinstance(params, Mapping):
        return None
    tool_call, options = params.get("toolCall"), params.get("options")
    if mode == "ask" or not isinstance(tool_call, Mapping) or not isinstance(options, list | tuple):
        return None
    offered = [option for option in options if isinstance(option, Mapping)]
    pending = PendingPermission("", turn_index, tool_call, offered, 0)
    return pending, Decision("mode", decide_by_mode(mode, tool_call, offered))


def describe_decision(pending: PendingPermission, decision: Decision) -> dict[str, Any]:
    """A decision for the audit: our words and ACP's, none of the agent's own."""
    kinds = [
        option.get("kind")
        for option in pending.options
        if decision.option_id is not None and option.get("optionId") == decision.option_id
    ]
    outcome = kinds[0] if kinds and kinds[0] in (*ALLOW, *REJECT) else "cancelled"
    return {"turn_index": pending.turn_index, "by": decision.by, "outcome": outcome}
