"""A client of our own HTTP interface, for ``demo``: the standard library, one connection a call.

It speaks to a loopback address only and looks at no proxy setting.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
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
        with self._asking(method, path, body, "application/json") as response:
            answer: dict[str, Any] = json.loads(response.read())
        return answer

    def stream(self, path: str, body: object) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events of a POST that streams, as they come: kind and data. Raises as ``call``."""
        with self._asking("POST", path, body, "application/x-ndjson") as response:
            while line := response.readline():
                event = json.loads(line)
                if event["event"] == "error":
                    raise RefusedError(event["data"]["detail"])
                yield event["event"], event["data"]

    @contextmanager
    def _asking(
        self, method: str, path: str, body: object, accept: str
    ) -> Iterator[http.client.HTTPResponse]:
        """Ask, and have the answer in the block. Raises RefusedError, OSError."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=TIMEOUT_SECS)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {**self._headers, "Accept": accept})
            response = connection.getresponse()
            if response.status != http.client.OK:
                answer = json.loads(response.read())
                raise RefusedError(f"{response.status}: {answer.get('detail', answer)}")
            yield response
        finally:
            connection.close()
