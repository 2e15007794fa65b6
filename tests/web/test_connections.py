"""What becomes of idle connections, over real sockets."""

from __future__ import annotations

import trio

from tests.processes.trees import open_files, until
from tests.web.stage import FakeService
from tests.web.test_server import serving

REQUEST = b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n"


async def ask(stream: trio.SocketStream) -> bytes:
    """One request on a connection that stays open; its whole answer."""
    await stream.send_all(REQUEST)
    answer = b""
    while not answer.endswith(b"}"):
        answer += await stream.receive_some(1024)
    return answer


async def test_a_connection_that_its_client_closed_is_gone() -> None:
    """An idle connection is no descriptor of ours once the client has left it."""
    async with serving(FakeService()) as (_, port, _ended):
        before = open_files()
        for _ in range(5):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                assert b"200" in await ask(stream)
        await until(lambda: open_files() <= before)


async def test_an_idle_connection_is_closed_when_the_server_ends() -> None:
    """A client that keeps its connection does not keep the server."""
    async with (
        serving(FakeService()) as (stopping, port, ended),
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        assert b"200" in await ask(stream)
        stopping.asked.set()
        await ended.wait()
        assert await stream.receive_some(1) == b""


async def test_a_connection_serves_one_request_after_another() -> None:
    """The watch for idleness is one for the whole connection, and lets every request through."""
    async with (
        serving(FakeService()) as (_, port, _ended),
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        for _ in range(20):
            assert b"200" in await ask(stream)
