"""A live response: events as they come, a heartbeat when none do, and one last word.

The rules: the end of a stream is always said (an event ``result``, ``error`` or ``end``), unless
the connection itself is gone; a client that takes nothing holds up nobody and costs one page of
memory; nothing here runs in a task of its own, so that the connection's end is the stream's end.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import Final, Protocol

import attrs
import structlog
import trio

from clawdforge.actors.reader import EventReader
from clawdforge.domain.events import Entry, Gap
from clawdforge.domain.questions import PendingPermission
from clawdforge.web.answers import to_json
from clawdforge.web.framing import Framing, StreamEvent
from clawdforge.web.outflow import Outflow
from clawdforge.web.problems import OUR_BUG, Problem, describe_error

_log: Final = structlog.get_logger("clawdforge.streams")

HEARTBEAT_SECS: Final = 15.0
"""A comment after so long without an event (HTTP contract, streaming)."""

PIECE_BYTES: Final = 16 * 1024
"""What goes to the client at a time: one that takes less than this in STALL_SECS has stalled."""

LAST: Final = frozenset({"result", "error", "end"})
"""The kinds of event that end a stream."""


class Source(Protocol):
    """Where the events of a stream come from."""

    async def take(self) -> Sequence[StreamEvent]:
        """What comes next, at once; nothing when there is nothing yet. The last is of ``LAST``."""

    def farewell(self, outflow: Outflow) -> StreamEvent | None:
        """What to say when the edge wants the stream to end; None when it goes on all the same."""


@attrs.frozen
class LiveStream:
    """An answer that flows: what, in which form, and what the edge has to say about it.

    ``instance`` is the route, for the problem documents in it.
    """

    source: Source
    framing: Framing
    outflow: Outflow
    instance: str
    headers: tuple[tuple[str, str], ...] = ()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The body. Waits for nothing but its bell, and for that no longer than a heartbeat."""
        is_over = False
        while not is_over:
            events = await self._next()
            is_over = any(event.kind in LAST for event in events)
            frames = [self.framing.frame(event) for event in events]
            if not events and not await self._is_rung():
                frames = [self.framing.heartbeat]
            for piece, is_whole in cut_pieces(frames):
                yield piece
                if self.outflow.is_stalled:
                    if is_whole and not is_over:
                        yield self.framing.frame(say_end("stalled"))
                    return

    async def _next(self) -> Sequence[StreamEvent]:
        """What comes next; whatever goes wrong is the last of it."""
        try:
            farewell = self.source.farewell(self.outflow)
            return await self.source.take() if farewell is None else [farewell]
        except Exception as error:  # noqa: BLE001 - the status line is out: this is where it is said
            problem = describe_error(error)
            if problem.kind is OUR_BUG:
                _log.error("stream failed", route=self.instance, error=type(error).__name__)
            return [say_problem(problem, self.instance)]

    async def _is_rung(self) -> bool:
        """Wait for the bell; False when it is time for a heartbeat instead."""
        with trio.move_on_after(HEARTBEAT_SECS):
            await self.outflow.bell.wait()
            return True
        return False


def cut_pieces(frames: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The frames in pieces of at most PIECE_BYTES; whether each ends where a frame does."""
    held: list[bytes] = []
    size = 0
    for frame in frames:
        if held and size + len(frame) > PIECE_BYTES:
            yield b"".join(held), True
            held, size = [], 0
        for start in range(0, len(frame) - PIECE_BYTES, PIECE_BYTES):
            yield frame[start : start + PIECE_BYTES], False
        rest = frame[size_of_whole(len(frame)) :]
        held.append(rest)
        size += len(rest)
    if held:
        yield b"".join(held), True


def size_of_whole(length: int) -> int:
    """How much of a frame goes out in full pieces before its last one."""
    return (length - 1) // PIECE_BYTES * PIECE_BYTES


# --- what is said ---------------------------------------------------------------------------------


async def take_events(reader: EventReader) -> list[StreamEvent]:
    """Events, gaps, and the questions that wait at this place."""
    said = [say_entry(entry) for entry in await reader.take()]
    return said + [say_question(request) for request in reader.take_questions()]


def say_entry(entry: Entry) -> StreamEvent:
    """An agent's message, or what is missing; a gap's number is its last, to go on from there."""
    if isinstance(entry, Gap):
        data = json.dumps({"from": entry.first, "to": entry.last}, separators=(",", ":"))
        return StreamEvent("gap", data, entry.last)
    return StreamEvent("acp", entry.message, entry.number)


def say_question(pending: PendingPermission) -> StreamEvent:
    """A permission request that waits for an answer."""
    return StreamEvent("permission", to_json(pending).decode())


def say_problem(problem: Problem, instance: str) -> StreamEvent:
    """A failure after the status line."""
    return StreamEvent("error", problem.to_bytes(instance).decode())


def say_end(reason: str, **more: str) -> StreamEvent:
    """The end of a stream that is not the end of a turn."""
    return StreamEvent("end", json.dumps({"reason": reason, **more}, separators=(",", ":")))
