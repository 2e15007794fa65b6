"""A turn's ACP messages in the short form that the original's later clients expect.

``{type: "text", content}``, ``{type: "thinking", content}``, ``{type: "tool_call", name, args,
result}``, ``{type: "plan", entries}``: in order of first appearance, adjacent text merged, a tool
call's updates folded into the call. A call that its turn's cancellation left open has a ``status``
of ``cancelled`` besides. Pure; messages are read and never changed.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, Final

from clawdforge.protocol.acp import update_of

_CHUNKS: Final = {"agent_message_chunk": "text", "agent_thought_chunk": "thinking"}


def normalize(
    messages: Iterable[Mapping[str, Any]], cancelled_calls: Container[str] = ()
) -> list[dict[str, Any]]:
    """The normalized events of one turn; messages of other kinds have none.

    ``cancelled_calls`` are the ids of tool calls that ended as cancelled.
    """
    events: list[dict[str, Any]] = []
    calls: dict[str, dict[str, Any]] = {}
    for message in messages:
        update = update_of(message)
        if update is None:
            continue
        kind = update["sessionUpdate"]
        if kind in _CHUNKS:
            _add_chunk(events, _CHUNKS[kind], update.get("content"))
        elif kind in {"tool_call", "tool_call_update"}:
            _add_call(events, calls, update)
        elif kind == "plan":
            events.append({"type": "plan", "entries": update.get("entries", [])})
    for call_id, call in calls.items():
        if call_id in cancelled_calls:
            call["status"] = "cancelled"
    return events


def _add_chunk(events: list[dict[str, Any]], kind: str, content: object) -> None:
    text = content.get("text") if isinstance(content, Mapping) else content
    if not isinstance(text, str):
        return
    if events and events[-1]["type"] == kind:
        events[-1]["content"] += text
    else:
        events.append({"type": kind, "content": text})


def _add_call(
    events: list[dict[str, Any]], calls: dict[str, dict[str, Any]], update: Mapping[str, Any]
) -> None:
    """Begin a call, or fold an update into it: what is given replaces what was there."""
    call_id = str(update.get("toolCallId"))
    call = calls.get(call_id)
    if call is None:
        call = {"type": "tool_call", "name": None, "args": None, "result": None}
        calls[call_id] = call
        events.append(call)
    for key, source in (("name", "title"), ("args", "rawInput")):
        if update.get(source) is not None:
            call[key] = update[source]
    result = update.get("rawOutput", update.get("content"))
    if result:
        call["result"] = result
