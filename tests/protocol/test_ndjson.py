"""Lines out of bytes, objects out of lines."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawdforge.protocol.ndjson import LineSplitter, parse_line, parse_ndjson


def split(chunks: list[bytes], limit_bytes: int) -> tuple[list[bytes], int]:
    """Feed all chunks, then the end; the lines and the number skipped."""
    splitter = LineSplitter(limit_bytes)
    lines: list[bytes] = []

    def pull() -> None:
        while (line := splitter.next_line()) is not None:
            lines.append(line)

    for chunk in chunks:
        splitter.feed(chunk)
        pull()
    splitter.feed_end()
    pull()
    return lines, splitter.skipped_count


@pytest.mark.parametrize(
    ("data", "lines", "skipped"),
    [
        (b"", [], 0),
        (b"\n", [b""], 0),
        (b"one\ntwo\n", [b"one", b"two"], 0),
        (b"one\ntwo", [b"one", b"two"], 0),
        (b"exact\n", [b"exact"], 0),
        (b"longer\n", [], 1),
        (b"longer", [], 1),
        (b"a\nlonger\nb\n", [b"a", b"b"], 1),
        (b"longer\nlonger still\nb", [b"b"], 2),
        (b"cr\r\n", [b"cr\r"], 0),
        (b"\xff\x00\n", [b"\xff\x00"], 0),
    ],
)
def test_lines(data: bytes, lines: list[bytes], skipped: int) -> None:
    """Lines come whole and in order, those over five bytes are skipped and counted."""
    assert split([data], 5) == (lines, skipped)


@given(
    data=st.binary(max_size=60) | st.text("ab\n", max_size=60).map(str.encode),
    cuts=st.lists(st.integers(0, 60)),
    limit_bytes=st.integers(1, 20),
)
def test_any_chunking_gives_the_same_lines(data: bytes, cuts: list[int], limit_bytes: int) -> None:
    """Where the stream was cut is not seen in the lines, nor in the count."""
    edges = [0, *sorted(cuts), len(data)]
    chunks = [data[start:end] for start, end in pairwise(edges)]

    lines, skipped = split(chunks, limit_bytes)

    wanted = data.split(b"\n")
    if not wanted[-1]:
        wanted.pop()
    assert lines == [line for line in wanted if len(line) <= limit_bytes]
    assert skipped == sum(len(line) > limit_bytes for line in wanted)


def test_a_huge_line_is_not_held() -> None:
    """While a line over the limit passes, no more than the limit and one chunk is in memory."""
    splitter = LineSplitter(1000)
    for _ in range(100):
        splitter.feed(b"x" * 600)
        assert splitter.next_line() is None
        assert len(splitter._buffer) <= 1600
    splitter.feed(b"\nnext\n")
    assert splitter.next_line() == b"next"
    assert splitter.skipped_count == 1


def test_feeding_after_the_end_is_a_fault() -> None:
    """Input after the end of input is the caller's own bug and says so."""
    splitter = LineSplitter(10)
    splitter.feed_end()
    splitter.feed_end()
    with pytest.raises(RuntimeError):
        splitter.feed(b"x")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        (b' {"a": "\xc3\xa9"}\r', {"a": "é"}),
        ('{"a": "\u2028"}', {"a": "\u2028"}),
        ("", None),
        ("   ", None),
        ("npm warn", None),
        ("[1]", None),
        ("1", None),
        ('{"a": NaN}', None),
        ('{"a": -Infinity}', None),
        ('{"half":', None),
        (b'{"a": "\xff"}', None),
        ('{"a":' * 100_000, None),
        ('{"a": ' + "1" * 5000 + "}", None),
    ],
)
def test_a_line_is_an_object_or_nothing(line: str | bytes, value: dict[str, Any] | None) -> None:
    """Whatever an agent prints, parsing it gives an object or None and never raises."""
    assert parse_line(line) == value


@given(st.binary())
def test_no_line_is_fatal(line: bytes) -> None:
    """No bytes at all make parsing raise."""
    parse_line(line)


def test_ndjson_keeps_the_objects() -> None:
    """Blank and unparsable lines are skipped, and text that only looks like a line end is kept."""
    text = '{"a": 1}\n\nnot json\n{"b": "x\u2028y"}\r\n[]\n{"c": 3}'
    assert parse_ndjson(text) == [{"a": 1}, {"b": "x\u2028y"}, {"c": 3}]
