"""The short form of a turn's events."""

from __future__ import annotations

from typing import Any

import pytest

from clawdforge.protocol.normalized import normalize


def update(kind: str, **fields: Any) -> dict[str, Any]:
    """A session/update of some kind."""
    return {"method": "session/update", "params": {"update": {"sessionUpdate": kind, **fields}}}


def says(text: str, kind: str = "agent_message_chunk") -> dict[str, Any]:
    """A chunk of text."""
    return update(kind, content={"type": "text", "text": text})


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], []),
        ([says("a"), says("b")], [{"type": "text", "content": "ab"}]),
        (
            [says("a"), says("?", "agent_thought_chunk"), says("b")],
            [
                {"type": "text", "content": "a"},
                {"type": "thinking", "content": "?"},
                {"type": "text", "content": "b"},
            ],
        ),
        (
            [{"params": {"sessionUpdate": "agent_message_chunk", "content": {"text": "flat"}}}],
            [{"type": "text", "content": "flat"}],
        ),
        (
            [update("plan", entries=[{"content": "x"}])],
            [{"type": "plan", "entries": [{"content": "x"}]}],
        ),
        (
            [
                update("tool_call", toolCallId="1", title="Read", rawInput={"path": "a"}),
                says("meanwhile"),
                update("tool_call_update", toolCallId="1", status="completed", rawOutput="text"),
            ],
            [
                {"type": "tool_call", "name": "Read", "args": {"path": "a"}, "result": "text"},
                {"type": "text", "content": "meanwhile"},
            ],
        ),
        (
            [update("tool_call_update", toolCallId="9", content=[{"type": "content"}])],
            [{"type": "tool_call", "name": None, "args": None, "result": [{"type": "content"}]}],
        ),
        (
            [
                {"id": 2, "result": {"stopReason": "end_turn"}},
                update("current_mode_update"),
                update("agent_message_chunk", content={"type": "image"}),
                {"params": []},
                {"params": {"update": 1}},
            ],
            [],
        ),
    ],
)
def test_normalized(messages: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Text and thoughts are merged, a call's updates folded into it, the rest left out."""
    assert normalize(messages) == expected
