"""A request's body, taken from the server when the handler wants it: whole, or piece by piece.

The framework would collect it in a task of its own, as fast as it comes and with no back pressure.
The rule: what nobody has asked for is not read from the socket, but for the few pieces that the
server holds; so a client is held back by TCP, and an answer that comes early keeps nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import trio

from clawdforge.errors import BodyTooSlow, TooLarge

STREAMED: Final = frozenset({("POST", "/files")})
"""Method and path of the routes that take their bodies in pieces: nothing of them is kept."""

PIECE_SECS: Final = 60.0
"""How long the next piece of such a body may take to arrive; then 408."""

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Inflow:
    """The body of one request. One task takes from it at a time."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_broken = False
        self.has_ended = False

    async def take(self) -> bytes:
        """What comes next; nothing when it has ended. Unbounded: the caller has the deadline."""
        if self.has_ended:
            return b""
        message = await self._receive()
        self._is_broken = message["type"] == "http.disconnect"
        self.has_ended = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece

    async def whole(self, *, declared_bytes: int | None, max_bytes: int) -> bytes:
        """All of it. Raises TooLarge, at once where the request says its length.

        Unbounded by itself, as ``take`` is. A client that leaves half-way has its request
        cancelled: half a body is nobody's.
        """
        if declared_bytes is not None and declared_bytes > max_bytes:
            raise TooLarge("body", max_bytes)
        body = bytearray()
        while not self.has_ended:
            body += await self._take_sound()
            if len(body) > max_bytes:
                raise TooLarge("body", max_bytes)
        return bytes(body)

    def __aiter__(self) -> Inflow:
        """The body, piece by piece."""
        return self

    async def __anext__(self) -> bytes:
        """The next piece. Raises BodyTooSlow when it does not come in time."""
        if self.has_ended:
            raise StopAsyncIteration
        try:
            with trio.fail_after(PIECE_SECS):
                return await self._take_sound()
        except trio.TooSlowError:
            raise BodyTooSlow from None

    async def _take_sound(self) -> bytes:
        piece = await self.take()
        if self._is_broken:
            await trio.sleep_forever()  # the edge is about to cancel us
        return piece
