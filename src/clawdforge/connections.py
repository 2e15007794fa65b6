"""TCP connections under Hypercorn: what its trio worker lacks.

- *Bounded sends.* It shields every send without a deadline, so that a client which does not read
  holds up a shutdown for ever. Here a cancelled send has :data:`FLUSH_SECS` to finish what it has
  begun, and then the connection is cut.
- *An end.* A connection that its client has closed between two requests would stay until it had
  been idle long enough; here it is gone at once. One task watches a connection for idleness, in
  place of one started and cancelled for every request.
- *A cap.* It takes any number of connections; each is a file descriptor, and agents need some too
  (``domain.limits`` says how many).

:func:`install_bounded_connections` puts our class in the place of Hypercorn's own: there is no
other way in. A test holds Hypercorn to the shape that this was written for (0.18).
"""

from __future__ import annotations

import os
import re
import socket
import time
from contextlib import suppress
from typing import Any, Final, cast

import hypercorn.trio.run
import hypercorn.trio.tcp_server
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, LifespanState

from clawdforge.at_once import acquire
from clawdforge.domain.limits import MAX_CONNECTIONS
from clawdforge.handover import PromptTaskGroup
from clawdforge.parser_refusals import with_problem
from clawdforge.web.problems import CONTENT_TYPE, UNROUTED, Kind, Problem

FLUSH_SECS: Final = 2.0
"""What a send gets to finish in once it is cancelled."""

_TURN_AWAY_SECS: Final = 1.0

_BODY_FOLLOWS: Final = re.compile(
    rb"HTTP/1\.1 [2-5][0-9][0-9] \r\n(?:[^\r\n]+\r\n)*?content-length: [1-9]", re.IGNORECASE
)
"""The head of an answer that tells the length of its body: Hypercorn sends that, or the body's end,
in the same breath, and both go out in one piece. In two, the client would be woken twice."""


class ServerConfig(HypercornConfig):
    """Hypercorn's settings, and the count that belongs to one server."""

    max_connections: int = MAX_CONNECTIONS
    open_connections: int = 0
    _dated: tuple[int, list[tuple[bytes, bytes]]] = (0, [])

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        """Hypercorn's own, made once a second: the date is all that changes."""
        second = int(time.time())
        if self._dated[0] != second:
            self._dated = (second, super().response_headers(protocol))
        return self._dated[1]


class IdleWatch:
    """Closes one connection that has been idle for too long, or when the server ends meanwhile.

    Takes the place of Hypercorn's ``TrioSingleTask``, and has its two methods.
    """

    def __init__(self, server: BoundedTCPServer) -> None:
        self._server = server
        self._patience = trio.CancelScope()
        self._is_watching = self._has_ended = False
        self._idle_since: float | None = None

    async def restart(self, task_group: TaskGroup, _action: object) -> None:
        """The connection is idle from now on."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._idle_since = trio.current_time()
        if not self._is_watching:
            self._is_watching = True
            task_group.spawn(self._watch)

    async def stop(self) -> None:
        """A request has come."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._idle_since = None

    def end(self) -> None:
        """The client has gone: there is nothing to watch."""
        self._has_ended = True
        self._patience.cancel()

    async def _watch(self) -> None:
        """Look when the time may be up, instead of moving a deadline with every request."""
        terminated = self._server.context.terminated
        while (left_secs := self._left_secs()) > 0 and not terminated.is_set():
            self._patience = trio.CancelScope(deadline=trio.current_time() + left_secs)
            with self._patience:
                await terminated.wait()
        if not self._has_ended and self._idle_since is not None:
            with trio.CancelScope(shield=True):  # bounded: nothing is being sent
                await self._server.protocol.handle(Closed())
                await self._server.stream.aclose()

    def _left_secs(self) -> float:
        """How long it is at least until the connection has been idle for too long."""
        if self._has_ended:
            return 0.0
        now = trio.current_time()
        since = now if self._idle_since is None else self._idle_since
        return float(self._server.config.keep_alive_timeout) - (now - since)


class BoundedTCPServer(TCPServer):
    """One connection."""

    def __init__(
        self,
        app: AppWrapper,
        config: HypercornConfig,
        context: WorkerContext,
        state: LifespanState,
        stream: trio.SSLStream[trio.SocketStream],
    ) -> None:
        super().__init__(app, config, context, state, stream)
        self._watch = IdleWatch(self)
        self.idle_task = cast("Any", self._watch)
        self._head = b""

    async def _read_data(self) -> None:
        """Until the client's end. Hypercorn's own sets a deadline a read, which is never ours."""
        try:
            while (data := await self._receive()) is not None:
                await self.protocol.handle(RawData(data))
                if not data:
                    break
            await self.protocol.handle(Closed())
        finally:
            self._watch.end()

    async def _receive(self) -> bytes | None:
        """What has come; empty at the client's end, None when the connection is broken."""
        try:
            return bytes(await self.stream.receive_some(MAX_RECV))
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            return None

    async def run(self) -> None:
        """Serve the connection to its end; past the cap, answer 503 and close it."""
        config = cast("ServerConfig", self.config)  # or a plain one, under the hypercorn command
        count = getattr(config, "open_connections", 0)
        if count >= getattr(config, "max_connections", MAX_CONNECTIONS):
            await turn_away(_stream_of(self))
            return
        config.open_connections = count + 1
        try:
            await super().run()
        finally:
            config.open_connections -= 1

    async def protocol_send(self, event: Event) -> None:
        """Send; when cancelled, finish within FLUSH_SECS or cut the connection.

        A head whose body is about to come is held until then.
        """
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        if _BODY_FOLLOWS.match(event.data):
            self._head = event.data
            return
        data, self._head = self._head + event.data, b""
        if not data:  # the end of a body whose length was told
            return
        await acquire(self.send_lock)  # a request that is cancelled says no more
        try:
            await send_bounded(_stream_of(self), with_problem(data))
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            await self.protocol.handle(Closed())
        finally:
            self.send_lock.release()


def _stream_of(server: TCPServer) -> trio.SocketStream:
    """The plain stream: TLS is the business of a proxy, and is never switched on here."""
    return cast("trio.SocketStream", cast("Any", server.stream))


async def send_bounded(stream: trio.SocketStream, data: bytes) -> None:
    """Send it all. Waits as long as the peer takes something (``TCP_USER_TIMEOUT`` sees to that).

    Cancelled half-way, it goes on for FLUSH_SECS, because a part of a frame is worse than none, and
    then cuts the connection. Raises OSError, BrokenResourceError, ClosedResourceError.
    """
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[await _send_some(stream.socket, rest) :]
    except trio.Cancelled:
        with trio.move_on_after(FLUSH_SECS, shield=True), suppress(OSError):
            # Trio lets 16 KiB lie unsent in the kernel. There is room for more: the rest goes in,
            # and what is said after it, for a client that comes back to its connection.
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0)
            while rest:
                rest = rest[await _send_some(stream.socket, rest) :]
        if rest:
            await trio.aclose_forcefully(stream)
        raise


async def _send_some(peer: trio.socket.SocketType, data: memoryview) -> int:
    """Send what goes in now, and how much that was; waits only when nothing does.

    Trio's own way costs two turns of the loop for each piece of an answer.
    """
    while True:
        try:
            return os.write(peer.fileno(), data)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(peer)


async def turn_away(stream: trio.SocketStream) -> None:
    """Answer a connection over the cap with 503 and close it, within a second."""
    problem = Problem(Kind(503, "Too many connections"), "this server has no connection to spare")
    body = problem.to_bytes(UNROUTED)
    head = (
        "HTTP/1.1 503 Service Unavailable\r\n"
        f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n"
        "Retry-After: 1\r\nConnection: close\r\n\r\n"
    )
    async with stream:
        with trio.move_on_after(_TURN_AWAY_SECS), suppress(OSError, trio.BrokenResourceError):
            await stream.receive_some(65536)  # unread bytes would turn the close into a reset
            await stream.send_all(head.encode() + body)


def install_bounded_connections() -> None:
    """Make Hypercorn's trio worker use our class. For the whole process; repeating it is fine."""
    # The modules do not export the names; they look them up for every connection.
    hypercorn.trio.run.TCPServer = BoundedTCPServer  # type: ignore[attr-defined]
    hypercorn.trio.tcp_server.TaskGroup = PromptTaskGroup  # type: ignore[attr-defined]
