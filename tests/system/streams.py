"""Reading streams of the real server: events as they come, over one connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import httpx2 as httpx

NDJSON = {"Accept": "application/x-ndjson"}


@attrs.frozen
class Heard:
    """One event."""

    kind: str
    data: Any
    number: int | None


class Stream:
    """A stream that is being read."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    def __iter__(self) -> Iterator[Heard]:
        for line in self._lines:
            event = json.loads(line)
            if event["event"] != "ping":
                yield Heard(event["event"], event["data"], event.get("id"))

    def take(self, count: int) -> list[Heard]:
        """The next so many events."""
        events = iter(self)
        return [next(events) for _ in range(count)]

    def until(self, kind: str) -> list[Heard]:
        """All events up to the first of a kind, that one included."""
        found = []
        for event in self:
            found.append(event)
            if event.kind == kind:
                return found
        raise AssertionError(f"the stream ended without {kind}: {found[-3:]}")


@contextmanager
def stream_turn(app: httpx.Client, session: str, prompt: str, **fields: object) -> Iterator[Stream]:
    """A turn as a stream; leaving the block hangs up."""
    body = {"prompt": prompt, **fields}
    path = f"/sessions/{session}/turn"
    with app.stream("POST", path, json=body, headers=NDJSON) as response:
        assert response.status_code == 200, response.read()
        yield Stream(response)


@contextmanager
def stream_events(app: httpx.Client, session: str, last: int | None = None) -> Iterator[Stream]:
    """The session's events after the last that one has; leaving the block hangs up."""
    headers = {**NDJSON} if last is None else {**NDJSON, "Last-Event-ID": str(last)}
    with app.stream("GET", f"/sessions/{session}/events", headers=headers) as response:
        assert response.status_code == 200, response.read()
        yield Stream(response)


def numbers(events: list[Heard]) -> list[int]:
    """The numbers of the agent's messages."""
    return [event.number for event in events if event.kind == "acp" and event.number]
