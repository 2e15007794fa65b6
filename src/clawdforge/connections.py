"""TCP connections under Hypercorn: two things that its trio worker lacks.

- *Bounded sends.* It shields every send without a deadline, so that a client which does not read
  holds up a shutdown for ever. Here a cancelled send has :data:`FLUSH_SECS` to finish what it has
  begun, and then the connection is cut.
- *A cap.* It takes any number of connections; each is a file descriptor, and agents need some too
  (``domain.limits`` says how many).

:func:`install_bounded_connections` puts our class in the place of Hypercorn's own: there is no
other way in. A test holds Hypercorn to the shape that this was written for (0.18).
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, Final, cast

import hypercorn.trio.run
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.tcp_server import TCPServer

from clawdforge.domain.limits import MAX_CONNECTIONS
from clawdforge.web.problems import CONTENT_TYPE, UNROUTED, Kind, Problem

FLUSH_SECS: Final = 2.0
"""What a send gets to finish in once it is cancelled."""

_TURN_AWAY_SECS: Final = 1.0


class ServerConfig(HypercornConfig):
    """Hypercorn's settings, and the count that belongs to one server."""

    max_connections: int = MAX_CONNECTIONS
    open_connections: int = 0


class BoundedTCPServer(TCPServer):
    """One connection."""

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
        """Send; when cancelled, finish within FLUSH_SECS or cut the connection."""
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            try:
                await send_bounded(_stream_of(self), event.data)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                await self.protocol.handle(Closed())


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
            rest = rest[await stream.socket.send(rest) :]
    except trio.Cancelled:
        with trio.move_on_after(FLUSH_SECS, shield=True), suppress(OSError):
            # What is held back to bound the kernel's buffer (listening.UNSENT_BYTES) fits in now.
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0)
            while rest:
                rest = rest[await stream.socket.send(rest) :]
        if rest:
            await trio.aclose_forcefully(stream)
        raise


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
    # The module does not export the name; it looks it up for every server that it starts.
    hypercorn.trio.run.TCPServer = BoundedTCPServer  # type: ignore[attr-defined]
