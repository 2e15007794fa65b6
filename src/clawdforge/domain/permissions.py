"""Which option a permission request gets without anybody being asked. Pure decisions.

The kinds are ACP's (``allow_once``, ``allow_always``, ``reject_once``, ``reject_always``). Source:
https://agentclientprotocol.com/protocol/tool-calls#requesting-permission
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from clawdforge.domain.ports import Message
from clawdforge.domain.profiles import Permissions

ALLOW: Final = ("allow_once", "allow_always")
REJECT: Final = ("reject_once", "reject_always")

READS: Final = frozenset({"read", "search"})
"""Kinds of tool call that change nothing."""

READING_WORDS: Final = frozenset({"read", "cat", "search", "find", "grep"})
"""First words of the titles of such calls, for agents that name no kind. Source: acpx 0.19.1."""


def decide_by_mode(mode: Permissions, tool_call: Message, options: Sequence[Message]) -> str | None:
    """What every mode but ``ask`` answers: an option's id, or None (the outcome ``cancelled``).

    The same decisions as acpx's, so that an agent is treated alike on every transport.
    """
    if mode == "approve-all":
        return _first_of(ALLOW, options) or _first_id(options)
    allowed = _first_of(ALLOW, options) if mode == "approve-reads" and is_read(tool_call) else None
    return allowed or choose_rejection(options)


def choose_rejection(options: Sequence[Message]) -> str | None:
    """The id of the mildest reject option; None (the outcome ``cancelled``) if none is offered."""
    return _first_of(REJECT, options)


def is_read(tool_call: Message) -> bool:
    """Whether a tool call says that it only reads: by its kind, else by its title's first word."""
    if tool_call.get("kind"):
        return tool_call["kind"] in READS
    title = tool_call.get("title")
    words = title.replace(":", " ").split() if isinstance(title, str) else []
    return bool(words) and words[0].lower() in READING_WORDS


def is_offered(option_id: str | None, options: Sequence[Message]) -> bool:
    """Whether an answer is one of the options, and of a kind that there is."""
    return any(
        option.get("optionId") == option_id and option.get("kind") in (*ALLOW, *REJECT)
        for option in options
    )


def _first_of(kinds: Sequence[str], options: Sequence[Message]) -> str | None:
    """The first option of the first kind that is offered at all."""
    for kind in kinds:
        for option in options:
            option_id = option.get("optionId")
            if option.get("kind") == kind and isinstance(option_id, str):
                return option_id
    return None


def _first_id(options: Sequence[Message]) -> str | None:
    return next((o["optionId"] for o in options if isinstance(o.get("optionId"), str)), None)
