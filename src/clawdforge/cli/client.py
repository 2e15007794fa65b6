"""A client of our own HTTP interface, for ``demo``: the standard library, one connection a call.

It speaks to a loopback address only and looks at no proxy setting.
"""

from __future__ import annotations

import http.client
import json
from typing import Any, Final
from urllib.parse import urlsplit

TIMEOUT_SECS: Final = 180.0
"""Longer than the first start of an agent on a slow machine."""


class RefusedError(Exception):
    """The server answered with an error; the text is its own."""


class Client:
    """Calls one server in one app's name (or the admin's)."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The answer's JSON. Raises RefusedError, OSError."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=TIMEOUT_SECS)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, self._headers)
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise RefusedError(f"{response.status}: {answer.get('detail', answer)}")
        return answer
