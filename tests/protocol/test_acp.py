"""Reading turns out of ACP messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawdforge import acpx_runner
from clawdforge.protocol.acp import context_in, stop_reason_of, text_of, tokens_in, update_of

KEYS = ("method", "id", "params", "result", "update", "sessionUpdate", "content", "text", "usage")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)
ENDED = {"jsonrpc": "2.0", "id": 2, "result": {"stopReason": "end_turn"}}


def nested(kind: str, **fields: Any) -> dict[str, Any]:
    """An update as real acpx has it."""
    update = {"sessionUpdate": kind, **fields}
    return {"method": "session/update", "params": {"sessionId": "s", "update": update}}


def flat(kind: str, **fields: Any) -> dict[str, Any]:
    """An update as older fixtures have it."""
    return {"method": "session/update", "params": {"sessionUpdate": kind, **fields}}


def chunk(text: str) -> dict[str, Any]:
    """A text block's fields."""
    return {"content": {"type": "text", "text": text}}


@pytest.mark.parametrize("form", [nested, flat])
def test_both_forms_of_an_update_are_understood(form: Any) -> None:
    """Nested and flat updates give the same text, kind and fields."""
    events = [
        form("agent_message_chunk", **chunk("Hello, ")),
        form("agent_thought_chunk", **chunk("hm")),
        form("user_message_chunk", **chunk("said by the user")),
        form("agent_message_chunk", **chunk("world")),
        form("usage_update", used=7, size=100),
    ]
    assert text_of(events) == "Hello, world"
    update, usage = update_of(events[0]), update_of(events[-1])
    assert update is not None
    assert update["sessionUpdate"] == "agent_message_chunk"
    assert usage is not None
    assert context_in(usage) == {"used": 7, "size": 100}


@pytest.mark.parametrize(
    ("events", "stop_reason"),
    [
        ([], None),
        ([ENDED], "end_turn"),
        ([nested("agent_message_chunk", **chunk("x")), ENDED], "end_turn"),
        ([ENDED, {"id": 3, "result": {"stopReason": "cancelled"}}], "cancelled"),
        ([ENDED, nested("session_info_update", title="late")], "end_turn"),
        ([{"id": 2, "error": {"code": -32603, "message": "no"}}], None),
        ([{"id": 2, "result": {"stopReason": 5}}, {"id": 2, "result": None}], None),
        ([nested("agent_message_chunk", stopReason="not here")], None),
    ],
)
def test_the_stop_reason_is_the_responses(
    events: list[dict[str, Any]], stop_reason: str | None
) -> None:
    """Only a response's ``result.stopReason`` ends a turn; the last one counts."""
    assert stop_reason_of(events) == stop_reason
    assert acpx_runner._extract_stop_reason(events) == stop_reason


def test_only_text_is_text() -> None:
    """Chunks of images, links and unknown shapes add nothing."""
    contents: list[Any] = [{"type": "image", "data": "aGk="}, None, "bare", {"text": 5}, []]
    events = [nested("agent_message_chunk", content=content) for content in contents]
    assert text_of(events) == ""


def test_usage_is_the_fields_that_are_there() -> None:
    """Of the context and of the tokens; whoever says nothing of them used nothing known."""
    assert context_in({"sessionUpdate": "usage_update", "used": 1, "kind": "x"}) == {"used": 1}
    ended = {"id": 2, "result": {"stopReason": "end_turn", "usage": {"totalTokens": 12}}}
    assert tokens_in(ended) == {"totalTokens": 12}
    assert not tokens_in(ENDED)


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4), max_size=3))
def test_no_shape_is_an_error(events: list[dict[str, Any]]) -> None:
    """Whatever an agent sends, reading it raises nothing."""
    assert isinstance(text_of(events), str)
    stop_reason_of(events)
    for message in events:
        update = update_of(message)
        assert update is None or isinstance(context_in(update), dict)
        assert isinstance(tokens_in(message), dict)
