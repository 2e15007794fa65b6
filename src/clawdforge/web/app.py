"""The framework's application: all operations mounted, and every error a problem document.

Nothing runs in the framework's own nursery: it swallows errors. The ASGI application to serve is
:func:`make_edge`, never the bare framework.
"""

from __future__ import annotations

from typing import Any, Final, cast

import structlog
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from clawdforge.domain.access import AccessRules, admit
from clawdforge.errors import ClawdforgeError, TooLarge
from clawdforge.web import (
    cancelling,
    drain,
    events,
    files,
    health,
    history,
    permissions,
    run,
    sessions,
    tokens,
    turns,
)
from clawdforge.web.bodies import narrow
from clawdforge.web.connection import RequestConnection
from clawdforge.web.documents import with_documents
from clawdforge.web.edge import Asgi, Edge, request_secs
from clawdforge.web.operations import Operation, mount, respond
from clawdforge.web.problems import OUR_BUG, Problem, describe_error, describe_status
from clawdforge.web.service import Service
from clawdforge.web.trace import Trace
from clawdforge.web.wire import Reader

_log: Final = structlog.get_logger("clawdforge.web")

OPERATIONS: Final[tuple[Operation, ...]] = with_documents(
    (
        *health.OPERATIONS,
        *sessions.OPERATIONS,
        *turns.OPERATIONS,
        *cancelling.OPERATIONS,
        *history.OPERATIONS,
        *permissions.OPERATIONS,
        *events.OPERATIONS,
        *run.OPERATIONS,
        *files.OPERATIONS,
        *tokens.OPERATIONS,
        *drain.OPERATIONS,
    )
)
"""The whole API."""

BODY_SECS: Final = 60
"""How long a body may take to arrive; then 408."""


def make_edge(service: Service) -> Edge:
    """The ASGI application to serve: the routes behind the edge that bounds and cures them."""
    app = cast("Asgi", make_app(service))  # the same protocol, typed by hypercorn in more detail
    config = service.config
    return Edge(app, bound_secs=request_secs(config), max_body_bytes=config.max_body_bytes)


def make_app(service: Service) -> QuartTrio:
    """The framework's application over a service."""
    app = QuartTrio("clawdforge", static_folder=None)
    app.asgi_http_class = RequestConnection
    app.config["MAX_CONTENT_LENGTH"] = service.config.max_body_bytes
    app.config["BODY_TIMEOUT"] = BODY_SECS
    # Sending has no limit of its own: a client that takes nothing is cut off by TCP_USER_TIMEOUT,
    # and one that takes a little at a time by the edge's bound on the whole request.
    app.config["RESPONSE_TIMEOUT"] = None
    app.url_map.merge_slashes = False  # "//sessions" would be a redirect with a page of HTML
    rules = AccessRules.parse(service.config.allow_cidrs, service.config.trusted_proxies)

    async def admit_address() -> None:
        trace = Trace.of(request.scope)
        trace.address = admit(trace.peer, trace.headers, rules)

    async def answer_error(error: Exception) -> Response:
        return _answer_error(error, service.config.max_body_bytes)

    app.before_request(admit_address)
    app.register_error_handler(Exception, answer_error)
    reader = Reader(narrow(service.config))
    for operation in OPERATIONS:
        mount(app, service, reader, operation)
    return app


def _answer_error(error: Exception, max_body_bytes: int) -> Response:
    problem = _describe(error, max_body_bytes)
    trace = Trace.of(request.scope)
    if problem.kind is OUR_BUG:
        _log.error("request failed", request_id=trace.request_id, **locate(error))
    return respond(problem, trace.route)


def _describe(error: Exception, max_body_bytes: int) -> Problem:
    if isinstance(error, RequestEntityTooLarge):
        return describe_error(TooLarge("body", max_body_bytes))
    if isinstance(error, HTTPException) and error.code is not None and error.code >= 400:
        kept = tuple(pair for pair in error.get_headers() if pair[0] == "Allow")
        return describe_status(error.code, kept)
    if isinstance(error, HTTPException):  # a redirect to a tidier path: there is none here
        return describe_status(404)
    return describe_error(error)


def locate(error: BaseException) -> dict[str, Any]:
    """Where an error of ours came from, as module and line: no traceback, no host path."""
    places = []
    traceback = error.__traceback__
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "?")
        places.append(f"{module}:{traceback.tb_lineno}")
        traceback = traceback.tb_next
    words = str(error) if isinstance(error, ClawdforgeError) else ""
    return {"error": type(error).__name__, "words": words, "at": places[-3:]}
