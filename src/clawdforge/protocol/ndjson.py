"""NDJSON: bytes in, lines out; lines in, objects out. Pure: no I/O in here.

The rule: *no input is fatal*. A line over the limit is skipped and counted, its neighbours are
intact, and the memory held is the limit and one fed chunk. What is not a JSON object is nobody's
message and is left out.
"""

from __future__ import annotations

import json
from typing import Any, Final, Never

import attrs


@attrs.define(slots=True)
class LineSplitter:
    """Cuts a stream of bytes into lines. Feed, then pull with ``next_line`` until it is None.

    ``limit_bytes`` is the longest line, its newline not counted. Any chunking of the same bytes
    gives the same lines and the same ``skipped_count``. No byte is searched twice.
    """

    limit_bytes: int
    skipped_count: int = attrs.field(default=0, init=False)
    _buffer: bytearray = attrs.field(factory=bytearray, init=False, repr=False)
    _searched: int = attrs.field(default=0, init=False)
    _is_skipping: bool = attrs.field(default=False, init=False)
    _is_ended: bool = attrs.field(default=False, init=False)

    def feed(self, data: bytes | bytearray) -> None:
        """Take more bytes. RuntimeError after ``feed_end``: a fault of the caller's own."""
        if self._is_ended:
            raise RuntimeError("fed after the end of input")
        if self._is_skipping:
            newline = data.find(b"\n")
            if newline < 0:
                return
            data = data[newline + 1 :]
            self._is_skipping = False
        self._buffer += data

    def feed_end(self) -> None:
        """The input is over: what has no newline counts as the last line. Idempotent."""
        self._is_ended = True

    def next_line(self) -> bytes | None:
        """The next whole line, without its newline; None when more has to be fed."""
        while (newline := self._buffer.find(b"\n", self._searched)) >= 0:
            line = self._take(newline)
            del self._buffer[:1]
            if line is not None:
                return line
        self._searched = len(self._buffer)
        if self._searched > self.limit_bytes:
            self._take(self._searched)
            self._is_skipping = True
        if self._is_ended and self._buffer:
            return self._take(len(self._buffer))
        return None

    def _take(self, length: int) -> bytes | None:
        """Cut ``length`` bytes off the front; None, and counted, when that is over the limit."""
        self._searched = 0
        if length > self.limit_bytes:
            self.skipped_count += 1
            del self._buffer[:length]
            return None
        with memoryview(self._buffer) as view:
            line = bytes(view[:length])
        del self._buffer[:length]
        return line


def parse_line(line: str | bytes) -> dict[str, Any] | None:
    """The JSON object on a line; None when it is blank, not JSON (RFC 8259) or not an object."""
    try:
        text = line if isinstance(line, str) else line.decode("utf-8", "surrogatepass")
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def parse_ndjson(text: str) -> list[dict[str, Any]]:
    """All objects of ``text``, in order. Only a line feed ends a line: U+2028 is JSON text."""
    objects = (parse_line(line) for line in text.split("\n"))
    return [value for value in objects if value is not None]


def _refuse_constant(name: str) -> Never:
    """Python reads NaN and Infinity; JSON has no such words, and others could not read them on."""
    raise ValueError(name)


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)
"""One for all lines: ``json.loads`` with an option makes another each time, which costs as much as
the reading."""
