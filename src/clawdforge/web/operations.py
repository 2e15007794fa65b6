"""One operation of the API as a value, and how it becomes a route of the framework.

The rule: handlers are plain functions from a :class:`Call` to an answer; nothing but this module,
:mod:`.app` and :mod:`.edge` knows the framework. The order of refusals is always the same:
address, token, parameters, and only then the handler, within its bound.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, Literal, TypeVar

import attrs
from quart import Request, Response
from quart_trio import QuartTrio

from clawdforge.config import Config
from clawdforge.domain.access import Address
from clawdforge.domain.ids import AppName
from clawdforge.errors import BodyTooSlow, ClawdforgeError
from clawdforge.web.accept import JSON
from clawdforge.web.answers import Done, Page, to_json
from clawdforge.web.auth import authenticate_admin, authenticate_app
from clawdforge.web.bodies import Nothing
from clawdforge.web.forms import Form
from clawdforge.web.problems import CONTENT_TYPE, Flat, Problem
from clawdforge.web.reply import Reply
from clawdforge.web.service import Service
from clawdforge.web.streams import LiveStream
from clawdforge.web.trace import Trace
from clawdforge.web.wire import Reader

Asked = TypeVar("Asked")

View = Callable[..., Awaitable[Reply | Response]]
"""What answers the requests of a route: given the request, and the parameters of its path."""

Gate = Literal["open", "app", "admin"]
"""Whom a route lets in: anybody whose address may connect, an app, the admin."""

BODY_SECS: Final = 60.0
"""How long a body may take to arrive; then 408."""

SHORT_SECS: Final = 30.0
"""Bound of a route that only reads or writes the ledger: it takes milliseconds, or it is stuck."""


@attrs.frozen(kw_only=True)
class Call(Generic[Asked]):
    """One admitted request: who asks for what. ``app`` is empty on routes that are not an app's.

    ``trace`` has its headers, and what is to be done when it is over.
    """

    service: Service
    app: AppName
    asked: Asked
    path: Mapping[str, str]
    trace: Trace


@attrs.frozen
class Link:
    """What an answer is good for next (an OpenAPI link): the handler of another operation.

    ``parameters`` are that one's path parameters, ``body`` its body, as runtime expressions.
    """

    operation_id: str
    parameters: Mapping[str, str] = attrs.field(factory=dict)
    body: Mapping[str, Any] | None = None


@attrs.frozen(kw_only=True)
class Operation:
    """A method on a path. ``asks`` is its body class for POST, its query class for the others.

    With ``is_body_optional`` no body at all is one with nothing in it; with ``is_form`` the handler
    is given a :class:`Form` of that class instead, still to be read. ``bound_secs`` is the longest
    that the handler may take, by the settings. ``takes_key`` says that the handler reads the header
    Idempotency-Key.

    The rest is for the API description. ``example`` is a request's body, ``answer`` an example of
    the success, whose class is its schema. ``refusals`` are examples of what the handler refuses
    with, besides what any route may; ``failures`` are other bodies by status; ``also_answers`` are
    further media types of the success, with a word on each; ``headers`` are those that the handler
    reads besides.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    gate: Gate
    handle: Callable[[Call[Any]], Awaitable[object]]
    summary: str
    asks: type = Nothing
    is_form: bool = False
    is_body_optional: bool = False
    takes_key: bool = False
    bound_secs: Callable[[Config], float] = lambda _: SHORT_SECS
    example: Mapping[str, Any] | None = None
    answer: object = Done()
    refusals: Sequence[ClawdforgeError | Problem] = ()
    failures: Mapping[int, object] = attrs.field(factory=dict)
    also_answers: Mapping[str, str] = attrs.field(factory=dict)
    links: Sequence[Link] = ()
    headers: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def instance(self) -> str:
        """The path with the names of its parameters: the ``instance`` of its problems."""
        return self.path.replace("<", ":").replace(">", "")


def mount(app: QuartTrio, service: Service, reader: Reader, operation: Operation) -> None:
    """Make the operation a route."""

    async def view(request: Request, **path: str) -> Reply | Response:
        trace = Trace.of(request.scope)
        trace.route = operation.instance
        caller = await _let_in(service, operation.gate, trace)
        if operation.is_form:
            asked: object = _form(operation, service.config, reader, request, trace)
        else:
            trace.patience.allow(BODY_SECS, BodyTooSlow())
            asked = await _read(reader, operation, service.config, request, trace)
        call = Call(service=service, app=caller, asked=asked, path=path, trace=trace)
        trace.patience.allow(operation.bound_secs(service.config))
        return respond(await operation.handle(call), operation.instance)

    app.add_url_rule(
        operation.path,
        endpoint=f"{operation.method} {operation.path}",
        view_func=view,  # type: ignore[arg-type]  # what it gives is for our connection
        methods=[operation.method],
        provide_automatic_options=False,
    )


async def _let_in(service: Service, gate: Gate, trace: Trace) -> AppName:
    match gate:
        case "app":
            trace.app = await authenticate_app(service, trace.headers, _known(trace.address))
        case "admin":
            await authenticate_admin(service, trace.headers)
        case "open":
            pass
    return trace.app


def _known(address: Address | None) -> Address:
    assert address is not None, "the address gate comes before every view"
    return address


def _form(
    operation: Operation, config: Config, reader: Reader, request: Request, trace: Trace
) -> Form[object]:
    """The form, of which nothing has been read yet."""
    return Form(
        kind=operation.asks,
        reader=reader,
        content_type=request.headers.get("Content-Type", ""),
        declared_bytes=request.content_length,
        max_bytes=config.max_upload_bytes,
        pieces=trace.inflow,
    )


async def _read(
    reader: Reader, operation: Operation, config: Config, request: Request, trace: Trace
) -> object:
    """The body or the query, structured. Raises InvalidRequest and TooLarge."""
    if operation.method == "POST":
        raw = await trace.inflow.whole(
            declared_bytes=request.content_length, max_bytes=config.max_body_bytes
        )
        if not raw and (operation.is_body_optional or operation.asks is Nothing):
            return operation.asks()
        return reader.read_body(operation.asks, raw)
    if operation.gate == "open":
        return operation.asks()
    pairs: Sequence[tuple[str, str]] = list(request.args.items(multi=True))
    return reader.read_query(operation.asks, pairs)


def respond(answer: object, instance: str) -> Reply | Response:
    """What goes out for an answer, or for a problem that a handler returned."""
    match answer:
        case None:
            return Response(b"", 204, {"Cache-Control": "no-store"})
        case LiveStream():
            return _respond_live(answer)
        case Problem():
            return Reply(answer.status, CONTENT_TYPE, answer.to_bytes(instance), answer.headers)
        case Flat():
            return Reply(answer.status, JSON, to_json(answer.body))
        case Page():
            return Reply(200, answer.content_type, answer.body, answer.headers)
    return Reply(200, JSON, to_json(answer))


def _respond_live(stream: LiveStream) -> Response:
    """The response for a stream: without a bound of the framework's, and past any buffer."""
    response = Response(stream.pieces(), 200, content_type=stream.framing.media_type)
    response.timeout = None
    response.headers["Cache-Control"] = "no-store, no-transform"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would collect it otherwise
    response.headers.extend(dict(stream.headers))
    return response
