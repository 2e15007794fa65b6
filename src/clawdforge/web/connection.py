"""One request's way through the framework, in the task that the server gave it."""

from __future__ import annotations

from typing import cast

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart import Response
from quart_trio.asgi import TrioASGIHTTPConnection

from clawdforge.web.reply import Reply, Send


class RequestConnection(TrioASGIHTTPConnection):
    """The framework's own starts two tasks: one answers, one reads what the client sends.

    Here there are none. The body is read by who wants it (``web.inflow``), and that the client has
    gone is heard by the edge, which cancels the task that this runs in.
    """

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Answer the request."""
        request = self._create_request_from_scope(send)
        answer: object = await self.app.handle_request(request)
        if isinstance(answer, Reply):
            await answer.send(cast("Send", send))
        else:
            await self._send_response(send, cast("Response", answer))
