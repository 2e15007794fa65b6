"""One request's way through the framework, in the task that the server gave it."""

from __future__ import annotations

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart_trio.asgi import TrioASGIHTTPConnection


class RequestConnection(TrioASGIHTTPConnection):
    """The framework's own starts two tasks: one answers, one reads what the client sends.

    Here the first is the caller's task. A client that hangs up cancels it as before: it runs inside
    the nursery that the reader cancels.
    """

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer the request."""
        request = self._create_request_from_scope(send)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.handle_messages, nursery, request, receive)
            await self.handle_request(nursery, request, send)
