"""The one client of every measurement: a closed loop over channels, in one thread.

A channel is one conversation with one request out at a time: a pipe to an agent, or a kept HTTP
connection. The loop is the same for all, so that what differs is the other end. Times are those of
``perf_counter``, in seconds.
"""

from __future__ import annotations

import json
import select
import selectors
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final, Protocol

import attrs

PATIENCE_SECS: Final = 120.0
"""Past it a measurement fails: nothing here takes so long."""


@attrs.frozen
class Timing:
    """One request: when its first event came, and its end; seconds since it was sent."""

    first_secs: float
    total_secs: float


class Channel(Protocol):
    """One request out at a time."""

    def fileno(self) -> int:
        """What becomes readable when there is something of the answer."""

    def refresh(self) -> None:
        """Be ready again after a rest: a server may have closed what was idle."""

    def send(self) -> None:
        """Send the next request."""

    def take(self) -> tuple[bool, bool]:
        """Read what there is: whether the first event is there, whether the answer is whole."""


def drive(channels: Sequence[Channel], count: int) -> list[Timing]:
    """``count`` requests in all, each channel sending its next one when its last is answered."""
    done: list[Timing] = []
    began: dict[int, float] = {}
    firsts: dict[int, float] = {}
    left = count - len(channels)
    with selectors.DefaultSelector() as selector:
        for channel in channels:
            channel.refresh()
            selector.register(channel.fileno(), selectors.EVENT_READ, channel)
            began[channel.fileno()] = perf_counter()
            channel.send()
        while len(done) < count:
            ready = selector.select(PATIENCE_SECS)
            assert ready, "no answer"
            for key, _ in ready:
                has_first, is_whole = key.data.take()
                now = perf_counter()
                if has_first:
                    firsts.setdefault(key.fd, now)
                if not is_whole:
                    continue
                first = firsts.pop(key.fd, now) - began[key.fd]
                done.append(Timing(first, now - began[key.fd]))
                if left > 0:
                    left -= 1
                    began[key.fd] = perf_counter()
                    key.data.send()
                else:
                    selector.unregister(key.fd)
    return done


class PipeChannel:
    """An ACP agent with nobody in between."""

    def __init__(self, process: subprocess.Popen[bytes], session_id: str, prompt: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._stdin, self._stdout = process, process.stdin, process.stdout
        blocks = [{"type": "text", "text": prompt}]
        params = {"sessionId": session_id, "prompt": blocks}
        request = {"jsonrpc": "2.0", "id": 7, "method": "session/prompt", "params": params}
        self._request = json.dumps(request).encode() + b"\n"
        self._rest = b""

    def fileno(self) -> int:
        """The agent's output."""
        return self._stdout.fileno()

    def refresh(self) -> None:
        """A pipe stays."""

    def send(self) -> None:
        """Ask."""
        self._stdin.write(self._request)
        self._stdin.flush()

    def take(self) -> tuple[bool, bool]:
        """Read lines; the last one is the response, parsed like the others."""
        chunk = self._stdout.read1(1 << 20)  # type: ignore[attr-defined]  # a BufferedReader
        assert chunk, "the agent has ended"
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        messages = [json.loads(line) for line in lines]
        is_whole = any("result" in message for message in messages)
        return bool(messages), is_whole


class HttpChannel:
    """A kept HTTP/1.1 connection that sends one and the same request."""

    def __init__(self, address: tuple[str, int], request: bytes, *, is_stream: bool) -> None:
        self._address = address
        self._socket = self._connect()
        self.request, self._is_stream = request, is_stream
        self._held = b""
        self._tail = b""
        self._has_first = False
        self.last_body = b""

    def _connect(self) -> socket.socket:
        connected = socket.create_connection(self._address, PATIENCE_SECS)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def refresh(self) -> None:
        """Connect again if the server has hung up."""
        is_readable, _, _ = select.select([self._socket], [], [], 0)
        if is_readable:  # nothing was asked, so this is the end
            self._socket.close()
            self._socket = self._connect()

    def fileno(self) -> int:
        """The connection."""
        return self._socket.fileno()

    def send(self) -> None:
        """Ask."""
        self._held = self._tail = b""
        self._has_first = False
        self._socket.sendall(self.request)

    def take(self) -> tuple[bool, bool]:
        """Read; a stream's end is its last chunk, any other's its length."""
        chunk = self._socket.recv(1 << 20)
        assert chunk, "the server hung up"
        if self._is_stream and self._has_first:  # only the end is of interest: keep nothing
            self._tail = (self._tail + chunk)[-8:]
            return True, self._tail.endswith(b"0\r\n\r\n")
        self._held += chunk
        head, found, body = self._held.partition(b"\r\n\r\n")
        if not found:
            return False, False
        is_right = b" 200 " in head[:20]
        if self._is_stream and is_right:
            self._has_first = b"data:" in body or b"\n{" in body
            self._tail = body[-8:]
            return self._has_first, body.endswith(b"0\r\n\r\n")
        self.last_body = body
        is_whole = len(body) >= _length(head)
        assert is_right or not is_whole, self._held
        return False, is_whole


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise AssertionError("an answer without a length")


def request_bytes(
    method: str,
    path: str,
    *,
    headers: Sequence[tuple[str, str]] = (),
    body: object = None,
) -> bytes:
    """One HTTP/1.1 request, whole."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", *(f"{n}: {v}" for n, v in headers)]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


@attrs.frozen
class Caller:
    """Requests to one server, each on a connection of its own unless ``kept`` gives one."""

    address: tuple[str, int]
    headers: tuple[tuple[str, str], ...] = ()

    def __call__(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401  # JSON
        """The answer's body, parsed."""
        request = request_bytes(method, path, headers=self.headers, body=body)
        with self.channel(request) as channel:
            drive([channel], 1)
            return json.loads(channel.last_body)

    @contextmanager
    def kept(self) -> Iterator[Callable[[str, str, object], Any]]:
        """Ask again and again on one connection."""
        with self.channel(b"") as channel:

            def ask(method: str, path: str, body: object) -> Any:  # noqa: ANN401  # JSON
                channel.request = request_bytes(method, path, headers=self.headers, body=body)
                drive([channel], 1)
                return json.loads(channel.last_body)

            yield ask

    @contextmanager
    def channel(self, request: bytes, *, is_stream: bool = False) -> Iterator[HttpChannel]:
        """A connection for one request, again and again."""
        channel = HttpChannel(self.address, request, is_stream=is_stream)
        try:
            yield channel
        finally:
            channel.close()
