"""The framework's application: all operations mounted, and every error a problem document.

Nothing runs in the framework's own nursery: it swallows errors. The ASGI application to serve is
:func:`make_edge`, never the bare framework.
"""

from __future__ import annotations

from typing import Any, Final, cast

import structlog
from quart import Request, Response
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from clawdforge.config import Config
from clawdforge.domain.access import AccessRules, admit
from clawdforge.errors import ClawdforgeError
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
from clawdforge.web.operations import Operation, View, mount, respond
from clawdforge.web.problems import OUR_BUG, Problem, describe_error, describe_status
from clawdforge.web.reply import Reply
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


def make_edge(service: Service) -> Edge:
    """The ASGI application to serve: the routes behind the edge that bounds and cures them."""
    app = cast("Asgi", make_app(service))  # the same protocol, typed by hypercorn in more detail
    config = service.config
    return Edge(app, bound_secs=request_secs(config), max_body_bytes=config.max_body_bytes)


def make_app(service: Service) -> ShortWay:
    """The framework's application over a service."""
    app = ShortWay(service.config)
    reader = Reader(narrow(service.config))
    for operation in OPERATIONS:
        mount(app, service, reader, operation)
    return app


class ShortWay(QuartTrio):
    """The framework with one way from a request to its view, and none of its contexts.

    Its own way pushes two contexts, opens a session, sends five signals and asks for hooks that
    nobody has hung up: more than the rest of a trivial request (decision 14). What is kept is what
    we use: its requests, its routes, its responses. So ``quart.request`` is not bound here: a view
    is given its request.
    """

    def __init__(self, config: Config) -> None:
        super().__init__("clawdforge", static_folder=None)
        self.asgi_http_class = RequestConnection
        self.url_map.merge_slashes = False  # "//sessions" would be a redirect with a page of HTML
        self._routes = self.url_map.bind("localhost")
        self._rules = AccessRules.parse(config.allow_cidrs, config.trusted_proxies)

    async def handle_request(  # type: ignore[override]  # our connection sends both
        self, request: Request
    ) -> Reply | Response:
        """Let the address in, find the route, have its view answer; whatever is raised is said."""
        trace = Trace.of(request.scope)
        try:
            trace.address = admit(trace.peer, trace.headers, self._rules)
            endpoint, path = self._routes.match(request.path, request.method)
            view = cast("View", self.view_functions[endpoint])
            return await view(request, **path)
        except Exception as error:  # noqa: BLE001 - the one place where errors become answers
            return self._answer_error(error, trace)

    def _answer_error(self, error: BaseException, trace: Trace) -> Reply | Response:
        while isinstance(error, BaseExceptionGroup):  # of a handler with tasks: the first counts
            error = error.exceptions[0]
        problem = _describe(error)
        if problem.kind is OUR_BUG:
            _log.error("request failed", request_id=trace.request_id, **locate(error))
        return respond(problem, trace.route)


def _describe(error: BaseException) -> Problem:
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
