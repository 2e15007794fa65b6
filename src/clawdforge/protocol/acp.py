"""What a turn's ACP messages say: how it ended, the answer's text, what it used. Pure.

Real acpx nests an update (``params.update.sessionUpdate``), older fixtures are flat
(``params.sessionUpdate``); both are understood and neither is rewritten. A message of a shape that
is not known says nothing and is no error: agents are free to send what they like.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final


def update_of(message: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The update that a ``session/update`` carries (it has ``sessionUpdate``), nested or flat."""
    params = _mapping(message.get("params"))
    update = _mapping(params.get("update")) or params
    return update if isinstance(update.get("sessionUpdate"), str) else None


def stop_reason_of(events: Iterable[Mapping[str, Any]]) -> str | None:
    """The ``result.stopReason`` of the last response that has one; None when none does."""
    found = None
    for message in events:
        stop_reason = _mapping(message.get("result")).get("stopReason")
        if isinstance(stop_reason, str):
            found = stop_reason
    return found


def text_of(events: Iterable[Mapping[str, Any]]) -> str:
    """The agent's answer in one string: its message chunks joined. Thoughts are not the answer."""
    updates = (update for update in map(update_of, events) if update is not None)
    return "".join(text_in(update) for update in updates)


def text_in(update: Mapping[str, Any]) -> str:
    """What an update adds to the answer's text."""
    is_answer = update["sessionUpdate"] == "agent_message_chunk"
    return _text(update.get("content")) if is_answer else ""


def context_in(update: Mapping[str, Any]) -> dict[str, Any]:
    """What a ``usage_update`` says of the context: ``used``, ``size``, ``cost``."""
    return {key: update[key] for key in ("used", "size", "cost") if key in update}


def tokens_in(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """The ``usage`` of a prompt's response; empty for what has none."""
    return _mapping(_mapping(message.get("result")).get("usage"))


SESSION_UPDATES: Final = frozenset(
    {
        "available_commands_update",
        "config_option_update",
        "current_mode_update",
        "session_info_update",
        "usage_update",
    }
)
"""Updates about the session: an agent that sends nothing else has not begun to answer."""


def is_output(update: Mapping[str, Any] | None) -> bool:
    """Whether the agent shows that it works on the turn: by an update, or by another message."""
    return update is None or update["sessionUpdate"] not in SESSION_UPDATES


def tool_call_in(update: Mapping[str, Any]) -> tuple[str, bool] | None:
    """The id of the tool call whose status an update says, and whether the call is open then."""
    if update["sessionUpdate"] not in {"tool_call", "tool_call_update"}:
        return None
    call_id = update.get("toolCallId")
    if not isinstance(call_id, str):
        return None
    status = update.get("status")
    if status is None and update["sessionUpdate"] == "tool_call_update":
        return None
    return call_id, status not in {"completed", "failed"}


def _mapping(value: object) -> Mapping[str, Any]:
    """``value`` if it is an object. Nearly always it is a dict, or is not there at all."""
    if type(value) is dict:
        return value
    return value if value is not None and isinstance(value, Mapping) else {}


def _text(content: object) -> str:
    """The text of a content block; blocks of another kind have none."""
    text = _mapping(content).get("text")
    return text if isinstance(text, str) else ""
