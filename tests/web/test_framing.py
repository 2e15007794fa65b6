"""Server-sent events and lines: what went in comes out, whoever reads it."""

from __future__ import annotations

import json
import re
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawdforge.web.answers import to_json
from clawdforge.web.framing import FRAMINGS, NdjsonFraming, SseFraming, StreamEvent, one_line
from clawdforge.web.streams import PIECE_BYTES, cut_pieces

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(exclude_categories=()))
    | st.sampled_from(["a\nb", "a\r\n\r\nb", "\u2028", "\u2029\x85", "\x0b\x0c\x1c", ":", " x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
kinds = st.sampled_from(["acp", "gap", "result", "error", "end", "permission"])
numbers = st.none() | st.integers(1, 10**9)


@attrs.define
class SseParser:
    """The algorithm of the HTML standard, §9.2.6, for a stream that is whole."""

    last_id: str = ""

    def parse(self, stream: bytes) -> list[tuple[str, str, str]]:
        """Every event as (type, data, last event id)."""
        events: list[tuple[str, str, str]] = []
        data: list[str] = []
        kind = ""
        for line in re.split("\r\n|\n|\r", stream.decode()):
            if not line:
                if data:
                    events.append((kind or "message", "\n".join(data), self.last_id))
                kind, data = "", []
                continue
            field, colon, value = line.partition(":")
            value = value.removeprefix(" ")
            match field:
                case "event":
                    kind = value
                case "data":
                    data.append(value)
                case "id":
                    self.last_id = value
                case "":
                    assert colon
                case _:
                    raise AssertionError(field)
        return events


def event(kind: str, value: object, number: int | None) -> StreamEvent:
    """An event whose data is a JSON text as we make it."""
    return StreamEvent(kind, to_json(value).decode(), number)


def plain(value: Any) -> Any:
    """What JSON makes of a value."""
    return json.loads(json.dumps(value))


@given(st.lists(st.tuples(kinds, anything, numbers), max_size=5))
def test_server_sent_events_come_back(given_events: list[tuple[str, Any, int | None]]) -> None:
    """Kind, data and number; an event without a number leaves the last one standing."""
    framing = SseFraming()
    stream = b"".join(framing.frame(event(*one)) + framing.heartbeat for one in given_events)
    got, last_id = SseParser().parse(stream), ""
    assert len(got) == len(given_events)
    for (kind, value, number), (got_kind, data, got_id) in zip(given_events, got, strict=True):
        last_id = last_id if number is None else str(number)
        assert (got_kind, got_id) == (kind, last_id)
        assert json.loads(data) == plain(value)


@given(kinds, anything, numbers)
def test_lines_come_back(kind: str, value: Any, number: int | None) -> None:
    """One object a line, with its number if it has one."""
    line = NdjsonFraming().frame(event(kind, value, number))
    assert line.endswith(b"\n")
    expected = {"event": kind, "data": plain(value)}
    assert json.loads(line) == (expected if number is None else {**expected, "id": number})


@given(kinds, anything, numbers)
def test_no_reader_sees_a_line_end_within_an_event(
    kind: str, value: Any, number: int | None
) -> None:
    """Also not one that splits at everything that Unicode calls a line end."""
    one = event(kind, value, number)
    assert len(NdjsonFraming().frame(one).decode().splitlines()) == 1
    sse = SseFraming().frame(one).decode()
    assert len(sse.splitlines()) == sse.count("\n")


@pytest.mark.parametrize("text", ['{"a":\n1}', '{"a":\r\n1}', '["\u2028"]'])
def test_other_peoples_json_becomes_one_line(text: str) -> None:
    """Line ends between tokens go, those in strings are written as escapes."""
    assert len(one_line(text).splitlines()) == 1
    assert json.loads(one_line(text)) == json.loads(text)


def test_heartbeats_are_no_events() -> None:
    """A comment, and a line that says what it is."""
    assert SseParser().parse(FRAMINGS["text/event-stream"].heartbeat) == []
    assert json.loads(FRAMINGS["application/x-ndjson"].heartbeat)["event"] == "ping"


@given(st.lists(st.binary(min_size=1, max_size=40)), st.integers(0, 5), st.integers(-1, 1))
def test_pieces_are_small_and_lose_nothing(small: list[bytes], times: int, more: int) -> None:
    """Joined they are the frames; only a frame larger than a piece is cut, and that is said."""
    large = b"x" * (times * PIECE_BYTES + more) if times else b"x"
    frames = [*small, large, *small]
    pieces = list(cut_pieces(frames))
    assert b"".join(piece for piece, _ in pieces) == b"".join(frames)
    assert all(0 < len(piece) <= PIECE_BYTES for piece, _ in pieces)
    ends, at = set(), 0
    for frame in frames:
        ends.add(at := at + len(frame))
    at = 0
    for piece, is_whole in pieces:
        at += len(piece)
        assert is_whole == (at in ends)
