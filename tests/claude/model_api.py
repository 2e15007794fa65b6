"""A stand-in of Anthropic's Messages API on loopback: what the real Claude parts talk to in tests.

A test says what the model answers, in order; the stand-in sends it as the API's event stream and
keeps what it was asked. Only requests that carry tools are the conversation: the CLI asks for
titles and counts besides, and gets fixed answers to those. Source of the event shapes: Anthropic's
Messages API, "Streaming messages".
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import attrs

HANG_SECS: Final = 120.0
"""The longest a hanging connection is held; the test's end lets go of it sooner."""


@attrs.frozen
class Say:
    """The model answers with a text and ends its turn."""

    text: str


@attrs.frozen
class Use:
    """The model asks for a tool."""

    tool: str
    arguments: Mapping[str, Any]


@attrs.frozen
class Refuse:
    """The API answers with an error status."""

    status: int
    kind: str
    message: str


@attrs.frozen
class Hang:
    """The API takes the request and says nothing."""


Reply = Say | Use | Refuse | Hang


class ModelApi:
    """The stand-in: ``will`` queues answers, ``asked`` are the bodies of the conversation so far.

    Past the queue the last answer is given again: the CLI repeats what failed.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.hanging = threading.Event()
        """Set while a request is held."""
        self._replies: list[Reply] = [Say("hello")]
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """For ``ANTHROPIC_BASE_URL``."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def will(self, *replies: Reply) -> None:
        """Say what the model answers next, in order; forget what it was asked."""
        with self._lock:
            self._replies = list(replies)
            self.asked.clear()
            self.hanging.clear()

    def answer(self, body: dict[str, Any]) -> Reply:
        """The answer to one request."""
        if not body.get("tools"):
            return Say("a side remark")
        with self._lock:
            self.asked.append(body)
            return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]

    def hold(self) -> None:
        """Keep a request waiting until the test is over."""
        self.hanging.set()
        self._released.wait(HANG_SECS)

    @contextmanager
    def serving(self) -> Iterator[ModelApi]:
        """Answer on a thread of its own around the body."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._released.set()
            self._server.shutdown()
            thread.join(10)
            self._server.server_close()


def _handler_of(api: ModelApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if "count_tokens" in self.path:
                self._send(200, "application/json", b'{"input_tokens":10}')
                return
            match api.answer(body):
                case Hang():
                    api.hold()
                    self.close_connection = True
                case Refuse(status, kind, message):
                    error = {"type": "error", "error": {"type": kind, "message": message}}
                    self._send(status, "application/json", json.dumps(error).encode())
                case (Say() | Use()) as reply:
                    events = "".join(
                        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
                        for event in stream_of(reply, body["model"])
                    )
                    self._send(200, "text/event-stream", events.encode())

        def do_GET(self) -> None:
            self._send(404, "application/json", b"{}")

        def do_HEAD(self) -> None:
            self._send(404, "application/json", b"")

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def stream_of(reply: Say | Use, model: str) -> Sequence[dict[str, Any]]:
    """The events of one answer, from ``message_start`` to ``message_stop``."""
    if isinstance(reply, Say):
        block: dict[str, Any] = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": reply.text}
        stop_reason = "end_turn"
    else:
        block = {"type": "tool_use", "id": "toolu_01", "name": reply.tool, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(dict(reply.arguments))}
        stop_reason = "tool_use"
    message: dict[str, Any] = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 1},
    }
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop_reason, "stop_sequence": None},
            "usage": {"output_tokens": 5},
        },
        {"type": "message_stop"},
    ]
