"""A request's body handed on piece by piece, with back pressure: for bodies too large to keep.

The framework keeps a whole body in memory and knows no back pressure. For the routes named in
:data:`STREAMED` the edge puts the pieces in here instead. The rule: what the handler has not taken
is not read from the socket, but for a few pieces; once the answer has begun, the rest is discarded.
"""

from __future__ import annotations

from typing import Final

import trio

from clawdforge.errors import BodyTooSlow

STREAMED: Final = frozenset({("POST", "/files")})
"""Method and path of the routes that take their bodies in pieces."""

PIECES: Final = 4
"""Pieces that may wait for the handler. The server's are 64 KiB at most."""

PIECE_SECS: Final = 60.0
"""How long the next piece of a body may take to arrive; then 408."""


class Inflow:
    """The body of one request. The edge puts, one handler takes."""

    def __init__(self) -> None:
        self._put, self._take = trio.open_memory_channel[bytes](PIECES)

    async def put(self, piece: bytes, *, is_last: bool) -> None:
        """Hand on one piece. Waits while the handler has enough; a no-op when it takes no more.

        Unbounded by itself: the handler is bounded, and its answer closes this.
        """
        try:
            if piece:
                await self._put.send(piece)
        except trio.BrokenResourceError:
            pass
        if is_last:
            self._put.close()

    def close(self) -> None:
        """Nothing more is taken. Idempotent."""
        self._take.close()

    def __aiter__(self) -> Inflow:
        """The body, each piece once."""
        return self

    async def __anext__(self) -> bytes:
        """The next piece. Raises BodyTooSlow when it does not come in time."""
        try:
            with trio.fail_after(PIECE_SECS):
                return await self._take.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        except trio.TooSlowError:
            raise BodyTooSlow from None
