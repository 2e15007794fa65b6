"""The ASGI application around the framework: it bounds every request and cures the known faults.

Its duties, each for a reason measured on hypercorn 0.18 with quart-trio 0.12 and 0.13:

- the *wedge*: hypercorn recycles a connection inside the application's last ``send``, and says
  ``http.disconnect`` while it does; the framework would cancel the very task that is recycling, and
  the connection hangs for ever. So the word that a client has gone comes to the edge itself, at
  once (:data:`HANGUP`), and once the last body message is on its way it is passed over.
- an *early answer* (401, 404, 413 before the body is read) would reset the connection under the
  client's hands, which may then never see the answer: the last message is held back until the rest
  of the body has come, within bounds.
- a handler's time is not bounded by anybody: the edge does it, around everything.
- a request with both Content-Length and Transfer-Encoding is how requests are smuggled past a
  proxy, CONNECT and WebSocket are not spoken here: refused before anything reads them;
- large bodies are let in only as many as memory is meant to hold at once.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import attrs
import structlog
import trio

from clawdforge.config import MIB, Config
from clawdforge.domain.admission import RETRY_DRAINING_SECS
from clawdforge.errors import ClawdforgeError, ShuttingDown
from clawdforge.web.outflow import Outflow
from clawdforge.web.problems import (
    CONTENT_TYPE,
    OUR_BUG,
    UNROUTED,
    Problem,
    describe_error,
    describe_status,
)
from clawdforge.web.reply import Reply
from clawdforge.web.trace import Trace
from clawdforge.web.weight import Scales

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

HANGUP: Final = "clawdforge.hangup"
"""The ASGI extension that our connections offer: called with what is to be called when the client
goes. A task that waits for ``http.disconnect`` costs a request half as much again."""

LINGER_SECS: Final = 5.0
LINGER_BYTES: Final = 64 * 1024 * 1024
"""How long, and how much of, the rest of a body is taken after an early answer."""

STALL_SECS: Final = 30.0
"""A client that takes nothing of a live answer for so long is cut off (HTTP contract, part 2)."""

WORD_SECS: Final = 2.0
"""How long it may take to tell it so."""

_FRAMEWORKS: Final = frozenset({b"content-length", b"content-type"})

_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~%!$&'()*+,;=-]*|\[[0-9A-Za-z:.]+\])(?::[0-9]*)?")
"""A Host header (RFC 9110, 7.2); anything else is 400 (RFC 9112, 3.2)."""

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def request_secs(config: Config) -> float:
    """The longest a request may take: the longest turn, its start and end, its body both ways."""
    return config.max_timeout_secs + config.start_secs + config.cancel_grace_secs + 180


class Edge:
    """ASGI in, ASGI out. One per server."""

    def __init__(
        self,
        app: Asgi,
        *,
        bound_secs: float,
        stall_secs: float = STALL_SECS,
        max_body_bytes: int = 16 * MIB,
    ) -> None:
        self._app = app
        self._scales = Scales(max_body_bytes)
        self._bound_secs = bound_secs
        self._stall_secs = stall_secs
        self._exchanges: set[Exchange] = set()
        self._log = structlog.get_logger("clawdforge.access").bind()  # once, not for every line

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        match scope["type"]:
            case "http":
                await self._serve_request(scope, receive, send)
            case "lifespan":
                await serve_lifespan(receive, send)
            case _:
                await _refuse_websocket(send)

    async def wait_answered(self) -> None:
        """Wait until the requests that are here now have been answered. The caller bounds it."""
        for exchange in list(self._exchanges):
            await exchange.is_over.wait()

    def end_streams(self) -> None:
        """Have the live answers end, with a word, that would go on for ever; turns go on."""
        for exchange in self._exchanges:
            if exchange.trace.outflow is not None:
                exchange.trace.outflow.drain()

    def cancel_requests(self) -> None:
        """End every request that has no answer yet: 503, the server is shutting down."""
        for exchange in self._exchanges:
            if exchange.trace.status is None:
                exchange.trace.patience.end(ShuttingDown(RETRY_DRAINING_SECS))

    def call_off_streams(self) -> None:
        """Have every live answer end now, with a word."""
        for exchange in self._exchanges:
            if exchange.trace.outflow is not None:
                exchange.trace.outflow.call_off()

    async def _serve_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        trace = Trace.begin(scope, secrets.token_hex(8), receive)
        exchange = Exchange(trace, send, self._stall_secs)
        began_at = trio.current_time()
        scope["extensions"][HANGUP](exchange.hang_up)
        weight = self._scales.weigh(scope, trace)
        problem = find_policy_fault(scope, trace) or self._scales.find_no_room(weight)
        carried = 0 if problem else weight  # nothing is kept of a body that is refused
        self._scales.bytes += carried
        self._exchanges.add(exchange)
        try:
            await self._bound(scope, exchange, receive, problem)
        finally:
            self._scales.bytes -= carried
            trace.leavings.settle()
            self._exchanges.discard(exchange)
            exchange.is_over.set()
            self._log.info(
                "request",
                request_id=trace.request_id,
                method=scope["method"],
                route=trace.route,
                status=trace.status,
                app=trace.app or None,
                peer=trace.peer,
                ms=round((trio.current_time() - began_at) * 1000),
            )

    async def _bound(
        self, scope: Scope, exchange: Exchange, receive: Receive, problem: Problem | None
    ) -> None:
        trace = exchange.trace
        if problem is None:
            trace.patience.begin(self._bound_secs)
            try:
                with trace.patience.scope as bound:
                    await self._app(for_framework(scope, trace), receive, exchange.send)
            except Exception as error:  # noqa: BLE001 - the last line before the server's own log
                self._log.error("edge failed", error=type(error).__name__)
                problem = describe_error(error)
            if bound.cancelled_caught:
                problem = describe_error(trace.patience.otherwise)
        if problem is not None and trace.status is None and not exchange.is_gone:
            with trio.move_on_after(2 * LINGER_SECS):
                await exchange.refuse(problem)


@attrs.define(eq=False)
class Exchange:
    """One request and its response, as they pass the edge."""

    trace: Trace
    _send: Send
    _stall_secs: float
    is_over: trio.Event = attrs.field(factory=trio.Event)
    is_gone: bool = False
    _is_finishing: bool = False

    def hang_up(self) -> None:
        """The client has gone, or the connection is done with the request: it ends now.

        Once the last of the answer is on its way this is the server tidying up, from within our own
        last ``send``: to cancel that would wedge the connection.
        """
        if not self._is_finishing:
            self.is_gone = True
            self.trace.patience.scope.cancel()

    async def send(self, message: Message) -> None:
        """What the framework writes."""
        if message["type"] == "http.response.start":
            self._begin(message["status"])
            message["headers"] = [*message["headers"], *self._own_headers()]
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            if not self.trace.inflow.has_ended:
                await self._send({**message, "more_body": True})
                await self._take_rest()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            self._is_finishing = True
        if self.trace.outflow is None:
            await self._send(message)
        else:
            await self._send_piece(message, self.trace.outflow)

    async def _send_piece(self, message: Message, outflow: Outflow) -> None:
        """Write a piece of a live answer; a client that takes nothing for long gets one word."""
        await trio.lowlevel.checkpoint()  # a long answer leaves room for others
        with trio.move_on_after(WORD_SECS if outflow.is_stalled else self._stall_secs) as patience:
            await self._send(message)
        if patience.cancelled_caught:
            outflow.is_stalled = True

    def _begin(self, status: int) -> None:
        """The answer begins: nobody wants the body's rest. A live one ends by its own rules."""
        self.trace.status = status
        self.trace.patience.answer(is_live=self.trace.outflow is not None)

    async def _take_rest(self) -> None:
        """Take what the answer did not wait for of the request's body, within bounds.

        Closed under the client's hands instead, the connection would be reset, and the answer with
        it.
        """
        late_bytes = 0
        with trio.move_on_after(LINGER_SECS):
            while late_bytes <= LINGER_BYTES and (piece := await self.trace.inflow.take()):
                late_bytes += len(piece)

    async def refuse(self, problem: Problem) -> None:
        """Answer in the framework's place, and take the rest of the body as it would have."""
        body = problem.to_bytes(self.trace.route)
        await Reply(problem.status, CONTENT_TYPE, body, problem.headers).send(self.send)

    def _own_headers(self) -> list[tuple[bytes, bytes]]:
        """The request id: the caller's own, or ours with a failure of ours.

        It is not in every answer, so that refusals stay the same byte for byte.
        """
        given = [value for name, value in self.trace.headers if name == "x-request-id"]
        if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]):
            return [(b"x-request-id", given[0].encode())]
        if self.trace.status is not None and self.trace.status >= OUR_BUG.status:
            return [(b"x-request-id", self.trace.request_id.encode())]
        return []


def find_policy_fault(scope: Scope, trace: Trace) -> Problem | None:
    """What is refused before anything reads it, if this is."""
    if scope["method"] == "CONNECT":
        return describe_status(405)
    names = {name for name, _ in trace.headers}
    if "content-length" in names and "transfer-encoding" in names:
        # Where the request ends is in doubt, and so is where the next one would begin.
        return describe_status(400, (("connection", "close"),))
    hosts = {value for name, value in trace.headers if name == "host"}
    if len(hosts) > 1 or any(_HOST.fullmatch(host) is None for host in hosts):
        return describe_status(400)
    return None


def for_framework(scope: Scope, trace: Trace) -> Scope:
    """The scope with the headers that the framework reads: all others are read from the trace.

    It also gets a Host that it can take: it parses it, and fails on long names.
    """
    headers = [(name, value) for name, value in scope["headers"] if name.lower() in _FRAMEWORKS]
    framed = {**scope, "headers": [*headers, (b"host", b"localhost")]}
    trace.put_into(framed)
    return framed


async def refuse_early(scope: Scope, receive: Receive, send: Send, error: ClawdforgeError) -> None:
    """Answer a request that there is no application for."""
    if scope["type"] != "http":
        await _refuse_websocket(send)
        return
    trace = Trace.begin(scope, secrets.token_hex(8), receive)
    exchange = Exchange(trace, send, STALL_SECS)
    await exchange.refuse(describe_error(error))


async def _refuse_websocket(send: Send) -> None:
    problem = describe_status(426)
    headers = [(b"content-type", CONTENT_TYPE.encode())]
    await send(
        {
            "type": "websocket.http.response.start",
            "status": problem.status,
            "headers": headers,
        }
    )
    body = problem.to_bytes(UNROUTED)
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})


async def serve_lifespan(receive: Receive, send: Send) -> None:
    """Say yes to the server's start and stop: nothing of ours lives in its lifespan task."""
    while True:
        message = await receive()  # unbounded: the server says when it stops
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
