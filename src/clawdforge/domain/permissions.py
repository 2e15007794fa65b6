"""Which option ends a permission request that nobody answers. A pure decision.

The kinds are ACP's (``allow_once``, ``allow_always``, ``reject_once``, ``reject_always``). Source:
https://agentclientprotocol.com/protocol/tool-calls#requesting-permission
"""

from __future__ import annotations

from collections.abc import Sequence

from clawdforge.domain.ports import Message


def choose_rejection(options: Sequence[Message]) -> str | None:
    """The id of the mildest reject option; None (the outcome ``cancelled``) if none is offered."""
    for kind in ("reject_once", "reject_always"):
        for option in options:
            option_id = option.get("optionId")
            if option.get("kind") == kind and isinstance(option_id, str):
                return option_id
    return None
