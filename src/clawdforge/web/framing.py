"""The two forms of a stream: server-sent events (HTML standard §9.2) and lines of JSON. Pure.

Data is always one JSON text. Characters that careless readers take for the end of a line are
written as JSON escapes, so that one event is one line to everybody.
"""

from __future__ import annotations

from typing import Final, Protocol

import attrs

from clawdforge.web.accept import NDJSON, SSE

LINE_ENDS: Final = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
"""No line ends to either format, but to ``str.splitlines`` and the like. All others are below
U+0020, which JSON text escapes anyway (RFC 8259 §7)."""


@attrs.frozen
class StreamEvent:
    """One event of a stream: its kind, its data as JSON text, its number in the session if any."""

    kind: str
    data: str = attrs.field(repr=False)
    number: int | None = None


class Framing(Protocol):
    """How events become bytes."""

    @property
    def media_type(self) -> str:
        """The ``Content-Type``."""

    @property
    def heartbeat(self) -> bytes:
        """Something that is no event, to keep proxies awake."""

    def frame(self, event: StreamEvent) -> bytes:
        """One event."""


@attrs.frozen
class SseFraming:
    """Server-sent events."""

    media_type: str = SSE
    heartbeat: bytes = b": still here\n\n"

    def frame(self, event: StreamEvent) -> bytes:
        """``id`` (when it has a number), ``event``, ``data``, and the empty line that sends it."""
        number = "" if event.number is None else f"id: {event.number}\n"
        return f"{number}event: {event.kind}\ndata: {one_line(event.data)}\n\n".encode()


@attrs.frozen
class NdjsonFraming:
    """One JSON object a line. JSON has no comments: the heartbeat is an event ``ping``."""

    media_type: str = NDJSON
    heartbeat: bytes = b'{"event":"ping","data":{}}\n'

    def frame(self, event: StreamEvent) -> bytes:
        """``event``, ``id`` (when it has a number), ``data``."""
        number = "" if event.number is None else f'"id":{event.number},'
        return f'{{"event":"{event.kind}",{number}"data":{one_line(event.data)}}}\n'.encode()


FRAMINGS: Final[dict[str, Framing]] = {SSE: SseFraming(), NDJSON: NdjsonFraming()}
"""By media type."""


def one_line(text: str) -> str:
    """A JSON text without anything that anybody takes for the end of a line."""
    return text if text.isascii() and "\n" not in text and "\r" not in text else _escape(text)


def _escape(text: str) -> str:
    """Line ends between tokens (there are none within) become spaces, the rare ones escapes."""
    return text.replace("\r", " ").replace("\n", " ").translate(LINE_ENDS)
