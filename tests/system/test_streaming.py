"""Streams of the real server over real sockets, with real acpx and the demo agent."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from clawdforge.domain.events import EVENT_RESERVE
from tests.system.conftest import Server, StartServer, open_session, say
from tests.system.streams import NDJSON, Heard, numbers, stream_events, stream_turn
from tests.waiting import wait_until

pytestmark = pytest.mark.system

GROWTH_BYTES = 24 * 1024 * 1024
"""Recent events, one batch on its way to the ledger, the turn's own answer, and the allocator."""


def settled(app: httpx.Client, session: str, index: int) -> dict[str, object]:
    """A turn of the history, once it has its ending."""
    path = f"/sessions/{session}/turns/{index}"
    wait_until(lambda: app.get(path).json().get("ending"), "the turn has ended", secs=20)
    turn: dict[str, object] = app.get(path).json()
    return turn


def test_a_turn_is_streamed_while_the_agent_works(start_server: StartServer) -> None:
    """Each message when it is said, numbered from 1, and the plain body at the end."""
    app = start_server().wait_ready().app()
    session = open_session(app)
    with stream_turn(app, session, "pace: 0.2\nsay: one two three four five") as stream:
        began_at = time.monotonic()
        (first,) = stream.take(1)
        first_at = time.monotonic() - began_at
        rest = stream.until("result")
    assert first_at < (time.monotonic() - began_at) / 2
    *acp, result = [first, *rest]
    assert numbers(acp) == list(range(acp[0].number or 0, (acp[0].number or 0) + len(acp)))
    assert acp[-1].data["result"]["stopReason"] == "end_turn"
    plain = say(app, session, "hello").json()
    assert set(result.data) == set(plain) - {"events"}
    assert result.data["text"] == "one two three four five"


def test_every_stream_gives_the_same_numbers(start_server: StartServer) -> None:
    """The turn's stream, the session's stream and a replay agree, between turns as well."""
    app = start_server().wait_ready().app()
    session = open_session(app)
    with stream_events(app, session) as live:
        with stream_turn(app, session, "say: one\nlate: a title") as turn:
            first = turn.until("result")
        with stream_turn(app, session, "say: two") as turn:
            second = turn.until("result")
        seen = live.take(numbers(second)[-1])
    with stream_events(app, session) as replay:
        again = replay.take(len(seen))
    assert numbers(seen) == list(range(1, len(seen) + 1))
    assert seen == again
    by_number = {event.number: event for event in seen}
    assert [by_number[event.number] for event in (*first, *second) if event.number] == [
        event for event in (*first, *second) if event.number
    ]


def test_hanging_up_in_a_stream_cancels_the_turn(start_server: StartServer) -> None:
    """The agent is told at once, the turn has one ending, and the session takes the next."""
    app = start_server().wait_ready().app()
    session = open_session(app)
    with stream_turn(app, session, "say: one\nsleep: 600") as stream:
        stream.take(1)
        hung_up_at = time.monotonic()
    turn = settled(app, session, 1)
    assert time.monotonic() - hung_up_at < 5
    assert (turn["ending"], turn["stop_reason"]) == ("cancelled", "cancelled")
    assert "one" in say(app, session, "recall").json()["text"]


def test_a_stream_goes_on_after_a_reconnect_and_a_restart(start_server: StartServer) -> None:
    """With Last-Event-ID nothing is lost and nothing is repeated, across SIGTERM too."""
    server = start_server().wait_ready()
    app = server.app()
    session = open_session(app)
    seen: list[Heard] = []

    def read_on(app: httpx.Client, count: int) -> None:
        with stream_events(app, session, seen[-1].number if seen else None) as stream:
            seen.extend(stream.take(count))

    for prompt in ("say: one two three", "say: four five six"):
        say(app, session, prompt).raise_for_status()
    read_on(app, 2)
    read_on(app, 3)
    assert server.terminate() == 0
    app = start_again(start_server, app)
    read_on(app, 2)
    say(app, session, "say: seven").raise_for_status()
    app.delete(f"/sessions/{session}").raise_for_status()
    with stream_events(app, session) as stream:
        whole = stream.until("end")
    with stream_events(app, session, seen[-1].number) as stream:
        seen.extend(stream.until("end"))
    assert seen == whole
    assert numbers(seen) == list(range(1, len(seen)))


def test_a_crash_gives_no_number_twice_and_says_what_is_lost(start_server: StartServer) -> None:
    """SIGKILL in a turn: what was shown stays, what is lost is a gap, the next turn comes after."""
    server = start_server().wait_ready()
    app = server.app()
    session = open_session(app)
    shown = watch_until_killed(server, app, session)
    app = start_again(start_server, app)
    with stream_events(app, session, shown[-1].number) as stream:
        lost = stream.until("gap")
    with stream_turn(app, session, "say: again") as turn:
        after = turn.until("result")
    seen = [*shown, *lost, *after[:-1]]
    gap = lost[-1].data
    assert gap["to"] - gap["from"] < EVENT_RESERVE
    assert told_by(seen) == list(range(1, numbers(after)[-1] + 1))


def watch_until_killed(server: Server, app: httpx.Client, session: str) -> list[Heard]:
    """What a reader has seen of a long turn when the server is killed."""
    shown: list[Heard] = []
    body = {"prompt": "pace: 0.02\nflood: 100000"}
    with (
        contextlib.suppress(httpx.TransportError),
        stream_events(app, session) as stream,
        app.stream("POST", f"/sessions/{session}/turn", json=body, headers=NDJSON),
    ):
        shown += stream.take(100)
        server.kill()
        shown.extend(stream)
    return shown


def told_by(events: list[Heard]) -> list[int]:
    """Every number that a reader was told of, shown or missing."""
    spans = [
        range(event.data["from"], event.data["to"] + 1) if event.kind == "gap" else [event.number]
        for event in events
    ]
    return [number for span in spans for number in span if number is not None]


def start_again(start_server: StartServer, app: httpx.Client) -> httpx.Client:
    """The next server on the same data, and the same app's client."""
    token = app.headers["authorization"].removeprefix("Bearer ")
    return start_server().wait_ready().client(token)


def rss_bytes(server: Server) -> int:
    """What the server itself holds in memory (proc(5), statm)."""
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def test_twenty_thousand_events_to_a_slow_reader(start_server: StartServer) -> None:
    """Memory grows by less than the events weigh, the order is kept, a resume loses nothing."""
    count = 20_000
    server = start_server(CLAWDFORGE_MAX_TURN_BYTES="1048576").wait_ready()
    app = server.app()
    session = open_session(app)
    with stream_events(app, session) as slow:
        slow.take(0)
        before = rss_bytes(server)
        say(app, session, f"flood: {count}", timeout_secs=120).raise_for_status()
        grown = rss_bytes(server) - before
        seen = slow.take(count // 2)
    with stream_events(app, session, seen[-1].number) as rest:
        seen += rest.take(count + 1 - len(seen))
    assert numbers(seen) == list(range(1, count + 2))
    texts = [event.data["params"]["update"]["content"]["text"] for event in seen[:-1]]
    assert texts == [f"{number} " for number in range(count)]
    weight = sum(len(json.dumps(event.data)) for event in seen)
    assert grown < GROWTH_BYTES, f"{count} events of {weight} bytes: memory grew by {grown} bytes"


def test_readers_that_stall_do_not_slow_a_plain_caller(start_server: StartServer) -> None:
    """Eight connections that read nothing of a flood: the next turns take as long as before."""
    server = start_server().wait_ready()
    app = server.app()
    session = open_session(app)

    def flood_secs() -> float:
        began_at = time.monotonic()
        say(app, session, "flood: 2000", events="none").raise_for_status()
        return time.monotonic() - began_at

    flood_secs()
    alone = statistics.median(flood_secs() for _ in range(5))
    token = app.headers["authorization"]
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(stalled_reader(server, session, token))
        watched = statistics.median(flood_secs() for _ in range(5))
    assert watched < 2 * alone + 0.5, f"{alone:.3f} s alone, {watched:.3f} s with them"


@contextlib.contextmanager
def stalled_reader(server: Server, session: str, token: str) -> Iterator[None]:
    """A connection that asks for the session's stream and never reads it."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((host, int(port)))
        head = f"GET /sessions/{session}/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: {token}"
        sock.sendall(f"{head}\r\nAccept: text/event-stream\r\n\r\n".encode())
        yield
