"""A whole answer, ready to be sent.

The framework's response is made to be changed on its way: a mapping of headers, a body to iterate
over. An answer of ours is whole when it is made, and goes out as it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import attrs

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@attrs.frozen
class Reply:
    """Status, media type, body, and the headers besides those that every answer has."""

    status: int
    content_type: str
    body: bytes = attrs.field(repr=False)
    headers: tuple[tuple[str, str], ...] = ()

    def start(self) -> MutableMapping[str, Any]:
        """The ASGI message that begins it."""
        headers = [
            (b"content-type", self.content_type.encode()),
            (b"content-length", b"%d" % len(self.body)),
            *((name.lower().encode(), value.encode()) for name, value in self.headers),
            (b"cache-control", b"no-store"),
        ]
        return {"type": "http.response.start", "status": self.status, "headers": headers}

    async def send(self, send: Send) -> None:
        """Send it, as a server's application does."""
        await send(self.start())
        await send({"type": "http.response.body", "body": self.body, "more_body": False})
