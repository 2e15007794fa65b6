"""Which form of an answer a caller gets, by its Accept header."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawdforge.web.accept import JSON, NDJSON, SSE, parse_accept, prefer

TURN = (JSON, SSE, NDJSON)
EVENTS = (SSE, NDJSON)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("application/json, text/plain, */*", JSON),  # axios
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", JSON),  # a browser
        ("text/event-stream", SSE),
        ("TEXT/Event-Stream", SSE),
        ("text/event-stream; charset=utf-8", SSE),
        ("text/event-stream, */*", SSE),
        ("*/*, text/event-stream;q=0.5", JSON),
        ("application/json, text/event-stream", JSON),  # both are as good: the plain one
        ("application/json;q=0.5, text/event-stream", SSE),
        ("text/event-stream;q=0.5, application/x-ndjson", NDJSON),
        ("application/x-ndjson;q=0.3, text/event-stream;q=0.2", NDJSON),
        ("text/*", SSE),
        ("application/*", JSON),
        ("application/*, application/json;q=0", NDJSON),
        ("*/*, application/json;q=0", SSE),
        ("text/event-stream;q=0, application/json;q=0.001", JSON),
        ("text/html", None),
        ("text/event-stream;q=0", None),
        ("text/event-stream;q=nonsense, application/json;q=0.1", JSON),
        ("text/event-stream;q=nan", None),
        ("nonsense", JSON),
        (";;,,/", JSON),
        ("text/plain, " * 30 + "text/event-stream", SSE),  # too long to be remembered
    ],
)
def test_the_form_of_a_turn(accept: str | None, chosen: str | None) -> None:
    """Weights first, then precision, then the plain answer."""
    assert prefer(accept, TURN) == chosen


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [(None, SSE), ("*/*", SSE), ("application/x-ndjson", NDJSON), ("application/json", None)],
)
def test_the_form_of_a_sessions_events(accept: str | None, chosen: str | None) -> None:
    """Where there are only streams, the first is for who does not say."""
    assert prefer(accept, EVENTS) == chosen


@given(st.text(max_size=60))
def test_no_header_is_fatal(accept: str) -> None:
    """Whatever comes is read as ranges with weights from 0 to 1, or as nothing."""
    assert all(0 <= one.weight <= 1 for one in parse_accept(accept))
    assert prefer(accept, TURN) in {*TURN, None}
