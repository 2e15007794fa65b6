"""HTTP/1.1 by hand: a client that sends any bytes and reads one whole answer, bounded."""

from __future__ import annotations

import json
import socket
from types import TracebackType
from typing import Any, Final

import attrs

PATIENCE_SECS: Final = 30.0
"""The longest that any answer may take: beyond it the server hangs."""

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024


class NoAnswer(Exception):
    """The server closed or reset the connection before its answer was whole."""


@attrs.frozen
class Answer:
    """One answer, its header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """One connection after the other to one server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._buffer = bytearray()

    def __enter__(self) -> Caller:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connection, if there is one."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._buffer.clear()

    def ask(self, request: bytes, *, has_body: bool = True) -> Answer:
        """Send a request and read its answer; ``has_body`` is False for HEAD. Raises NoAnswer."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), PATIENCE_SECS)
        try:
            self._socket.sendall(request)
            answer = self._read_answer(has_body=has_body)
        except (ConnectionError, EOFError) as error:
            self.hang_up()
            raise NoAnswer from error
        if answer.headers.get("connection", "").lower() == "close":
            self.hang_up()
        return answer

    def _read_answer(self, *, has_body: bool) -> Answer:
        while True:
            status, headers = self._read_head()
            if status >= 200:  # an interim answer (100 Continue) comes before the real one
                break
        if not has_body or status == 204:
            return Answer(status, headers, b"")
        if "content-length" in headers:
            return Answer(status, headers, self._read(int(headers["content-length"])))
        body = bytearray()
        while size := int(self._read_line(), 16):
            body += self._read(size)
            self._read_line()
        self._read_line()
        return Answer(status, headers, bytes(body))

    def _read_head(self) -> tuple[int, dict[str, str]]:
        status = int(self._read_line().split(b" ")[1])
        headers = {}
        while line := self._read_line():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return status, headers

    def _read_line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._more()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _more(self) -> None:
        assert self._socket is not None
        assert len(self._buffer) < MAX_ANSWER_BYTES
        chunk = self._socket.recv(65536)
        if not chunk:
            raise EOFError
        self._buffer += chunk
