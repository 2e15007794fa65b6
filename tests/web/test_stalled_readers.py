"""A client that stops reading, over real sockets: cut off with a word, and cheap until then."""

from __future__ import annotations

import socket
import time
from contextlib import AsyncExitStack

import pytest
import trio

from clawdforge.domain.ids import AppName
from clawdforge.web.app import make_edge
from tests.actors.conftest import OpenStage
from tests.actors.conftest import open_stage as open_stage  # noqa: PLC0414 - a fixture to use here
from tests.web.stage import open_site, read_to_end, request_bytes
from tests.web.test_framing import SseParser

STALL_SECS = 0.5

LARGE = {
    "jsonrpc": "2.0",
    "method": "session/update",
    "params": {"update": {"sessionUpdate": "plan", "entries": ["x" * 4000]}},
}


async def connect_idly(port: int) -> trio.SocketStream:
    """A connection whose kernel takes little beyond what its program reads."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await sock.connect(("127.0.0.1", port))
    return trio.SocketStream(sock)


def body_of(raw: bytes) -> bytes:
    """The body of a chunked response that came whole (RFC 9112 §7.1)."""
    _, _, rest = raw.partition(b"\r\n\r\n")
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        if int(size, 16) == 0:
            break
    return body


@pytest.mark.parametrize("kind", ["turn", "session"])
async def test_who_takes_nothing_is_told_so_when_he_comes_back(
    open_stage: OpenStage, kind: str
) -> None:
    """The stream ends where an event ends, with ``end``; a turn is cancelled at once."""
    async with open_stage() as stage:
        token = await stage.service.mint(AppName("pantry"), ())
        session = await stage.open(AppName("pantry"))
        edge = make_edge(stage.service)
        edge._stall_secs = STALL_SECS
        path = f"/sessions/{session}/{'turn' if kind == 'turn' else 'events'}"
        body = b'{"prompt": "sleep: 1000"}' if kind == "turn" else b""
        method = "POST" if kind == "turn" else "GET"
        async with AsyncExitStack() as stack, open_site(stage.service, edge=edge) as site:
            client = await stack.enter_async_context(await connect_idly(site.port))
            accept = "Accept: text/event-stream\r\n"
            await client.send_all(request_bytes(method, path, body, token=token, extra=accept))
            await client.receive_some(100)
            (agent,) = stage.launcher.agents
            for _ in range(500):
                agent.emit(LARGE)
            began_at = time.monotonic()
            (exchange,) = edge._exchanges
            with trio.fail_after(20):
                await exchange.is_over.wait()
            assert time.monotonic() - began_at < 10 * STALL_SECS
            if kind == "turn":
                with trio.fail_after(5):
                    while stage.ends(session) == [None]:
                        await trio.testing.wait_all_tasks_blocked()
                (end,) = stage.ends(session)
                assert end is not None
                assert end.ending == "cancelled"
            site.close.set()
            events = SseParser().parse(body_of(b"\r\n\r\n" + await rest_of(client)))
            assert events[-1][:2] == ("end", '{"reason":"stalled"}')
            numbers = [int(number) for name, _, number in events if name == "acp"]
            assert numbers == list(range(1, len(numbers) + 1))
            assert len(numbers) < 200


async def rest_of(client: trio.SocketStream) -> bytes:
    """What there is still to read, without the rest of the head."""
    raw = await read_to_end(client)
    return raw.partition(b"\r\n\r\n")[2]
